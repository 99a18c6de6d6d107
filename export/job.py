"""One artifact to be made: a request resolved for one target, everything that decides the artifact's bytes.

    job = resolve(request, source, recipe, target, group)  # raises before any work starts
    policies = ask_policies([job], beside)                 # `--kv auto` begins to measure
    job = settle_cache(job, policies, progress)            # the policy chosen, scales of an int8 cache

A job is never changed: what is measured for it gives a new one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol, cast

from export.answers import NOT_KEPT, POLICIES, KeptAnswers
from export.beside import ALONE, Answer, Beside
from export.kv.choice import JUDGED_LOOPS, LENGTH, WINDOWS, PolicyChoice, choice_from, policy_distances
from export.kv.scales import measure_scales
from export.request import AUTO, ExportRequest
from export.source import Source
from export.targets.registry import DYNAMIC, TARGETS, Loops, Target, WriteOptions, check_delegate
from export.targets.shapes import Asked, instead, refusal
from export.texts import windows_for
from parcae_mobile.errors import ToolMissingError, UsageError
from parcae_mobile.loops import KV_BYTES, KV_POLICIES
from parcae_mobile.manifest import Compute, LoopForm
from parcae_mobile.model import Parcae
from parcae_mobile.parity import Distance
from quantize.cache_key import ids_sha256
from quantize.recipe import Recipe, assign_rules, half_matrices


class Progress(Protocol):
    """Told what is being done, and how much of it where that is counted."""

    def __call__(self, step: str, done: int = 0, total: int = 0) -> None: ...


def silent(step: str, done: int = 0, total: int = 0) -> None:
    """Progress that nobody reads."""


@dataclass(frozen=True)
class Job:
    """One artifact to be made. `kv_choice` is there where `--kv auto` measured the policies."""

    request: ExportRequest
    source: Source
    target: Target
    options: WriteOptions
    final: Path
    kv_choice: PolicyChoice | None = None


def resolve(request: ExportRequest, source: Source, recipe: Recipe, target: Target, group: tuple[Loops, ...]) -> Job:
    """Resolve one artifact's options. Raises `UsageError` and `ToolMissingError` for what the target does not have.

    Of several static loop counts in one folder the trained one, or else the greatest, is what stock clients find.
    """
    trained = source.model.config.mean_recurrence
    loops = trained if trained in group else group[-1]
    plain = source.model.config.plain
    if plain and any(count not in (DYNAMIC, 1) for count in group):
        raise UsageError(f"{source.name} has no loop, so --loops {group[-1]} means nothing there; leave it out")
    _check_flavour(request, target, loops)
    form = _loop_form(request, target, loops)
    _check_recipe(recipe, source, target)
    compute = request.compute or default_compute(target, recipe)
    if compute not in target.computes:
        raise UsageError(f"--compute {compute}: {target.name} has {', '.join(target.computes)}")
    _check_policy(request, target, form)
    tokenizer = source.tokenizer
    options = WriteOptions(
        loop_form=form,
        loops=loops,
        max_loops=1 if plain else request.max_loops if loops == DYNAMIC else int(group[-1]),
        context=_context(request, source),
        compute=cast(Compute, compute),
        kv_policy="full" if request.kv == AUTO else request.kv,
        kv_dtype=_kv_dtype(request, target, compute),
        bos=None if tokenizer is None else tokenizer.bos,
        stops=() if tokenizer is None else tokenizer.stops,
        portable=request.portable,
        last_logits=form in target.last_logits_forms and not request.all_logits,
        counts=tuple(int(count) for count in group) if len(group) > 1 else (),
    )
    if request.delegate is not None:
        check_delegate(target, request.delegate)
    check_shape(target, options, source.model, recipe)
    label = "-".join(DYNAMIC if count == DYNAMIC else f"T{count}" for count in group)
    flavour = "-portable" if request.portable else ""
    final = request.out / f"{source.name}-{target.name}-{label}-{recipe.name}{flavour}"
    return Job(request, source, target, options, final)


def check_shape(target: Target, options: WriteOptions, model: Parcae, recipe: Recipe) -> None:
    """Raise if the target cannot take the model's shape or a matrix's format; the line names the targets that can."""
    asked = shape_of(options, model, recipe)
    why = refusal(target, asked)
    if why is not None:
        raise ToolMissingError(f"{why}; {instead(asked, default_computes(recipe))}")


def shape_of(options: WriteOptions, model: Parcae, recipe: Recipe) -> Asked:
    """What decides whether a target can write a model under a recipe. Raises `RecipeError` as quantizing would.

    Only shapes are read, so a model on the meta device will do.
    """
    rules = assign_rules(recipe, model)
    parameters = dict(model.named_parameters())
    sizes = {name: (parameters[name].shape[0], parameters[name].shape[1]) for name in rules}
    return Asked(model.config, rules, sizes, options)


def default_computes(recipe: Recipe) -> dict[str, str]:
    """What each target computes in under a recipe where nothing else is asked for."""
    return {name: default_compute(target, recipe) for name, target in TARGETS.items()}


def default_compute(target: Target, recipe: Recipe) -> str:
    """int8 activations where weights are integers and the target has kernels for it, else the target's first."""
    return "int8" if any(rule.bits < 16 for rule in recipe.rules) and "int8" in target.computes else target.computes[0]


