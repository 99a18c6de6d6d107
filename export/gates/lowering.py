"""Gate 1: the finished artifact against the eager model that has the same quantized weights.

    verdict = lowering_gate(host, quantized.model, texts, (1, 2, 4, 8, 16), "int8", cache, exact=exact)

It asks two questions apart. *Is it the right function* (function.py): the artifact with the rounding of activations out
of the way, in fp32 bounds. *What does rounding cost* (rounding.py): the artifact as published. It says nothing about
what quantization cost.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor

from export.beside import ALONE, Beside
from export.gates.directions import HALF, direction_failures, lean
from export.gates.function import (
    FUNCTION,
    function_failures,
    function_probes,
    long_probe,
    own_noise,
    relaxed,
)
from export.gates.probes import PIECES, Measured, Probe, measure, split
from export.gates.rounding import ROUNDING, rounding_budget, rounding_failures
from export.gates.twins import INT8_CACHE, ROUNDED_ALIKE, Exact, Rewritten
from export.targets.host import Host
from parcae_mobile.golden import GREEDY_TOKENS, PROMPT_TOKENS
from parcae_mobile.kv_cache import CacheSpec
from parcae_mobile.manifest import Verdict
from parcae_mobile.model import Parcae
from parcae_mobile.parity import Distance, greedy

TEXT_TOKENS = 64
FULL_FP32 = CacheSpec()
BUDGETS = FUNCTION | ROUNDING
SHORT_PIECES = (20, 1, 1, 1)
FOUND = ("wrong", "costly", "notes", "by_loops", "allowed", "budget", "largest", "places")
LARGEST_FP16 = 65504 / 2  # results beyond it leave no room for texts that were not tried


@dataclass
class LoweringVerdict:
    """The gate's result by loop count. `function` holds the worst of each measure, where it was a question apart.

    `wrong` says what shows a wrong function, `too_costly` at which loop counts rounding alone exceeds its budget,
    `allowed` which bounds the model's own rounding noise widened.
    """

    by_loops: dict[int, Distance]
    state_errors: dict[int, list[float]]
    greedy_equal: dict[int, int]
    budget: dict[str, float]
    wrong: list[str] = field(default_factory=list)
    too_costly: dict[int, list[str]] = field(default_factory=dict)
    largest_fp16: dict[int, float] = field(default_factory=dict)  # so far, where the host sees intermediate results
    function: dict[int, dict[str, float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    allowed: dict[int, dict[str, float]] = field(default_factory=dict)

    @property
    def failures(self) -> list[str]:
        """A line for each bound that is exceeded."""
        return [*self.wrong, *(line for lines in self.too_costly.values() for line in lines)]

    @property
    def passed(self) -> bool:
        return not self.failures

    @property
    def right_function(self) -> bool:
        return not self.wrong

    def to_verdict(self, closed: Collection[int] = ()) -> Verdict:
        """The form that the manifest keeps; what failed at `closed` loop counts alone is no failure."""
        by_loops: dict[str, dict[str, Any]] = {}
        for loops, distance in self.by_loops.items():
            extra: dict[str, Any] = {"state_errors": self.state_errors[loops]}
            if loops in self.greedy_equal:
                extra["greedy_equal"] = self.greedy_equal[loops]
            if loops in self.allowed:
                extra["allowed"] = self.allowed[loops]
            if loops in self.function:
                extra["function"] = self.function[loops]
            if self.largest_fp16.get(loops):
                extra["largest_fp16"] = self.largest_fp16[loops]
            by_loops[str(loops)] = distance.to_dict() | extra
        passed = self.right_function and set(self.too_costly) <= set(closed)
        lines = [*self.notes] if passed else [*self.failures, *self.notes]
        return Verdict(passed=passed, by_loops=by_loops, budget=self.budget, note="; ".join(lines))


def lowering_gate(
    host: Host,
    model: Parcae,
    texts: Tensor,
    loops: Sequence[int],
    compute: str,
    cache: CacheSpec = FULL_FP32,
    progress: Callable[[str], None] = lambda line: None,
    exact: Exact | None = None,
    rewritten: Callable[[], Rewritten | None] = lambda: None,
    beside: Beside = ALONE,
    trained: bool = True,
) -> LoweringVerdict:
    """Compare on (texts, length + 1) ids at each loop count; last ids of a window are targets only.

    `compute` names the published artifact's budget (`budget_name`). Without `exact` an artifact that rounds nothing is
    its own, and of one that rounds only the cost is judged. What `rewritten` opens is tried on a short text in pieces.
    Weights that are not `trained` are not asked for top-1. Where a second process is `beside` and the host bears a
    fork, that one asks what rounding costs meanwhile.
    """
    gate = _Gate(host, model, texts, tuple(loops), compute, cache, progress, trained)
    if exact is not None and exact.budget != ROUNDED_ALIKE and beside.spare and host.forks:
        other = _Gate(host, model, texts, tuple(loops), compute, cache, lambda line: None, trained)
        rest = beside.start("rounding, and after other tools", partial(other.rest, texts, rewritten))
        gate.function(exact)
        gate.add(rest())
        return gate.verdict()
    if exact is not None:
        gate.directions(exact) if exact.budget == ROUNDED_ALIKE else gate.function(exact)
        gate.published(texts)
    elif compute in FUNCTION:
        gate.function(Exact(host, model, cache, compute))
    else:
        gate.published(texts)
    gate.after(rewritten)
    return gate.verdict()


class _Gate:
    """One run of the gate: what was measured so far, and what was wrong."""

    def __init__(
        self,
        host: Host,
        model: Parcae,
        texts: Tensor,
        loops: tuple[int, ...],
        compute: str,
        cache: CacheSpec,
        progress: Callable[[str], None],
        trained: bool,
    ) -> None:
        self.host, self.model, self.texts, self.loops, self.trained = host, model, texts, loops, trained
        self.compute, self.cache, self.progress = compute, cache, progress
        mean = model.config.mean_recurrence  # what it was trained with
        self.typical = mean if mean in loops else max(loops)  # more is tried at this one
        self.wrong: list[str] = []  # a wrong function is wrong at every loop count
        self.costly: dict[int, list[str]] = {count: [] for count in loops}
        self.notes: list[str] = []
        self.by_loops: dict[int, Measured] = {}
        self.worst: dict[int, dict[str, float]] = {}
        self.greedy: dict[int, int] = {}
        self.allowed: dict[int, dict[str, float]] = {}
        self.budget: dict[str, float] = {}
        self.largest: dict[int, float] = {}
        self.places: dict[int, str] = {}

    def function(self, exact: Exact) -> None:
        """The artifact without its rounding, in one piece and in several, from zero and from far."""
        context = exact.host.geometry.context
        budget = dict(FUNCTION[exact.budget])
        probes = function_probes(exact.model, self.texts, context, exact.host.takes_state)
        if exact.host is self.host:
            probes[0] = Probe("one piece", self.texts[:, :-1], self.texts[:, 1:])
        states: dict[str, list[Tensor]] = {}
        for count in self.loops:
            self.progress(f"lowering gate, T={count}")
            asked = exact.host, exact.model
            measured = [(probe, measure(*asked, probe, count, exact.cache, states)) for probe in probes]
            if count == self.typical:  # what is costly is tried once
                probe = long_probe(self.texts, context)
                measured.append((probe, measure(exact.host, exact.model, probe, count, exact.cache)))
            self._judge(exact, count, measured, budget)
            self._watch(count, exact.host)
            if exact.host is self.host:
                self.by_loops[count] = measured[0][1]
            self.worst[count] = {
                "max_abs": max(one.distance.max_abs for _, one in measured),
                "kl_mean": max(one.distance.kl_mean for _, one in measured),
                "cosine": min(one.distance.cosine for _, one in measured),
                "state_max": max(one.worst_state for _, one in measured),
            }
        self.budget |= {f"function.{key}": bound for key, bound in budget.items()}
        self.continued(exact)
        exact.host.rest()

    def continued(self, exact: Exact) -> None:
        """Greedy tokens after a prompt, at one loop count."""
        prompt = self.texts[0, : min(PROMPT_TOKENS, self.texts.shape[1] - 1)].tolist()
        tokens = min(GREEDY_TOKENS, exact.host.geometry.context - len(prompt))
        equal = self.greedy[self.typical] = _greedy_agreement(exact, prompt, tokens, self.typical)
        if exact.budget != INT8_CACHE:
            self.budget["function.greedy_equal"] = tokens
            if equal < tokens:
                self.wrong.append(f"T={self.typical}: greedy_equal {equal} is below {tokens}")

    def directions(self, exact: Exact) -> None:
        """The artifact's rounding against the same in eager: what is left must not lean towards any fault."""
        probe = Probe("one piece", self.texts[:, :-1], self.texts[:, 1:])
        self.progress("lowering gate, directions")
        for count, leanings, measured in lean(exact.host, exact.model, self.model, probe, self.loops, exact.cache):
            self.progress(f"lowering gate, T={count}")
            self.wrong += direction_failures(count, leanings)
            self.worst[count] = {one.fault: one.share for one in leanings if one.least < 1}
            self.by_loops[count] = measured  # the same question as that of what rounding costs
        self.budget["function.share"] = HALF

    def published(self, texts: Tensor) -> None:
        """The artifact as it is: what it rounds, or, if it rounds nothing, that it computes what the other one does."""
        rounds = self.compute in ROUNDING
        budget = rounding_budget(self.compute, self.trained) if rounds else FUNCTION[self.compute]
        whole = Probe("one piece", texts[:, :-1], texts[:, 1:])
        pieces = Probe("pieces", texts[:1, :-1], texts[:1, 1:], split(texts.shape[1] - 1, PIECES))
        states: dict[str, list[Tensor]] = {}
        for count in self.loops:
            self.progress(f"rounding, T={count}" if rounds else f"as published, T={count}")
            probes = [whole, pieces] if count == self.typical else [whole]
            for probe in probes:
                known = self.by_loops.get(count) if rounds and probe is whole else None
                measured = known or measure(self.host, self.model, probe, count, self.cache, states)
                self.by_loops.setdefault(count, measured)
                if rounds:
                    self.costly[count] += rounding_failures(count, measured, budget)
                else:
                    self.wrong += function_failures(count, probe.name, measured, budget)
            self._watch(count, self.host)
        self.budget |= budget
        self.host.rest()

    def after(self, open_other: Callable[[], Rewritten | None]) -> None:
        """A prompt and a few tokens through what other tools make of the artifact: it must still be the function."""
        if (rewritten := open_other()) is None:
            return
        pieces = split(min(sum(SHORT_PIECES), self.texts.shape[1] - 1, self.host.geometry.context), SHORT_PIECES)
        length = sum(pieces)
        probe = Probe(f"after {rewritten.by}", self.texts[:1, :length], self.texts[:1, 1 : length + 1], pieces)
        worst = 0.0
        for twin in rewritten.twins:
            self.progress(f"{probe.name}, T={self.typical}")
            measured = measure(twin.host, twin.model, probe, self.typical, twin.cache)
            twin.host.rest()
            if twin.budget in ROUNDING:  # a rate over so few positions says nothing
                bounds = {key: bound for key, bound in ROUNDING[twin.budget].items() if key != "top1"}
                self.wrong += [f"{line} ({probe.name})" for line in rounding_failures(self.typical, measured, bounds)]
            else:
                self._judge(twin, self.typical, [(probe, measured)], FUNCTION[twin.budget])
                worst = max(worst, measured.distance.max_abs)
        self.notes.append(f"T={self.typical}: max_abs {worst:.2g} without rounding {probe.name}")

    def rest(self, texts: Tensor, open_other: Callable[[], Rewritten | None]) -> dict[str, Any]:
        """All but the first question; gives what was found, by the names of the fields."""
        self.published(texts)
        self.after(open_other)
        return {name: getattr(self, name) for name in FOUND}

    def add(self, findings: dict[str, Any]) -> None:
        """What `rest` found in another process, after what was found here."""
        self.wrong += findings["wrong"]
        self.notes += findings["notes"]
        self.budget |= findings["budget"]
        self.by_loops = findings["by_loops"] | self.by_loops
        for count in self.loops:
            self.costly[count] += findings["costly"][count]
            if findings["largest"].get(count, -1.0) > self.largest.get(count, -1.0):
                self.largest[count], self.places[count] = findings["largest"][count], findings["places"][count]
        for count, wider in findings["allowed"].items():
            self._allow(count, wider)

    def verdict(self) -> LoweringVerdict:
        """What came of it."""
        wrong = list(self.wrong)
        if overflowing := [count for count in self.loops if self.largest.get(count, 0.0) > LARGEST_FP16]:
            wrong.insert(0, _overflow(overflowing[0], self.largest, self.places, self.compute))
        return LoweringVerdict(
            by_loops={count: one.distance for count, one in self.by_loops.items()},
            state_errors={count: list(one.state_mean.values()) for count, one in self.by_loops.items()},
            greedy_equal=self.greedy,
            budget=self.budget,
            wrong=wrong,
            too_costly={count: self.costly[count] for count in self.loops if self.costly[count]},
            largest_fp16=self.largest,
            function=self.worst,
            notes=self.notes,
            allowed=self.allowed,
        )

    def _judge(
        self, exact: Exact, count: int, measured: list[tuple[Probe, Measured]], budget: dict[str, float]
    ) -> None:
        """Bounds that are exceeded are compared with what the model's own rounding does before they count."""
        for probe, one in measured:
            lines = function_failures(count, probe.name, one, budget)
            if not lines:
                continue
            noise = own_noise(exact.model, probe, count, exact.cache)
            size = f"{noise.distance.max_abs:.2g} in logits, {noise.worst_state:.2g} in states"
            wider = relaxed(budget, noise)
            still = function_failures(count, probe.name, one, wider)
            if still:
                own = "far above" if noise.distance.max_abs < budget.get("max_abs", 0) else "and above"
                self.wrong += [f"{line}, {own} this model's own rounding noise ({size})" for line in still]
            else:
                self.notes.append(f"{lines[0]}, which is this model's own rounding noise ({size})")
                self._allow(count, wider)

    def _allow(self, count: int, wider: dict[str, float]) -> None:
        known = self.allowed.get(count, wider)
        self.allowed[count] = {key: max(bound, known[key]) for key, bound in wider.items()}

    def _watch(self, count: int, host: Host) -> None:
        if host.largest_fp16 > self.largest.get(count, -1.0):
            self.largest[count], self.places[count] = host.largest_fp16, host.largest_fp16_at


def _overflow(loops: int, largest: dict[int, float], places: dict[int, str], compute: str) -> str:
    """What was too large at the first loop count that showed it, and what to do."""
    if compute == "fp16":
        remedy = "export with --compute fp32"
    else:  # only the cache is fp16 then
        remedy = "no cache of this target holds it: use --target onnx"
    return f"T={loops}: {places[loops]} gives {largest[loops]:.3g}, too near fp16's end at 65504; {remedy}"


def _greedy_agreement(exact: Exact, prompt: list[int], tokens: int, loops: int) -> int:
    """How many greedy tokens are the same before the first difference."""
    host, model = exact.host, exact.model
    wanted = greedy(model, prompt, tokens, loops, exact.cache.make(model.config, loops, len(prompt) + tokens))
    host.reset()
    chunk = prompt
    for done, token in enumerate(wanted):
        logits = host.run(chunk, loops, positions=[len(chunk) - 1])
        if int(logits[0, : host.geometry.vocab_size].argmax()) != token:
            return done
        chunk = [token]
    return len(wanted)
