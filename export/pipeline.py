"""The pipeline: checkpoint -> model -> quantized tensors -> artifact -> verdict -> published folder.

    results = run_export(ExportRequest(target=["onnx"], loops=["dynamic"], quant="int8", out=Path("dist")))

Everything that can be refused is refused before work starts; nothing is published that failed its gate. What all
artifacts of a run share is made in prepare.py, what each has of its own here.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from export.answers import KeptAnswers
from export.artifact.assemble import assemble
from export.artifact.describe import describe
from export.artifact.golden import GOLDEN_TOKENS, golden_loops, write_golden
from export.artifact.publish import check_output, failed_folder, publish, staging
from export.beside import ALONE, Answer, Beside, spare_core
from export.gates.certificate import certify
from export.gates.lowering import TEXT_TOKENS, LoweringVerdict, lowering_gate
from export.gates.reference import CheckedReference, artifact_distance
from export.gates.span import Span, open_span
from export.gates.twins import budget_name, open_exact, open_rewritten
from export.job import (
    Job,
    Progress,
    ask_policies,
    judged_loops,
    needed_loops,
    next_policy,
    resolve,
    settle_cache,
    silent,
)
from export.prepare import NOT_RUN, Prepared, prepare, timed
from export.report.files import write_pages
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
from export.source import open_source, torch_threads
from export.targets.registry import (
    DYNAMIC,
    StoredInjection,
    find_target,
    load_exact,
    load_host,
    load_target,
    memory_report,
)
from export.texts import windows_for
from parcae_mobile.manifest import MANIFEST, Manifest, ReferenceEntry, Verdict, hash_files
from quantize.apply import QuantizedModel
from quantize.budgets import check_budget
from quantize.recipe import load_recipe, rules_without_effect

Costs = Mapping[int, Sequence[str]]  # loop count -> what exceeds its budget there


@dataclass(frozen=True)
class Made:
    """A folder's manifest and what is wrong with it; `hopeless` if it is wrong whatever the KV policy."""

    manifest: Manifest
    problems: list[str]
    hopeless: bool


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


def run_export(
    request: ExportRequest, progress: Progress = silent, announce: Callable[[Needs], None] = lambda needs: None
) -> list[ExportResult]:
    """Make every artifact that the request names. Failed ones lie in `NAME.failed` and have `passed` False.

    `announce` is given what all of it is estimated to need, before work starts.
    """
    check_files_are_read(request)
    check_seed(request.seed)
    check_learning_is_read(request)
    recipe = load_recipe(request.quant)
    loops = [parse_loops(text, request.max_loops) for text in request.loops]
    targets = [find_target(name) for name in expand_targets(request.target)]
    needs = check_resources(request, recipe, {t.name: len(group_loops(t, loops)) for t in targets})
    if needs is not None:
        announce(needs)
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
    spare = spare_core(request.threads, source.model.config.recurrent_embedding_dimension)
    with torch_threads(request.threads, source.model.config), Beside(spare, progress) as beside:
        jobs = [resolve(request, source, recipe, t, group) for t in targets for group in group_loops(t, loops)]
        for job in jobs:
            check_output(job.final, request.force)
        answers = KeptAnswers.of(request, source, recipe)
        policies = ask_policies(jobs, beside, answers)
        for target in targets:  # after what can be refused without their libraries, which take seconds to import
            load_target(target)
        judged = sorted({count for job in jobs for count in judged_loops(job)})
        prepared = prepare(request, source, recipe, judged, progress, beside, answers)
        jobs = [settle_cache(job, policies, progress) for job in jobs]
        source.release({*prepared.quantized.stored, *prepared.quantized.floats})
        results = [export_one(job, prepared, progress, beside) for job in jobs]
    for result in results:
        result.needs = needs
    return results


def export_one(job: Job, prepared: Prepared, progress: Progress = silent, beside: Beside = ALONE) -> ExportResult:
    """Write, certify, verify and publish one artifact.

    If it fails under a KV policy that was chosen for it, the next one is tried.
    """
    seconds: dict[str, float] = {}
    while True:
        with staging(job.final) as folder:
            attempt = make(job, prepared, folder, seconds, progress, beside)
            other = next_policy(job) if attempt.problems and not attempt.hopeless else None
            if other is None:
                final = failed_folder(job.final) if attempt.problems else job.final
                publish(folder, final)
                break
        job = other
    seconds |= prepared.seconds
    result = ExportResult(
        final, attempt.manifest, not attempt.problems, attempt.problems, seconds, notes=job.source.notes
    )
    if job.request.verify and not attempt.problems:
        progress("measuring memory")
        result.memory = memory_report(job.target, final, attempt.manifest)
    return result


