"""What the artifacts of one run share, made once: the integers, what they cost, and the checked golden reference.

prepared = prepare(request, source, recipe, loops, progress)
prepared.too_costly                                    # {1: ["T=1: KL 0.019 nats is above 0.013"]}
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from export.gates.reference import CheckedReference, check_reference, unlikely_text
from export.job import Progress
from export.report.page.measure import model_facts
from export.report.page.subject import ModelFacts
from export.request import ExportRequest
from export.source import Source
from export.texts import CALIBRATION_WINDOWS, WINDOW, calibration_windows, text_count
from parcae_mobile.errors import UsageError
from parcae_mobile.manifest import Verdict
from quantize.algorithms import LEARNED_WINDOWS, quantize_with
from quantize.algorithms import resolve as resolve_algorithm
from quantize.apply import QuantizedModel
from quantize.cache import Cache, cache_key
from quantize.compression import compression_gate
from quantize.learning_run import STEPS, Learning
from quantize.recipe import Recipe

NOT_RUN = Verdict(passed=None, by_loops={}, note="not run (--no-verify)")


@dataclass(frozen=True)
class Prepared:
    """What the artifacts of one run share: the integers, what they cost, and the checked golden reference.

    `too_costly` are the loop counts at which compression exceeds its budget, and by what.
    """

    quantized: QuantizedModel
    compression: Verdict
    too_costly: dict[int, list[str]]
    reference: CheckedReference | None  # None without gates
    facts: ModelFacts | None  # for the report; None without gates
    seconds: dict[str, float]


def prepare(request: ExportRequest, source: Source, recipe: Recipe, loops: list[int], progress: Progress) -> Prepared:
    """Quantize, check the reference and run the compression gate at `loops`, once for all targets."""
    seconds: dict[str, float] = {}
    progress(f"quantizing ({recipe.name}, {request.algorithm})")
    with timed(seconds, "quantize"):
        quantized = quantize(request, source, recipe, progress)
    reference = None
    if request.verify:
        progress("checking fp32 against the golden reference")
        with timed(seconds, "reference"):
            reference = check_reference(source, source.text("heldout", request.text, 128), request.reference)
        doubt = unlikely_text(reference.reference, source.model.config.vocab_size) if source.real else None
        source.notes += [doubt] if doubt else []
    compression, too_costly = compression_verdict(request, source, quantized, loops, progress)
    quantized.forget()
    facts = None
    if request.verify:
        progress("measuring each part of the model")
        with timed(seconds, "facts"):
            facts = model_facts(source, recipe)
    return Prepared(quantized, compression, too_costly, reference, facts, seconds)


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
    request: ExportRequest, source: Source, quantized: QuantizedModel, loops: list[int], progress: Progress
) -> tuple[Verdict, dict[int, list[str]]]:
    """Gate 2, once for all targets; and by loop count what exceeds its budget."""
    if not request.verify:
        return NOT_RUN, {}
    if not source.real:
        note = "not run: random weights or no tokenizer, quality has no meaning"
        return Verdict(passed=None, by_loops={}, note=note), {}
    length = min(WINDOW, source.model.config.context - 1)
    if length < 1:
        note = "not run: a model of one position predicts nothing from a text"
        return Verdict(passed=None, by_loops={}, note=note), {}
    progress("compression gate")
    windows = source.text("heldout", request.text).windows(text_count(source, 16), length)
    result = compression_gate(source.model, quantized, windows, True, loops)
    by_loops = {str(count): distance.to_dict() for count, distance in result.by_loops.items()}
    budget = {"kl_mean": result.budget.kl, "top1": result.budget.top1}
    verdict = Verdict(passed=result.passed, by_loops=by_loops, budget=budget, note="; ".join(result.failures))
    return verdict, result.too_costly


@contextmanager
def timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    """Write down how many seconds a step took."""
    started = time.monotonic()
    yield
    seconds[step] = round(time.monotonic() - started, 2)