Judged = tuple[int, int]  # loops and tokens of a text at which policies are compared
Policies = Mapping[Judged, Answer[dict[str, Distance]]]


def ask_policies(jobs: Sequence[Job], beside: Beside = ALONE, answers: KeptAnswers = NOT_KEPT) -> Policies:
    """Begin to measure for `--kv auto` what each policy costs: once for all artifacts that are judged alike."""
    asked: dict[Judged, Answer[dict[str, Distance]]] = {}
    for job in jobs:
        judged = _judged_policies(job)
        if judged is not None and judged not in asked:
            loops, length = judged
            windows = job.source.text("heldout", job.request.text).windows(WINDOWS, length)
            work = partial(policy_distances, job.source.model, windows, loops)
            about = {"windows": ids_sha256(windows), "length": length, "loops": loops}
            asked[judged] = answers.start(beside, "measuring KV policies", work, POLICIES, **about)
    return asked


def settle_cache(job: Job, policies: Policies, progress: Progress) -> Job:
    """The job with the KV policy that `--kv auto` chooses for this model, and with the scales of an int8 cache."""
    request, source, options, choice = job.request, job.source, job.options, None
    judged = _judged_policies(job)
    if judged is not None:
        distances, size = policies[judged](), KV_BYTES[options.kv_dtype]
        config = source.model.config
        choice = choice_from(distances, config, judged[0], options.max_loops, options.context, size)
        options = replace(options, kv_policy=choice.policy)
    if options.kv_dtype == "int8":
        progress("measuring KV scales")
        length = min(LENGTH, source.model.config.context) - 1
        windows = windows_for(source, "calibration", request.calibration, WINDOWS, length)
        options = replace(
            options, kv_scales=measure_scales(source.model, windows, min(JUDGED_LOOPS, options.max_loops))
        )
    return replace(job, options=options, kv_choice=choice)


def _judged_policies(job: Job) -> Judged | None:
    """None where no policy is measured: one was named, slots cannot be shared, or there is no text to judge by."""
    options, config = job.options, job.source.model.config
    may_share = job.target.shares_slots(options.loop_form, options.portable)
    length = min(LENGTH, config.context, options.context) - 1
    if job.request.kv != AUTO or not may_share or not job.source.real or length < 1:  # one token has no past to share
        return None
    return min(JUDGED_LOOPS, options.max_loops), length


def next_policy(job: Job) -> Job | None:
    """The job with the next larger policy that `--kv auto` found free; None where there is none."""
    choice = None if job.kv_choice is None else job.kv_choice.next()
    if choice is None:
        return None
    return replace(job, options=replace(job.options, kv_policy=choice.policy), kv_choice=choice)