def make(
    job: Job, prepared: Prepared, folder: Path, seconds: dict[str, float], progress: Progress, beside: Beside
) -> Made:
    """Fill a folder with one artifact, its verdicts and its manifest."""
    module = load_target(job.target)
    progress(f"writing {job.target.name} ({job.options.loop_form})")
    with timed(seconds, "write"):
        if job.source.tokenizer is not None:
            job.source.tokenizer.save(folder)
        delegation = module.write(prepared.quantized, folder, job.options) or {}
    stored, draft, problems = certified(job, prepared.quantized, folder)
    gate, reference = None, None
    if prepared.reference is not None:
        with timed(seconds, "gates"):
            gate, reference = verify(job, prepared.quantized, prepared.reference, folder, draft, progress, beside)
    cost = prepared.compression()
    rounding, wrong = ({}, []) if gate is None else (gate.too_costly, gate.wrong)
    span, alone = (open_loops(job, cost.too_costly, costs) for costs in (rounding, {}))
    _add_golden(job, prepared.quantized, span, folder)
    prepared.quantized.forget()  # another target is written without it
    manifest = draft.model_copy(
        update={
            "artifact": job.final.name,
            "min_loops": span.least if draft.loops == DYNAMIC else 1,
            "max_loops": span.most,
            "closed": {str(count): why for count, why in span.closed.items()},
            "delegation": delegation,
            "lowering": NOT_RUN if gate is None else gate.to_verdict(span.closed),
            "compression": _compression_of(job, cost.verdict, alone),
            "reference": reference,
            "files": hash_files(folder),
            "verified_by": job.target.host_runtime if job.request.verify else "not verified",
        }
    )
    write_pages(job, manifest, prepared.facts(), stored, folder)
    if gate is not None:
        seconds |= {"compression": round(prepared.compression.seconds, 2), "facts": round(prepared.facts.seconds, 2)}
    manifest = manifest.model_copy(update={"files": hash_files(folder)})
    (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    hopeless = bool(problems or wrong or alone.problems)
    return Made(manifest, [*problems, *wrong, *span.problems], hopeless)


def certified(job: Job, quantized: QuantizedModel, folder: Path) -> tuple[StoredInjection | None, Manifest, list[str]]:
    """The injection as the written files hold it, the manifest's draft with its certificate, and what is wrong."""
    module = load_target(job.target)
    stored = module.read_injection(folder)
    certificate = certify(job.source.model, stored)
    draft = assemble(job, quantized, module.signatures(folder), certificate)
    return stored, draft, list(certificate.problems)


def open_loops(job: Job, compression: Costs, rounding: Costs) -> Span:
    """The loop counts that an artifact may run, by what compression and rounding exceed at each."""
    judged, failures = judged_loops(job), {}
    for count in judged:
        lines = [*(f"compression gate: {line}" for line in compression.get(count, ())), *rounding.get(count, ())]
        failures[count] = [line.replace(f"T={count}: ", "") for line in lines]
    return open_span(judged, failures, needed_loops(job))


def _compression_of(job: Job, verdict: Verdict, span: Span) -> Verdict:
    """The verdict on the loop counts that one artifact has."""
    if verdict.passed is None:
        return verdict
    rows = {str(count): verdict.by_loops[str(count)] for count in judged_loops(job)}
    passed, note = not span.problems, "; ".join(span.problems)
    return verdict.model_copy(update={"passed": passed, "by_loops": rows, "note": note})


def verify(
    job: Job,
    quantized: QuantizedModel,
    reference: CheckedReference,
    folder: Path,
    draft: Manifest,
    progress: Progress,
    beside: Beside = ALONE,
) -> tuple[LoweringVerdict, ReferenceEntry]:
    """Gate 1 on the written files, and their distance to the golden reference."""
    options = job.options
    loops = judged_loops(job)
    host = load_host(job.target)(folder, draft, job.request.threads)
    budget = budget_name(draft.compute, draft.kv.dtype)
    texts = windows_for(job.source, "heldout", job.request.text, 8, min(TEXT_TOKENS, draft.kv.context))
    with contextlib.ExitStack() as stack:
        to = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="parcae-rewritten-")))
        own = stack.enter_context(Beside(beside.spare, progress))  # over before that folder goes
        rewriting = Answer("", partial(load_exact(job.target).rewrite, folder, to), silent)
        if not own.spare:  # what another tool holds and the dequantized model would be there at once
            rewriting()
        exact = open_exact(job.target, folder, draft, quantized, options.cache, host)
        rewritten = partial(open_rewritten, job.target, rewriting, to, draft, quantized, options.cache)
        asked = host, quantized.model, texts, loops, budget, options.cache, progress, exact, rewritten
        result = lowering_gate(*asked, beside=own, trained=job.source.folder is not None)
    return result, reference.entry(artifact_distance(host, reference.reference, loops))


def _add_golden(job: Job, quantized: QuantizedModel, span: Span, folder: Path) -> None:
    length = min(GOLDEN_TOKENS, job.options.context)
    ids = job.source.text("heldout", least=length).ids[:length]
    write_golden(quantized.model, ids, golden_loops(job.options, span.loops), job.options.cache, folder / "golden.npz")
