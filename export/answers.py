"""Answers that no target has a part in, kept between runs: what a KV policy costs, what quantization costs, the facts
of the report. A second target, or a second run, reads them.

    answers = KeptAnswers.of(request, source, recipe)
    distances = answers.start(beside, "measuring KV policies", work, POLICIES, windows=ids_sha256(windows), loops=8)

An answer is found by all that decides it: weights, configuration, the texts, what else is given here, the sources of
these packages. So a run with kept answers has the figures of the run that measured them, to the last digit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

from export.beside import Answer, Beside
from export.request import ExportRequest
from export.source import Source
from parcae_mobile.parity import Distance
from quantize.cache import Cache
from quantize.cache_key import answer_key
from quantize.recipe import Recipe

Result = TypeVar("Result")
PACKAGES = ("export",)
UNREADABLE = (LookupError, TypeError, ValueError, AttributeError)


@dataclass(frozen=True)
class Form(Generic[Result]):
    """How an answer is written as an object of JSON, and read again."""

    to_object: Callable[[Result], dict[str, Any]]
    from_object: Callable[[Mapping[str, Any]], Result]


POLICIES: Form[dict[str, Distance]] = Form(
    lambda distances: {policy: asdict(distance) for policy, distance in distances.items()},
    lambda values: {policy: Distance(**distance) for policy, distance in values.items()},
)


@dataclass
class KeptAnswers:
    """Answers about one model. `cache` is None where nothing is to be kept; `reused` says what was read."""

    cache: Cache | None
    model: str
    recipe: str
    reused: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, request: ExportRequest, source: Source, recipe: Recipe) -> KeptAnswers:
        """Of the model of a run. Nothing is kept of one without text, about which nothing of this is asked."""
        if not request.cache or not source.real:
            return cls(None, "", recipe.name)
        config = json.dumps(asdict(source.model.config), sort_keys=True, default=str)
        model = hashlib.sha256(f"{source.weights_sha256} {config}".encode()).hexdigest()
        return cls(Cache.default(), model, recipe.name)

    def start(
        self, beside: Beside, question: str, work: Callable[[], Result], form: Form[Result], **about: Any
    ) -> Answer[Result]:
        """The answer that is kept, or else that of `work`, which is begun now. `about` is what decides it besides."""
        if self.cache is None:
            return beside.start(question, work)
        key = answer_key(question, self.model, about, PACKAGES)
        values = self.cache.recall(key)
        if values is not None:
            try:
                result = form.from_object(values)
            except UNREADABLE:
                pass  # another kind of answer than this code writes: it is measured again
            else:
                self.reused.append(question)
                return Answer(question, lambda: result, lambda step: None)
        return beside.start(question, partial(_measured, self.cache, key, self.recipe, question, work, form))

    @property
    def note(self) -> str | None:
        """For the user: what was not measured in this run."""
        if not self.reused:
            return None
        return f"not measured again but from the cache: {', '.join(self.reused)}; --no-cache measures them"


def _measured(
    cache: Cache, key: str, recipe: str, question: str, work: Callable[[], Result], form: Form[Result]
) -> Result:
    result = work()
    cache.remember(key, form.to_object(result), recipe, question)
    return result


NOT_KEPT = KeptAnswers(None, "", "")
