"""What is asked for: every option of an export with its meaning, and the checks that need no open model.

    request = ExportRequest(target=["onnx"], loops=["dynamic"], quant="int8", out=Path("dist"))

The fields are the options of the command: `export/cli` derives its signature from them, Optimum's plug-in and `bench`
fill them in. Nothing here needs torch, so `--help` is fast.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from annotated_doc import Doc

from export.targets.registry import DYNAMIC, TARGETS, Loops, Target
from parcae_mobile.errors import UsageError

AUTO = "auto"
MODEL_HELP = "Folder, hub id, or a shape with --random-weights."
TOKENIZER_HELP = "File, folder or hub id; default the model's."
CHECKPOINT_HELP = "One of a training run's: file, name or step; default the newest."
THREADS_HELP = "Threads of torch and of the runtime; 0: one for a narrow model, else as many as they take."


@dataclass(frozen=True)
class ExportRequest:
    """What one export is asked for; a field's name is its option's, its `Doc` the option's help."""

    model: Annotated[str | None, Doc(MODEL_HELP)] = None
    revision: Annotated[str | None, Doc("Revision of a hub id.")] = None
    tokenizer: Annotated[str | None, Doc(TOKENIZER_HELP)] = None
    checkpoint: Annotated[str | None, Doc(CHECKPOINT_HELP)] = None
    random_weights: Annotated[bool, Doc("Draw seeded weights for a released shape.")] = False
    seed: Annotated[int, Doc("Seed of random weights and algorithms.")] = 0
    target: Annotated[list[str], Doc("onnx, executorch, coreml or all; may be repeated.")] = field(
        default_factory=lambda: ["onnx"]
    )
    loops: Annotated[list[str], Doc("A loop count (may be repeated) or dynamic.")] = field(
        default_factory=lambda: [DYNAMIC]
    )
    max_loops: Annotated[int, Doc("Most loops of a dynamic artifact.")] = 16
    loop_form: Annotated[str | None, Doc("How the loop is composed.")] = None
    portable: Annotated[bool, Doc("ONNX with standard operators only.")] = False
    all_logits: Annotated[bool, Doc("Static ONNX: logits of all positions, not the last.")] = False
    delegate: Annotated[str | None, Doc("ExecuTorch delegate: xnnpack; others say why not.")] = None
    quant: Annotated[str, Doc("fp32, fp16, int8, int4, int4-zero-points, int4-small, int4-palette or TOML.")] = "int4"
    algorithm: Annotated[str, Doc("auto (gptq where there is text), rtn, hqq, gptq or learned.")] = AUTO
    learn_steps: Annotated[int | None, Doc("Steps of learned rounding.")] = None
    learn_minutes: Annotated[float | None, Doc("Most minutes of learned rounding.")] = None
    learn_state: Annotated[Path | None, Doc("File from which learned rounding can go on.")] = None
    accept_budget: Annotated[bool, Doc("Judge a recipe by its own budget, looser than the presets'.")] = False
    max_fallbacks: Annotated[int, Doc("Matrices that GPTQ may leave to rounding.")] = 0
    resource_check: Annotated[bool, Doc("Refuse at once what this machine cannot hold.")] = True
    cache: Annotated[bool, Doc("Reuse quantized tensors of an earlier export.")] = True
    compute: Annotated[str | None, Doc("What activations are computed in: fp32, fp16, int8.")] = None
    kv: Annotated[str, Doc("KV cache policy; auto measures them.")] = AUTO
    kv_dtype: Annotated[str | None, Doc("KV cache type.")] = None
    context: Annotated[int | None, Doc("Most tokens; default the model's.")] = None
    out: Annotated[Path, Doc("Folder that receives the artifact folder.")] = Path("dist")
    force: Annotated[bool, Doc("Replace an existing artifact.")] = False
    verify: Annotated[bool, Doc("Run the gates before publishing.")] = True
    reference: Annotated[Path | None, Doc("Golden reference file.")] = None
    text: Annotated[Path | None, Doc("Held-out UTF-8 text for the gates.")] = None
    calibration: Annotated[Path | None, Doc("Calibration UTF-8 text.")] = None
    threads: Annotated[int, Doc(THREADS_HELP)] = 0


def check_files_are_read(request: ExportRequest) -> None:
    """Raise `UsageError` for a file that is given and that nothing would read."""
    if not request.verify and request.reference is not None:
        raise UsageError(
            f"--reference {request.reference}: --no-verify compares with nothing; leave one of the two out"
        )
    if not request.verify and request.text is not None and request.kv != AUTO:
        raise UsageError(
            f"--text {request.text}: nothing reads it with --no-verify and --kv {request.kv}; "
            "leave it or --no-verify out"
        )


def check_learning_is_read(request: ExportRequest) -> None:
    """Raise `UsageError` for an option of learned rounding that is given without it."""
    asked = {"steps": request.learn_steps, "minutes": request.learn_minutes, "state": request.learn_state}
    set_options = [name for name, value in asked.items() if value is not None]
    if set_options and request.algorithm != "learned":
        raise UsageError(
            f"--learn-{set_options[0]}: nothing reads it with --algorithm {request.algorithm}; add --algorithm learned"
        )


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


def check_seed(seed: int) -> None:
    """Raise `UsageError` for a seed that random generators do not take."""
    if not 0 <= seed < 2**63:
        raise UsageError(f"--seed {seed}: give a number from 0 to {2**63 - 1}")


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