def judged_loops(job: Job) -> list[int]:
    """The loop counts at which the gates judge an artifact: every static one, or a spread of those that may run."""
    return job.options.verified_loops(job.source.model.config.mean_recurrence)


def needed_loops(job: Job) -> list[int]:
    """Those that have to pass: every one that was asked for by number, or the trained one, or the next to it."""
    if job.options.loops != DYNAMIC:
        return judged_loops(job)
    return [min(job.source.model.config.mean_recurrence, job.options.max_loops)]


def _loop_form(request: ExportRequest, target: Target, loops: Loops) -> LoopForm:
    forms = target.forms(loops)
    if not forms:
        raise ToolMissingError(f"{target.name} with a static loop count is not built yet; use --loops dynamic")
    if request.portable:
        forms = tuple(form for form in forms if form in target.portable_forms)
    form = request.loop_form or forms[0]
    if form not in forms:
        raise UsageError(f"--loop-form {form}: {target.name} with --loops {loops} has {', '.join(forms)}")
    return cast(LoopForm, form)


def _check_flavour(request: ExportRequest, target: Target, loops: Loops) -> None:
    """Raise if `--portable` or `--all-logits` asks for what this target or form does not have."""
    if request.portable and not target.portable_forms:
        others = ", ".join(name for name, other in TARGETS.items() if other.portable_forms)
        raise UsageError(f"--portable: only {others} has a flavour without contrib operators, not {target.name}")
    if request.portable and request.kv_dtype not in (None, "fp32"):
        raise ToolMissingError(f"--kv-dtype {request.kv_dtype}: --portable has fp32; standard attention reads no other")
    if request.all_logits and not set(target.forms(loops)) & set(target.last_logits_forms):
        raise UsageError("--all-logits is for static ONNX graphs (--loops 4); hosts of other forms say which they want")


def _check_recipe(recipe: Recipe, source: Source, target: Target) -> None:
    """Raise if the target cannot hold what the recipe makes, or if that would save nothing there."""
    if recipe.has_palettes and not target.palettes:
        raise UsageError(f"--quant {recipe.name}: {target.name} has no palettes, only integers with scales; use int4")
    if recipe.has_zero_points and not target.zero_points:
        raise UsageError(f"--quant {recipe.name}: {target.name} has no zero points, only symmetric integers; use int4")
    if not target.stores_fp16 and half_matrices(recipe, source.model):
        raise UsageError(
            f"--quant {recipe.name}: {target.name} stores float matrices as fp32, rounding them to fp16 would save "
            "nothing; use --quant int8 or fp32 (in a recipe: bits = 32), or --target coreml"
        )


def _check_policy(request: ExportRequest, target: Target, form: str) -> None:
    if request.kv != AUTO and request.kv not in KV_POLICIES:
        raise UsageError(f"--kv {request.kv}: choose auto or one of {', '.join(KV_POLICIES)}")
    if request.kv not in (AUTO, "full") and not target.shares_slots(form, request.portable):
        flavour = f"portable {form}" if request.portable else form
        raise ToolMissingError(f"--kv {request.kv} is not built for {target.name} ({flavour}); use full")


def _kv_dtype(request: ExportRequest, target: Target, compute: str) -> str:
    kv_dtype = request.kv_dtype or ("fp32" if request.portable else target.default_kv_dtype(compute))
    if kv_dtype not in target.kv_dtypes:
        raise ToolMissingError(f"--kv-dtype {kv_dtype}: {target.name} has {', '.join(target.kv_dtypes)}")
    if (compute, kv_dtype) == ("fp16", "fp32"):
        raise UsageError("--kv-dtype fp32: keys and values of --compute fp16 are fp16; use --kv-dtype fp16")
    return kv_dtype


def _context(request: ExportRequest, source: Source) -> int:
    most = source.model.config.context
    context = most if request.context is None else request.context
    if not 1 <= context <= most:
        raise UsageError(f"--context {context}: the model takes 1 to {most} tokens")
    return context
