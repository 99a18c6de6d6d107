"""Is it the right function? The artifact with its rounding out of the way, against the eager model, in fp32 bounds.

    budget = FUNCTION["fp32"]
    failures = function_failures(8, measured, budget)

Bounds are absolute, and a model may be more sensitive than they allow: a random model's logits move by 1e-3 when its
weights move by a unit in the last place. Where a bound is exceeded the gate measures that noise and says which of
the two it was.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from export.gates.probes import PIECES, Measured, Probe, distances, expected, far_state, split
from parcae_mobile.kv_cache import CacheSpec
from parcae_mobile.model import Parcae

# By what is left when rounding is out of the way. `state_max` is the worst relative error of a token's state after any
# loop. A key or value that another order of summation puts on the other side of an edge of an fp16 or int8 cache moves
# logits by more than fp32 does.
FUNCTION: dict[str, dict[str, float]] = {
    "fp32": {"max_abs": 1e-4, "cosine": 0.9999, "state_max": 2e-5},
    "fp32, fp16 cache": {"max_abs": 5e-3, "kl_mean": 1e-7, "cosine": 0.9999, "state_max": 5e-3},
    "fp32, int8 cache": {"max_abs": 0.25, "kl_mean": 1e-5, "kl_p99": 1e-4, "state_max": 3e-2},
}
TEXTS = 2  # of those that the rounding gate reads
LONG = 300  # tokens of the text that crosses every host's chunks, caches that grow, and late positions
LONG_PIECES = (130, 1, 1, 140, 1)
AT_ONCE = 2**20  # weights that are moved together
STEP = 2.0**-23  # a unit in the last place of fp32, relative
NOISE_SHARE = 4  # an artifact may be off by this many times the model's own noise
LARGEST_SHARE = 100  # but not by more than this many times the bound: such a model hides too much


def function_probes(model: Parcae, texts: Tensor, context: int, takes_state: bool) -> list[Probe]:
    """A text in one piece and in several, from zero and from far, of (n, length + 1) ids."""
    ids, targets = texts[:TEXTS, :-1], texts[:TEXTS, 1:]
    length = ids.shape[1]
    probes = [Probe("one piece", ids, targets)]
    pieces = split(min(length, context), PIECES)
    if not takes_state:
        return [*probes, Probe("pieces", ids[:1], targets[:1], pieces)]
    state = far_state(model, length)
    return [
        *probes,
        Probe("one piece from a far state", ids[:1], targets[:1], state=state),
        Probe("pieces from a far state", ids[:1], targets[:1], pieces, state),
    ]


def long_probe(texts: Tensor, context: int) -> Probe:
    """One longer text, at one loop count: beyond the chunks that hosts give at once and the caches they begin with."""
    ids = texts.reshape(1, -1)[:, : min(LONG, context)]
    return Probe("a long text in pieces", ids, None, split(ids.shape[1], LONG_PIECES))


def function_failures(loops: int, probe: str, measured: Measured, budget: dict[str, float]) -> list[str]:
    """One line for each bound that is exceeded."""
    values = measured.distance.to_dict() | {"state_max": measured.worst_state}
    lines = []
    for key, bound in budget.items():
        if key in values and not (values[key] >= bound if key == "cosine" else values[key] <= bound):
            side = "below" if key == "cosine" else "above"
            lines.append(f"T={loops}: {key} {values[key]:.3g} is {side} {bound:.3g} ({probe})")
    return lines


def own_noise(model: Parcae, probe: Probe, loops: int, spec: CacheSpec, seeds: Sequence[int] = (1, 2)) -> Measured:
    """How far the eager model moves when each weight moves by a unit in the last place; the worst of `seeds`."""
    wanted = expected(model, probe, loops, spec)
    measured = []
    for seed in seeds:
        with perturbed(model, seed):
            logits, states = expected(model, probe, loops, spec)
        measured.append(distances(wanted, (logits, dict(enumerate(states))), probe, loops))
    return max(measured, key=lambda one: one.distance.max_abs)


@contextlib.contextmanager
def perturbed(model: Parcae, seed: int) -> Iterator[None]:
    """The model with weights up or down by 2^-23 of themselves, and bit for bit as it was afterwards.

    A weight moves by a few units in the last place, which a byte holds: a second model would take four.
    """
    generator, moves = torch.Generator().manual_seed(seed), []
    with torch.no_grad():
        for weights in _pieces(model):
            signs = torch.randint(0, 2, weights.shape, generator=generator, dtype=torch.int8) * 2 - 1
            before = weights.view(torch.int32).clone()
            weights.copy_((weights.double() * (1 + signs * STEP)).float())
            moves.append((before - weights.view(torch.int32)).to(torch.int8))
    try:
        yield
    finally:
        with torch.no_grad():
            for weights, move in zip(_pieces(model), moves, strict=True):
                weights.view(torch.int32).add_(move)


def _pieces(model: Parcae) -> Iterator[Tensor]:
    """All weights as flat views of a bounded size."""
    for parameter in model.parameters():
        yield from parameter.view(-1).split(AT_ONCE)


def relaxed(budget: dict[str, float], noise: Measured) -> dict[str, float]:
    """The bounds that a model with this noise of its own can keep: wider, but not by more than `LARGEST_SHARE`."""
    floor = {"max_abs": noise.distance.max_abs, "state_max": noise.worst_state, "kl_mean": noise.distance.kl_mean}
    floor["kl_p99"] = noise.distance.kl_p99
    return {
        key: max(bound, min(NOISE_SHARE * floor[key], LARGEST_SHARE * bound)) if key in floor else bound
        for key, bound in budget.items()
    }
