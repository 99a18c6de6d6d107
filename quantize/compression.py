"""The compression gate: what a recipe costs against the fp32 model, for each loop count, on held-out text.

    result = compression_gate(model, quantized, windows, real=True)
    result.passed                                         # True, False, or None: seeded ids judge no quality
    result.by_loops[8].kl_mean                            # nats; also standard error, percentiles, top-1, flips, ...

It is never mixed with the lowering gate, which compares an artifact with the quantized eager model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from parcae_mobile.errors import TextError
from parcae_mobile.model import Parcae, check_loops
from parcae_mobile.parity import Distance, compare, state_error

from .apply import QuantizedModel
from .recipe import Budget

FEW_LOOPS, FEW_LOOPS_SLACK = 4, 4 / 3  # below 4 loops the state is unfinished and errors weigh more
_TOKENS_AT_ONCE = 2048


@dataclass(frozen=True)
class CompressionResult:
    """Distances and relative state errors by loop count. `passed` is None where `real` is False.

    `too_costly` says by loop count what exceeds the budget.
    """

    passed: bool | None
    by_loops: dict[int, Distance]
    state_errors: dict[int, float]
    budget: Budget
    too_costly: dict[int, list[str]] = field(default_factory=dict)
    real: bool = True

    @property
    def failures(self) -> list[str]:
        return [line for lines in self.too_costly.values() for line in lines]

    @property
    def growth(self) -> float | None:
        return growth(self.by_loops)

    def to_dict(self) -> dict[str, Any]:
        return {
            "passed": self.passed,
            "real_text": self.real,
            "budget": {"kl": self.budget.kl, "top1": self.budget.top1, "slack_below_4_loops": FEW_LOOPS_SLACK},
            "loops": {
                str(loops): distance.to_dict() | {"state_error": self.state_errors[loops]}
                for loops, distance in self.by_loops.items()
            },
            "growth": self.growth,
            "failures": self.failures,
        }


class HeldOut:
    """A reference model's states on windows (n, length + 1), so that many models can be measured against it.

    States of all loop counts are kept, logits of one loop count at a time: memory is 8 bytes x tokens x vocabulary.
    """

    def __init__(self, reference: Parcae, windows: Tensor, loops: Sequence[int] | None = None) -> None:
        if windows.dim() != 2 or windows.shape[0] < 1 or windows.shape[1] < 2:
            raise TextError(f"windows of shape {tuple(windows.shape)}: give (count, length + 1), length at least 1")
        loops = reference.config.judged_loops if loops is None else loops
        for count in loops:
            check_loops(count)
        self.reference, self.loops = reference, tuple(sorted(set(loops)))
        self.inputs, self.targets = windows[:, :-1], windows[:, 1:]
        self.states = states_at(reference, self.inputs, self.loops)

    def measure(self, model: Parcae) -> tuple[dict[int, Distance], dict[int, float]]:
        """Distances and mean relative state errors of a model by loop count."""
        states, keep = states_at(model, self.inputs, self.loops), self.reference.config.vocab_size
        distances, errors = {}, {}
        for loops in self.loops:
            expected = logits_of(self.reference, self.states[loops], self.inputs)
            logits = logits_of(model, states[loops], self.inputs)
            distances[loops] = compare(expected, logits, self.targets, keep)
            errors[loops] = state_error(self.states[loops], states[loops])
        return distances, errors


def compression_gate(
    reference: Parcae,
    quantized: QuantizedModel,
    windows: Tensor,
    real: bool,
    loops: Sequence[int] | None = None,
) -> CompressionResult:
    """Judge a quantized model by its recipe's budget on `windows` (n, length + 1) int64.

    `real` says that the windows are text; on seeded ids (or for random weights) nothing is judged. Raises `TextError`
    for windows without a token to predict.
    """
    return judge(HeldOut(reference, windows, loops), quantized.model, quantized.recipe.budget, real)


def judge(held_out: HeldOut, model: Parcae, budget: Budget, real: bool) -> CompressionResult:
    """The verdict on one model; `held_out` can serve several."""
    distances, errors = held_out.measure(model)
    lines = {loops: _failures(loops, distance, budget) for loops, distance in distances.items()} if real else {}
    too_costly = {loops: excess for loops, excess in lines.items() if excess}
    return CompressionResult(not too_costly if real else None, distances, errors, budget, too_costly, real)


def growth(by_loops: dict[int, Distance]) -> float | None:
    """KL after the most loops over KL after 4: above 1 an error compounds. None without both, or where both are 0."""
    most, start = max(by_loops), by_loops.get(4)
    if most <= 4 or start is None or start.kl_mean <= 0:
        return None
    return by_loops[most].kl_mean / start.kl_mean


def budget_at(budget: Budget, loops: int) -> Budget:
    """The budget at a loop count: a third looser below 4 loops."""
    if loops >= FEW_LOOPS:
        return budget
    return Budget(budget.kl * FEW_LOOPS_SLACK, 1 - (1 - budget.top1) * FEW_LOOPS_SLACK)


@torch.no_grad()
def states_at(model: Parcae, inputs: Tensor, loops: Sequence[int]) -> dict[int, Tensor]:
    """States (n, length, state width) after each of `loops` loops, some windows at a time."""
    parts: dict[int, list[Tensor]] = {count: [] for count in loops}
    for batch in inputs.split(max(1, _TOKENS_AT_ONCE // inputs.shape[1])):
        for done, state in enumerate(model.states(batch, max(loops)), 1):
            if done in parts:
                parts[done].append(state)
    return {count: torch.cat(states) for count, states in parts.items()}


@torch.no_grad()
def logits_of(model: Parcae, states: Tensor, inputs: Tensor) -> Tensor:
    """Logits (n, length, padded vocabulary) of states after their last loop, some windows at a time."""
    at_once = max(1, _TOKENS_AT_ONCE // inputs.shape[1])
    batches = zip(states.split(at_once), inputs.split(at_once), strict=True)
    return torch.cat([model.coda(state, batch, model.slots("coda", batch)) for state, batch in batches])


def _failures(loops: int, distance: Distance, budget: Budget) -> list[str]:
    allowed, lines = budget_at(budget, loops), []
    if not distance.kl_mean <= allowed.kl:
        lines.append(f"T={loops}: KL {distance.kl_mean:.2g} nats is above {allowed.kl:.2g}")
    if not distance.top1 >= allowed.top1:
        lines.append(f"T={loops}: top-1 agreement {distance.top1:.1%} is below {allowed.top1:.1%}")
    return lines
