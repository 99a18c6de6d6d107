"""The pipeline: checkpoint -> model -> quantized tensors -> artifact -> verdict -> published folder.

    results = run_export(ExportRequest(target=["onnx"], loops=["dynamic"], quant="int8", out=Path("dist")))

Everything that can be refused is refused before work starts; nothing is published that failed its gate. `prepare` does
what all artifacts of a run share, `export_one` what each has of its own.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from export.artifact.assemble import assemble
from export.artifact.describe import describe
from export.artifact.golden import GOLDEN_TOKENS, golden_loops, write_golden
from export.artifact.publish import check_output, failed_folder, publish, staging
from export.gates.certificate import certify
from export.gates.lowering import (
    TEXT_TOKENS,
    LoweringVerdict,
    budget_name,
    lowering_gate,
    open_exact,
    open_rewritten,
)
from export.gates.reference import CheckedReference, artifact_distance, check_reference, unlikely_text
from export.job import Job, Progress, resolve, settle_cache, silent
from export.report.files import write_pages
from export.report.page.measure import model_facts
from export.report.page.subject import ModelFacts
from export.request import (
    ExportRequest,
    check_files_are_read,
    check_learning_is_read,
    check_seed,
    expand_targets,
    group_loops,
    parse_loops,
)
from export.resources import Needs, check_resources
from export.source import Source, open_source, torch_threads
from export.targets.registry import StoredInjection, find_target, load_host, load_target, memory_report
from export.texts import CALIBRATION_WINDOWS, WINDOW, calibration_windows, text_count, windows_for
from parcae_mobile.errors import UsageError
from parcae_mobile.manifest import MANIFEST, Manifest, ReferenceEntry, Verdict, hash_files
from quantize.algorithms import LEARNED_WINDOWS, quantize_with
from quantize.algorithms import resolve as resolve_algorithm
from quantize.apply import QuantizedModel
from quantize.budgets import check_budget
from quantize.cache import Cache, cache_key
from quantize.compression import compression_gate
from quantize.learning_run import STEPS, Learning
from quantize.recipe import Recipe, load_recipe, rules_without_effect

NOT_RUN = Verdict(passed=None, by_loops={}, note="not run (--no-verify)")


@dataclass(frozen=True)
class Prepared:
    """What the artifacts of one run share: the integers, what they cost, and the checked golden reference."""

    quantized: QuantizedModel
    compression: Verdict
    reference: CheckedReference | None  # None without gates
    facts: ModelFacts | None  # for the report; None without gates
    seconds: dict[str, float]


@dataclass
class ExportResult:
    """One artifact that was made, where it lies, and whether it passed."""

    path: Path
    manifest: Manifest
    passed: bool
    problems: list[str]
    seconds: dict[str, float]
    memory: list[dict[str, Any]] = field(default_factory=list)  # measured here, so not in the manifest
    notes: list[str] = field(default_factory=list)  # what the source has to say of itself
    needs: Needs | None = None  # what all artifacts of the run were estimated to need

    def to_json(self) -> dict[str, Any]:
        """The object of `--json`."""
        outcome = {"passed": self.passed, "problems": self.problems, "seconds": self.seconds, "memory": self.memory}
        estimated = None if self.needs is None else self.needs.to_dict()
        return {**describe(self.path, self.manifest), **outcome, "notes": self.notes, "estimated": estimated}


def run_export(request: ExportRequest, progress: Progress = silent) -> list[ExportResult]:
    """Make every artifact that the request names. Failed ones lie in `NAME.failed` and have `passed` False."""
    check_files_are_read(request)
    check_seed(request.seed)
    check_learning_is_read(request)
    recipe = load_recipe(request.quant)
    loops = [parse_loops(text, request.max_loops) for text in request.loops]
    targets = [find_target(name) for name in expand_targets(request.target)]
    needs = check_resources(request, recipe, {t.name: len(group_loops(t, loops)) for t in targets})
    progress("loading the model")
    source = open_source(
        request.model,
        request.revision,
        request.random_weights,
        request.seed,
        tokenizer=request.tokenizer,
        checkpoint=request.checkpoint,
    )
    if request.verify:
        check_budget(recipe, source.model, request.accept_budget)
    if not recipe.is_preset:  # presets have rules for parts that not every model has
        unmet = rules_without_effect(recipe, source.model)
        source.notes += [f"recipe {recipe.name}: no parameter meets the rule {match!r} first" for match in unmet]
    with torch_threads(request.threads, source.model.config):
        jobs = [resolve(request, source, recipe, t, group) for t in targets for group in group_loops(t, loops)]
        for job in jobs:
            check_output(job.final, request.force)
        for target in targets:  # after what can be refused without their libraries, which take seconds to import
            load_target(target)
        prepared = prepare(request, source, recipe, progress)
        results = [export_one(settle_cache(job, progress), prepared, progress) for job in jobs]
    for result in results:
        result.needs = needs
    return results


def prepare(request: ExportRequest, source: Source, recipe: Recipe, progress: Progress) -> Prepared:
    """Quantize, check the reference and run the compression gate, once for all targets."""
    seconds: dict[str, float] = {}
    progress(f"quantizing ({recipe.name}, {request.algorithm})")
    with _timed(seconds, "quantize"):
        quantized = quantize(request, source, recipe, progress)
    reference = None
    if request.verify:
        progress("checking fp32 against the golden reference")
        with _timed(seconds, "reference"):
            reference = check_reference(source, source.text("heldout", request.text, 128), request.reference)
        doubt = unlikely_text(reference.reference, source.model.config.vocab_size) if source.real else None
        source.notes += [doubt] if doubt else []
    compression = compression_verdict(request, source, quantized, progress)
    facts = None
    if request.verify:
        progress("measuring each part of the model")
        with _timed(seconds, "facts"):
            facts = model_facts(source, recipe)
    return Prepared(quantized, compression, reference, facts, seconds)


def quantize(request: ExportRequest, source: Source, recipe: Recipe, progress: Progress) -> QuantizedModel:
    """Quantize once, for all targets; calibration text only where the model can read it."""
    if request.calibration is not None and not source.real:
        raise UsageError(f"--calibration {request.calibration}: this model has no tokenizer to read it; leave it out")
    most = LEARNED_WINDOWS if request.algorithm == "learned" else CALIBRATION_WINDOWS
    calibration = calibration_windows(source, request.calibration, most) if source.real else None
    steps = STEPS if request.learn_steps is None else request.learn_steps
    first_token = None if source.tokenizer is None else source.tokenizer.bos

    def report(name: str, done: int, total: int) -> None:
        progress(f"quantizing: {name}", done, total)

    def compute() -> QuantizedModel:
        learning = Learning(steps, request.learn_minutes, request.learn_state, first_token)
        fallbacks, seed = request.max_fallbacks, request.seed
        model, algorithm = source.model, request.algorithm
        return quantize_with(model, recipe, algorithm, calibration, fallbacks, report, seed, learning=learning)

    algorithm = resolve_algorithm(request.algorithm, calibration is not None)
    # Rounding to nearest takes no longer than reading its result, and a state file is a cache of the user's own.
    if not request.cache or algorithm == "rtn" or request.learn_state is not None:
        return compute()
    settings: dict[str, Any] = {"fallbacks": request.max_fallbacks}
    if algorithm == "learned":
        settings |= {"steps": steps, "minutes": request.learn_minutes, "first_token": first_token}
    key = cache_key(source.weights_sha256, recipe, algorithm, calibration, request.seed, settings)
    quantized, reused = Cache.default().get(key, source.model, recipe, compute)
    if reused:
        source.notes.append("quantized tensors come from the cache; --no-cache computes them again")
    return quantized


def compression_verdict(
    request: ExportRequest, source: Source, quantized: QuantizedModel, progress: Progress
) -> Verdict:
    """Gate 2, once for all targets."""
    if not request.verify:
        return NOT_RUN
    if not source.real:
        return Verdict(passed=None, by_loops={}, note="not run: random weights or no tokenizer, quality has no meaning")
    length = min(WINDOW, source.model.config.context - 1)
    if length < 1:
        return Verdict(passed=None, by_loops={}, note="not run: a model of one position predicts nothing from a text")
    progress("compression gate")
    windows = source.text("heldout", request.text).windows(text_count(source, 16), length)
    result = compression_gate(source.model, quantized, windows, real=True)
    by_loops = {str(loops): distance.to_dict() for loops, distance in result.by_loops.items()}
    budget = {"kl_mean": result.budget.kl, "top1": result.budget.top1}
    return Verdict(passed=result.passed, by_loops=by_loops, budget=budget, note="; ".join(result.failures))


def export_one(job: Job, prepared: Prepared, progress: Progress = silent) -> ExportResult:
    """Write, certify, verify and publish one artifact."""
    module = load_target(job.target)
    seconds: dict[str, float] = {}
    with staging(job.final) as folder:
        progress(f"writing {job.target.name} ({job.options.loop_form})")
        with _timed(seconds, "write"):
            if job.source.tokenizer is not None:
                job.source.tokenizer.save(folder)
            delegation = module.write(prepared.quantized, folder, job.options) or {}
            _add_golden(job, prepared.quantized, folder)
        stored, draft, problems = certified(job, prepared.quantized, folder, prepared.compression)
        lowering, reference = NOT_RUN, None
        if prepared.reference is not None:
            with _timed(seconds, "gates"):
                gate, reference = verify(job, prepared.quantized, prepared.reference, folder, draft, progress)
            lowering = gate.to_verdict()
            problems += gate.failures
        if prepared.compression.passed is False:
            problems.append(f"compression gate: {prepared.compression.note}")
        manifest = draft.model_copy(
            update={
                "artifact": job.final.name,
                "delegation": delegation,
                "lowering": lowering,
                "reference": reference,
                "files": hash_files(folder),
                "verified_by": job.target.host_runtime if job.request.verify else "not verified",
            }
        )
        write_pages(job, manifest, prepared.facts, stored, folder)
        manifest = manifest.model_copy(update={"files": hash_files(folder)})
        (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        final = job.final if not problems else failed_folder(job.final)
        publish(folder, final)
    seconds |= prepared.seconds
    result = ExportResult(final, manifest, not problems, problems, seconds, notes=job.source.notes)
    if job.request.verify and not problems:
        progress("measuring memory")
        result.memory = memory_report(job.target, final, manifest)
    return result


def certified(
    job: Job, quantized: QuantizedModel, folder: Path, compression: Verdict
) -> tuple[StoredInjection | None, Manifest, list[str]]:
    """The injection as the written files hold it, the manifest's draft with its certificate, and what is wrong."""
    module = load_target(job.target)
    stored = module.read_injection(folder)
    certificate = certify(job.source.model, stored)
    draft = assemble(job, quantized, module.signatures(folder), certificate, compression)
    return stored, draft, list(certificate.problems)


