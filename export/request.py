"""What is asked for, and what it means: options checked and resolved before any work starts.

plans = [plan(request, source, recipe, target, group) for ...]
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from export.artifact.publish import check_output
from export.source import Source
from export.targets.registry import DYNAMIC, TARGETS, Loops, Target, WriteOptions
from parcae_mobile.errors import ToolMissingError, UsageError
from parcae_mobile.loops import KV_POLICIES
from parcae_mobile.manifest import Compute, LoopForm
from quantize.recipe import Recipe, plan_halves

AUTO = "auto"


@dataclass
class ExportRequest:
    """What the command line asks for; see its options."""

    model: str | None = None
    revision: str | None = None
    tokenizer: str | None = None
    checkpoint: str | None = None
    random_weights: bool = False
    seed: int = 0
    targets: list[str] = field(default_factory=lambda: ["onnx"])
    loops: list[str] = field(default_factory=lambda: [DYNAMIC])
    max_loops: int = 16
    loop_form: str | None = None
    portable: bool = False
    all_logits: bool = False
    delegate: str | None = None
    quant: str = "int4"
    algorithm: str = "auto"
    distill: int = 0
    max_fallbacks: int = 0
    compute: str | None = None
    kv: str = "auto"
    kv_dtype: str | None = None
    context: int | None = None
    out: Path = Path("dist")
    force: bool = False
    verify: bool = True
    reference: Path | None = None
    text: Path | None = None
    calibration: Path | None = None
    threads: int = 0


@dataclass
class ExportPlan:
    """One artifact to be made."""

    target: Target
    options: WriteOptions
    final: Path


def parse_loops(text: str, max_loops: int) -> Loops:
    """`dynamic`, or a whole number from 1 to `max_loops`. Raises `UsageError`."""
    if max_loops < 1:
        raise UsageError(f"--max-loops {max_loops}: give 1 or more")
    if text == DYNAMIC:
        return DYNAMIC
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise UsageError(f"--loops {text}: give a whole number of at least 1, or dynamic")
    if int(text) > max_loops:
        raise UsageError(f"--loops {text} is above --max-loops {max_loops}; raise one or lower the other")
    return int(text)


def expand_targets(names: list[str]) -> list[str]:
    """`all` stands for every target that is built."""
    if "all" in names:
        return [name for name, target in TARGETS.items() if target.module is not None]
    return list(dict.fromkeys(names))


def group_loops(target: Target, asked: list[Loops]) -> list[tuple[Loops, ...]]:
    """What goes into one folder each: every loop count alone, or all static ones where the target lets them share."""
    distinct = list(dict.fromkeys(asked))
    static = tuple(sorted(count for count in distinct if isinstance(count, int)))
    if not target.shares_static or len(static) < 2:
        return [(count,) for count in distinct]
    return [*((count,) for count in distinct if count == DYNAMIC), static]


def plan(
    request: ExportRequest, source: Source, recipe: Recipe, target: Target, group: tuple[Loops, ...]
) -> ExportPlan:
    """Resolve one artifact's options and check that its folder may be written.

    Of several static loop counts in one folder the trained one, or else the greatest, is what stock clients find.
    """
    trained = source.model.config.mean_recurrence
    loops = trained if trained in group else group[-1]
    forms = target.forms(loops)
    if not forms:
        raise ToolMissingError(f"{target.name} with a static loop count is not built yet; use --loops dynamic")
    check_flavour(request, target, loops)
    if request.portable:
        forms = tuple(form for form in forms if form != "scan")
    form = request.loop_form or forms[0]
    if form not in forms:
        raise UsageError(f"--loop-form {form}: {target.name} with --loops {loops} has {', '.join(forms)}")
    if recipe.has_palettes and not target.palettes:
        raise UsageError(f"--quant {recipe.name}: {target.name} has no palettes, only integers with scales; use int4")
    compute = request.compute or default_compute(target, recipe)
    if compute not in target.computes:
        raise UsageError(f"--compute {compute}: {target.name} has {', '.join(target.computes)}")
    if request.kv != AUTO and request.kv not in KV_POLICIES:
        raise UsageError(f"--kv {request.kv}: choose auto or one of {', '.join(KV_POLICIES)}")
    if request.kv not in (AUTO, "full") and not target.shares_slots(form, request.portable):
        flavour = f"portable {form}" if request.portable else form
        raise ToolMissingError(f"--kv {request.kv} is not built for {target.name} ({flavour}); use full")
    kv_dtype = request.kv_dtype or ("fp32" if request.portable else target.default_kv_dtype(compute))
    if kv_dtype not in target.kv_dtypes:
        raise ToolMissingError(f"--kv-dtype {kv_dtype}: {target.name} has {', '.join(target.kv_dtypes)}")
    if (compute, kv_dtype) == ("fp16", "fp32"):
        raise UsageError("--kv-dtype fp32: keys and values of --compute fp16 are fp16; use --kv-dtype fp16")
    context = source.model.config.context if request.context is None else request.context
    if not 1 <= context <= source.model.config.context:
        raise UsageError(f"--context {context}: the model takes 1 to {source.model.config.context} tokens")
    if not target.stores_fp16 and plan_halves(recipe, source.model):
        raise UsageError(
            f"--quant {recipe.name}: {target.name} stores float matrices as fp32, rounding them to fp16 would save "
            "nothing; use --quant int8 or fp32 (in a recipe: bits = 32), or --target coreml"
        )
    if request.delegate is not None:
        check_delegate(target, request.delegate)
    label = "-".join(DYNAMIC if count == DYNAMIC else f"T{count}" for count in group)
    flavour = "-portable" if request.portable else ""
    final = request.out / f"{source.name}-{target.name}-{label}-{recipe.name}{flavour}"
    check_output(final, request.force)
    max_loops = request.max_loops if loops == DYNAMIC else int(group[-1])
    policy = "full" if request.kv == AUTO else request.kv
    options = WriteOptions(cast(LoopForm, form), loops, max_loops, context, cast(Compute, compute), policy, kv_dtype)
    last_logits = (target.name, form) == ("onnx", "unrolled") and not request.all_logits
    options = replace(options, portable=request.portable, last_logits=last_logits)
    if len(group) > 1:
        options = replace(options, counts=tuple(int(count) for count in group))
    if source.tokenizer is not None:
        options = replace(options, bos=source.tokenizer.bos, stops=source.tokenizer.stops)
    return ExportPlan(target, options, final)


def check_flavour(request: ExportRequest, target: Target, loops: Loops) -> None:
    """Raise if `--portable` or `--all-logits` asks for what this target or form does not have."""
    if request.portable and target.name != "onnx":
        raise UsageError(f"--portable: only ONNX has a flavour without contrib operators, not {target.name}")
    if request.portable and request.kv_dtype not in (None, "fp32"):
        raise ToolMissingError(f"--kv-dtype {request.kv_dtype}: --portable has fp32; standard attention reads no other")
    if request.all_logits and (target.name != "onnx" or loops == DYNAMIC):
        raise UsageError("--all-logits is for static ONNX graphs (--loops 4); hosts of other forms say which they want")


def check_delegate(target: Target, delegate: str) -> None:
    """Raise if `--delegate` names what this target or its installed runtime cannot lower to."""
    if target.name != "executorch":
        raise UsageError(f"--delegate {delegate}: only ExecuTorch has delegates, not {target.name}")
    from export.targets.executorch.writer import check_delegate as check

    check(delegate)


def default_compute(target: Target, recipe: Recipe) -> str:
    """int8 activations where weights are integers and the target has kernels for it, else the target's first."""
    return "int8" if recipe.rules and "int8" in target.computes else target.computes[0]
