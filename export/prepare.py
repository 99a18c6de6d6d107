"""What the artifacts of one run share, made once: the integers, what they cost, and the checked golden reference.

prepared = prepare(request, source, recipe, loops, progress, beside)
prepared.compression().too_costly                      # {1: ["T=1: KL 0.019 nats is above 0.013"]}
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from torch import Tensor

from export.answers import NOT_KEPT, Form, KeptAnswers
from export.beside import ALONE, Answer, Beside
from export.gates.reference import CheckedReference, check_reference, unlikely_text
from export.job import Progress, silent
from export.report.page.measure import model_facts
from export.report.page.subject import ModelFacts
from export.request import ExportRequest
from export.source import Source
from export.texts import CALIBRATION_WINDOWS, WINDOW, calibration_windows, text_count
from parcae_mobile.errors import UsageError
from parcae_mobile.manifest import Verdict
from parcae_mobile.model import Parcae
from quantize.algorithms import LEARNED_WINDOWS, quantize_with
from quantize.algorithms import resolve as resolve_algorithm
from quantize.apply import QuantizedModel
from quantize.cache import Cache
from quantize.cache_key import cache_key, ids_sha256, tensors_sha256
from quantize.compression import compression_gate
from quantize.learning_run import STEPS, Learning
from quantize.recipe import Recipe

NOT_RUN = Verdict(passed=None, by_loops={}, note="not run (--no-verify)")
NO_QUALITY = "not run: random weights or no tokenizer, quality has no meaning"
NO_TEXT = "not run: a model of one position predicts nothing from a text"


@dataclass(frozen=True)
class Cost:
    """The compression gate's verdict, and by loop count what exceeds its budget."""

    verdict: Verdict
    too_costly: dict[int, list[str]] = field(default_factory=dict)


COST: Form[Cost] = Form(
    lambda cost: {"verdict": cost.verdict.model_dump(), "too_costly": cost.too_costly},
    lambda values: Cost(
        Verdict.model_validate(values["verdict"]), {int(loops): lines for loops, lines in values["too_costly"].items()}
    ),
)
FACTS: Form[ModelFacts | None] = Form(
    lambda facts: {} if facts is None else asdict(facts),
    lambda values: ModelFacts(
        **{**values, "bytes_by_component": {k: (a, b) for k, (a, b) in values["bytes_by_component"].items()}}
    ),
)


@dataclass(frozen=True)
class Prepared:
    """What the artifacts of one run share: the integers, what they cost, and the checked golden reference.

    Cost and facts are asked for where they are needed; without gates there are no facts and no reference.
    """

    quantized: QuantizedModel
    compression: Answer[Cost]
    reference: CheckedReference | None
    facts: Answer[ModelFacts | None]  # for the report
    seconds: dict[str, float]


def prepare(
    request: ExportRequest,
    source: Source,
    recipe: Recipe,
    loops: list[int],
    progress: Progress,
    beside: Beside = ALONE,
    answers: KeptAnswers = NOT_KEPT,
) -> Prepared:
    """Quantize, begin the compression gate at `loops` and check the reference, once for all targets."""
    seconds: dict[str, float] = {}
    progress(f"quantizing ({recipe.name}, {request.algorithm})")
    with timed(seconds, "quantize"):
        quantized = quantize(request, source, recipe, progress)
    compression = compression_cost(request, source, quantized, loops, beside, answers)
    reference, facts = None, Answer[ModelFacts | None]("no facts", lambda: None, silent)
    if request.verify:
        progress("checking fp32 against the golden reference")
        with timed(seconds, "reference"):
            reference = check_reference(source, source.text("heldout", request.text, 128), request.reference)
        doubt = unlikely_text(reference.reference, source.model.config.vocab_size) if source.real else None
        source.notes += [doubt] if doubt else []
        about = {"recipe": recipe.sha256, "text": ids_sha256(source.text("heldout").ids)} if source.real else {}
        work = partial(model_facts, source, recipe)
        facts = answers.start(beside, "measuring each part of the model", work, FACTS, **about)
    if answers.note is not None:
        source.notes.append(answers.note)
    if not beside.spare:  # now: what they are measured on will be given back
        compression()
        quantized.forget()
        facts()
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


def compression_cost(
    request: ExportRequest,
    source: Source,
    quantized: QuantizedModel,
    loops: list[int],
    beside: Beside,
    answers: KeptAnswers = NOT_KEPT,
) -> Answer[Cost]:
    """Gate 2, once for all targets, or why it is not run."""
    length = min(WINDOW, source.model.config.context - 1)
    verdict = NOT_RUN
    if request.verify and not source.real:
        verdict = NOT_RUN.model_copy(update={"note": NO_QUALITY})
    elif request.verify and length < 1:
        verdict = NOT_RUN.model_copy(update={"note": NO_TEXT})
    elif request.verify:
        windows = source.text("heldout", request.text).windows(text_count(source, 16), length)
        work = partial(measure_cost, source.model, quantized, windows, loops)
        about = {"tensors": tensors_sha256(quantized), "recipe": quantized.recipe.sha256, "loops": loops}
        about |= {"windows": ids_sha256(windows), "shape": list(windows.shape)}
        return answers.start(beside, "compression gate", work, COST, **about)
    return Answer(verdict.note, lambda: Cost(verdict), silent)


def measure_cost(model: Parcae, quantized: QuantizedModel, windows: Tensor, loops: list[int]) -> Cost:
    """The verdict on quantized tensors by (n, length + 1) held-out ids."""
    result = compression_gate(model, quantized, windows, True, loops)
    by_loops = {str(count): distance.to_dict() for count, distance in result.by_loops.items()}
    budget = {"kl_mean": result.budget.kl, "top1": result.budget.top1}
    verdict = Verdict(passed=result.passed, by_loops=by_loops, budget=budget, note="; ".join(result.failures))
    return Cost(verdict, result.too_costly)


@contextmanager
def timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    """Write down how many seconds a step took."""
    started = time.monotonic()
    yield
    seconds[step] = round(time.monotonic() - started, 2)