def verify(
    job: Job,
    quantized: QuantizedModel,
    reference: CheckedReference,
    folder: Path,
    draft: Manifest,
    progress: Progress,
) -> tuple[LoweringVerdict, ReferenceEntry]:
    """Gate 1 on the written files, and their distance to the golden reference."""
    options = job.options
    loops = options.verified_loops(job.source.model.config.mean_recurrence)
    host = load_host(job.target)(folder, draft, job.request.threads)
    budget = budget_name(draft.compute, draft.kv.dtype)
    texts = windows_for(job.source, "heldout", job.request.text, 8, min(TEXT_TOKENS, draft.kv.context))
    exact = open_exact(job.target, folder, draft, quantized, options.cache, host)
    with tempfile.TemporaryDirectory(prefix="parcae-rewritten-") as other:
        rewritten = open_rewritten(job.target, folder, Path(other), draft, quantized, options.cache)
        result = lowering_gate(host, quantized.model, texts, loops, budget, options.cache, progress, exact, rewritten)
    return result, reference.entry(artifact_distance(host, reference.reference, loops))


def _add_golden(job: Job, quantized: QuantizedModel, folder: Path) -> None:
    length = min(GOLDEN_TOKENS, job.options.context)
    ids = job.source.text("heldout", least=length).ids[:length]
    write_golden(quantized.model, ids, golden_loops(job.options), job.options.cache, folder / "golden.npz")


@contextmanager
def _timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    seconds[step] = round(time.monotonic() - started, 2)
