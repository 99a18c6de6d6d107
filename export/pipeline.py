"""The pipeline: checkpoint -> model -> quantized tensors -> artifact -> verdict -> published folder.

    results = run_export(ExportRequest(targets=["onnx"], loops=["dynamic"], quant="int8", out=Path("dist")))

Everything that can be refused is refused before work starts; nothing is published that failed its gate.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from export.artifact.assemble import KV_BYTES, assemble
from export.artifact.publish import failed_folder, publish, staging
from export.gates.certificate import certify
from export.gates.lowering import TEXT_TOKENS, LoweringVerdict, budget_name, lowering_gate
from export.gates.reference import CheckedReference, artifact_distance, check_reference
from export.kv.choice import JUDGED_LOOPS, LENGTH, WINDOWS, PolicyChoice, choose_policy
from export.kv.scales import measure_scales
from export.request import AUTO, ExportPlan, ExportRequest, expand_targets, group_loops, parse_loops, plan
from export.source import Source, open_source
from export.targets.registry import WriteOptions, find_target, load_host, load_target, memory_report
from parcae_mobile.errors import UsageError
from parcae_mobile.kv_cache import CacheScales, CacheSpec
from parcae_mobile.manifest import MANIFEST, Manifest, Verdict, hash_files
from quantize.algorithms import quantize_with
from quantize.apply import QuantizedModel
from quantize.compression import compression_gate
from quantize.recipe import Recipe, load_recipe

GOLDEN_BYTES = 2_000_000
WINDOW = 256
CALIBRATION_WINDOWS = 32
DISTILL_WINDOWS = 448
SMALL_MODEL = 50_000_000  # parameters; larger models are judged on fewer texts
Progress = Callable[[str], None]


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

    def to_json(self) -> dict[str, Any]:
        """The object of `--json`."""
        outcome = {"passed": self.passed, "problems": self.problems, "seconds": self.seconds, "memory": self.memory}
        outcome["notes"] = self.notes
        return {**describe(self.path, self.manifest), **outcome}


def describe(path: Path, manifest: Manifest) -> dict[str, Any]:
    """What `--json` says of any artifact, from its manifest."""
    files = {name: entry.model_dump() for name, entry in manifest.files.items()}
    reference = manifest.reference
    return {
        "artifact": str(path),
        "model": manifest.model,
        "target": manifest.target,
        "loops": manifest.loops,
        "graphs": manifest.graphs,
        "portable": manifest.portable,
        "loop_form": manifest.loop_form,
        "quant": manifest.quantization.recipe,
        "algorithm": manifest.quantization.algorithm,
        "compute": manifest.compute,
        "files": files,
        "bytes_total": sum(entry["bytes"] for entry in files.values()),
        "lowering": manifest.lowering.model_dump(mode="json"),
        "compression": manifest.compression.model_dump(mode="json"),
        "certificate": manifest.certificate.model_dump(),
        "kv": manifest.kv.model_dump(),
        "delegation": {
            name: part.model_dump() | {"macs_share": part.macs_share, "operators_share": part.operators_share}
            for name, part in manifest.delegation.items()
        },
        "reference": None if reference is None else reference.model_dump(mode="json"),
        "verified_by": manifest.verified_by,
    }


def run_export(request: ExportRequest, progress: Progress = lambda line: None) -> list[ExportResult]:
    """Make every artifact that the request names. Failed ones lie in `NAME.failed` and have `passed` False."""
    recipe = load_recipe(request.quant)
    loops = [parse_loops(text, request.max_loops) for text in request.loops]
    targets = [find_target(name) for name in expand_targets(request.targets)]
    for target in targets:
        load_target(target)
    progress("loading the model")
    source = open_source(
        request.model,
        request.revision,
        request.random_weights,
        request.seed,
        tokenizer=request.tokenizer,
        checkpoint=request.checkpoint,
    )
    plans = [plan(request, source, recipe, t, group) for t in targets for group in group_loops(t, loops)]
    started = time.monotonic()
    progress(f"quantizing ({recipe.name}, {request.algorithm})")
    quantized = quantize(request, source, recipe, progress)
    quantize_seconds = time.monotonic() - started
    checked = None
    if request.verify:
        progress("checking fp32 against the golden reference")
        started = time.monotonic()
        checked = check_reference(source, source.text("heldout", request.text, 128), request.reference)
        reference_seconds = time.monotonic() - started
    compression = compression_verdict(request, source, quantized, progress)
    results = []
    for item in plans:
        choice = kv_choice(request, item, source, progress)
        if choice is not None:
            item.options = replace(item.options, kv_policy=choice.policy)
        if item.options.kv_dtype == "int8":
            item.options = replace(item.options, kv_scales=kv_scales(request, item, source, progress))
        result = export_one(request, item, source, quantized, compression, checked, choice, progress)
        result.notes = source.notes
        result.seconds["quantize"] = round(quantize_seconds, 2)
        if checked is not None:
            result.seconds["reference"] = round(reference_seconds, 2)
        results.append(result)
    return results


def calibration_windows(source: Source, file: Path | None, most: int = CALIBRATION_WINDOWS) -> Tensor:
    """(n, length) ids to quantize by: up to `most` windows of 256 tokens of calibration text."""
    length = min(WINDOW, source.model.config.context) - 1
    text = source.text("calibration", file)
    return text.windows(min(most, max(1, len(text.ids) // (length + 1))), length)


def quantize(request: ExportRequest, source: Source, recipe: Recipe, progress: Progress) -> QuantizedModel:
    """Quantize once, for all targets; calibration text only where the model can read it."""
    if request.calibration is not None and not source.real:
        raise UsageError(f"--calibration {request.calibration}: this model has no tokenizer to read it; leave it out")
    calibration = calibration_windows(source, request.calibration) if source.real else None
    training = source.real and request.distill > 0

    def report(name: str, done: int, total: int) -> None:
        progress(f"quantizing {done}/{total} {name}")

    return quantize_with(
        source.model,
        recipe,
        request.algorithm,
        calibration,
        request.max_fallbacks,
        report,
        request.seed,
        distill_steps=request.distill,
        distill_windows=calibration_windows(source, request.calibration, DISTILL_WINDOWS) if training else None,
    )


def _may_share(item: ExportPlan) -> bool:
    return item.target.shares_slots(item.options.loop_form, item.options.portable)


def kv_choice(request: ExportRequest, item: ExportPlan, source: Source, progress: Progress) -> PolicyChoice | None:
    """The measured KV policy under `--kv auto`; None where there is nothing to choose or to measure it on."""
    if request.kv != AUTO or not _may_share(item) or not source.real:
        return None
    progress("measuring KV policies")
    length = min(LENGTH, source.model.config.context, item.options.context) - 1
    windows = source.text("heldout", request.text).windows(WINDOWS, length)
    options = item.options
    size = KV_BYTES[options.kv_dtype]
    return choose_policy(source.model, windows, options.max_loops, options.context, size)


def kv_scales(request: ExportRequest, item: ExportPlan, source: Source, progress: Progress) -> CacheScales:
    """Scales of an int8 cache, from calibration text (seeded ids where there is no tokenizer)."""
    progress("measuring KV scales")
    length = min(LENGTH, source.model.config.context) - 1
    count = _texts(source, WINDOWS)
    text = source.text("calibration", request.calibration, count * (length + 1))
    return measure_scales(source.model, text.windows(count, length), min(JUDGED_LOOPS, item.options.max_loops))


def compression_verdict(
    request: ExportRequest, source: Source, quantized: QuantizedModel, progress: Progress
) -> Verdict:
    """Gate 2, once for all targets."""
    if not request.verify:
        return Verdict(passed=None, by_loops={}, note="not run (--no-verify)")
    if not source.real:
        return Verdict(passed=None, by_loops={}, note="not run: random weights or no tokenizer, quality has no meaning")
    progress("compression gate")
    length = min(WINDOW, source.model.config.context - 1)
    windows = source.text("heldout", request.text).windows(_texts(source, 16), length)
    verdict = compression_gate(source.model, quantized, windows, real=True)
    by_loops = {str(loops): distance.to_dict() for loops, distance in verdict.by_loops.items()}
    budget = {"kl_mean": verdict.budget.kl, "top1": verdict.budget.top1}
    return Verdict(passed=verdict.passed, by_loops=by_loops, budget=budget, note="; ".join(verdict.failures))


def export_one(
    request: ExportRequest,
    item: ExportPlan,
    source: Source,
    quantized: QuantizedModel,
    compression: Verdict,
    checked: CheckedReference | None,
    choice: PolicyChoice | None,
    progress: Progress,
) -> ExportResult:
    """Write, certify, verify and publish one artifact."""
    module, options, seconds = load_target(item.target), item.options, {}
    loops = options.verified_loops()
    with staging(item.final) as folder:
        progress(f"writing {item.target.name} ({options.loop_form})")
        started = time.monotonic()
        if source.tokenizer is not None:
            source.tokenizer.save(folder)
        delegation = module.write(quantized, folder, options) or {}
        _write_golden(quantized, source, golden_loops(options), options.cache, folder / "golden.npz")
        seconds["write"] = round(time.monotonic() - started, 2)
        certificate, problems = certify(source.model, module.read_injection(folder))
        lowering = Verdict(passed=None, by_loops={}, note="not run (--no-verify)")
        draft = assemble(
            source, quantized, item.target, options, module.signatures(folder), certificate, compression, choice
        )
        entry = None
        if request.verify and checked is not None:
            started = time.monotonic()
            verdict, entry = _verify(request, item, folder, draft, source, quantized, loops, checked, progress)
            lowering = verdict.to_verdict()
            problems += verdict.failures
            seconds["gates"] = round(time.monotonic() - started, 2)
        if compression.passed is False:
            problems.append(f"compression gate: {compression.note}")
        manifest = draft.model_copy(
            update={
                "artifact": item.final.name,
                "delegation": delegation,
                "lowering": lowering,
                "reference": entry,
                "files": hash_files(folder),
                "verified_by": item.target.host_runtime if request.verify else "not verified",
            }
        )
        (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        final = item.final if not problems else failed_folder(item.final)
        publish(folder, final)
    result = ExportResult(final, manifest, not problems, problems, seconds)
    if request.verify and not problems:
        progress("measuring memory")
        result.memory = memory_report(item.target, final, manifest)
    return result


def _verify(
    request: ExportRequest,
    item: ExportPlan,
    folder: Path,
    draft: Manifest,
    source: Source,
    quantized: QuantizedModel,
    loops: list[int],
    checked: CheckedReference,
    progress: Progress,
) -> tuple[LoweringVerdict, Any]:
    """Gate 1 on the written files, and their distance to the golden reference."""
    host = load_host(item.target)(folder, draft, request.threads)
    budget = budget_name(draft.compute, draft.kv.dtype)
    length = min(TEXT_TOKENS, draft.kv.context)
    count = _texts(source, 8)
    text = source.text("heldout", request.text, count * (length + 1))
    verdict = lowering_gate(
        host, quantized.model, text.windows(count, length), loops, budget, item.options.cache, progress
    )
    return verdict, checked.entry(artifact_distance(host, checked.reference, loops))


def _texts(source: Source, count: int) -> int:
    parameters = sum(parameter.numel() for parameter in source.model.parameters())
    return count if parameters < SMALL_MODEL else max(2, count // 4)


def golden_loops(options: WriteOptions) -> list[int]:
    """The loop counts of the self-test: every static one, or the least, the middle and the greatest."""
    loops = options.verified_loops()
    return loops if options.counts else sorted({loops[0], loops[len(loops) // 2], loops[-1]})


def _write_golden(quantized: QuantizedModel, source: Source, chosen: list[int], cache: CacheSpec, path: Path) -> None:
    """Inputs and expected logits of the last positions, for a self-test on the device: at most 2 MB."""
    model = quantized.model
    length = min(32, model.config.context)
    rows = max(1, min(length, GOLDEN_BYTES // (len(chosen) * model.config.padded_vocab_size * 4 + 1)))
    ids = source.text("heldout", least=length).ids[:length]
    positions = torch.arange(length - rows, length)
    arrays: dict[str, Any] = {"input_ids": ids.numpy(), "positions": positions.numpy()}
    with torch.no_grad():
        for count in chosen:
            held = cache.make(model.config, count, length)
            arrays[f"logits_{count}"] = model(ids[None], count, cache=held, positions=positions)[0].numpy()
    with path.open("wb") as file:
        np.savez(file, **arrays)
