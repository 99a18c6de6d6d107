"""Is it the right function, where the backend cannot be told not to round?

    for loops, leanings, measured in lean(host, published_reference, model, probe, (1, 4, 8), spec):
        failures = direction_failures(loops, leanings)

XNNPACK rounds every row of every product's input to int8, and no reference follows it for long: one number on the other
side of an edge in the first layer is a step of noise in the second, and after a few layers two correct computations
differ as much as either differs from one without rounding. But that noise has no direction, and a wrong function has
one. So what is left (the artifact's logits less those of a reference that rounds in the same way) is projected on the
change that each suspected fault would make: each matrix 1 % larger, positions off by one, one loop more. The share of
a fault is about 0 in the right function and 1 in the faulty one; over hundreds of positions a fault that is a fifth of
the noise in size stands out by several standard errors.

A pass of the model for each of its matrices would take longest of all, so derivatives say first which of them the
rest may lean towards (suspects.py); only those are tried.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from export.gates.probes import Measured, Probe, answered, distances, expected
from export.gates.suspects import Look, first_look
from export.targets.host import Host
from parcae_mobile.kv_cache import CacheSpec
from parcae_mobile.model import Parcae

SIZE = 0.01  # by how much a suspected matrix is too large
HALF = 0.5  # the share of a fault from which on it is taken to be there
CERTAIN = 4.0  # standard errors that a share has to be away from 0
ROTATION = "rotation"
TEXTS = 8  # that are fewer say too little of their own scatter
LEAST = 1e-4  # of the noise: a change that is smaller is no change (QK-norm takes scales of queries and keys away)


@dataclass(frozen=True)
class Leaning:
    """How much of a fault's change is in what is left, with its standard error over texts."""

    fault: str
    share: float
    error: float

    @property
    def found(self) -> bool:
        return abs(self.share) > HALF and abs(self.share) > CERTAIN * self.error

    @property
    def least(self) -> float:
        """The smallest size of the fault, in units of the one tried, that would be found."""
        return max(HALF, CERTAIN * self.error)


@torch.no_grad()
def lean(
    host: Host, rounded: Parcae, model: Parcae, probe: Probe, counts: Sequence[int], spec: CacheSpec
) -> Iterator[tuple[int, list[Leaning], Measured]]:
    """For each loop count its leanings, and how far the artifact is from `model`; few loops first.

    `rounded` is the reference that rounds, `model` the one whose changes are faults. Matrices are suspected where the
    least is left: at the smallest count. The scatter of texts is the standard error, so few texts are cut into several
    for that: a matrix is the same at every position. Two texts alone took weak matrices of right artifacts for faults.
    """
    known: dict[str, list[Tensor]] = {}  # states by whose they are, so that no loop is computed twice

    def asked(whose: str, of: Parcae, loops: int) -> Tensor:
        logits, known[whose] = expected(of, probe, loops, spec, known.get(whose, []))
        return logits

    for loops in sorted(counts):
        answer = answered(host, probe, loops)
        left = answer[0].float() - asked("rounded", rounded, loops)
        base = asked("right", model, loops)
        measured = distances((base, known["right"]), answer, probe, loops)
        leanings = []
        if loops == min(counts):
            short = shortened(probe)
            if short is not probe:
                short_base = expected(model, short, loops, spec)[0]
                short_left = answered(host, short, loops)[0].float() - expected(rounded, short, loops, spec)[0]
                leanings = matrix_leanings(model, short, loops, spec, short_left, short_base)
            else:
                leanings = matrix_leanings(model, probe, loops, spec, left, base)
        if model.config.rope_settings.use_rope:
            with suspected(model, ROTATION):
                change = asked(ROTATION, model, loops) - base
            leanings.append(_leaning(ROTATION, left, change))
        if not model.config.plain:
            change = expected(model, probe, loops + 1, spec, known["right"])[0] - base
            leanings.append(_leaning("one loop more", left, change))
        yield loops, [leaning for leaning in leanings if leaning is not None], measured


def matrix_leanings(
    model: Parcae, probe: Probe, loops: int, spec: CacheSpec, left: Tensor, base: Tensor
) -> list[Leaning | None]:
    """A leaning for each matrix: by its change where it may lean, else by derivatives."""
    noise, leanings = float(left.norm()), []
    looks = first_look(model, probe.ids, left, loops, SIZE)
    for fault in matrices(model):
        look = looks.get(fault)
        if look is not None and not _may_lean(look, noise):
            leanings.append(_of_products(fault, look.along, look.size, noise))
            continue
        with suspected(model, fault):
            change = expected(model, probe, loops, spec)[0] - base
        leanings.append(_leaning(fault, left, change))
    return leanings


def shortened(probe: Probe) -> Probe:
    """The same ids as at least `TEXTS` texts of one length, which are shorter where there were fewer."""
    count, length = probe.ids.shape
    parts = min(-(-TEXTS // count), length)
    if parts == 1:
        return probe
    part = length // parts
    return Probe(f"{probe.name} of {part}", probe.ids[:, : parts * part].reshape(count * parts, part))


def matrices(model: Parcae) -> list[str]:
    """Every matrix by its name."""
    return [name for name, parameter in model.named_parameters() if parameter.dim() == 2]


@contextlib.contextmanager
def suspected(model: Parcae, fault: str) -> Iterator[None]:
    """The model with a fault, and without it afterwards."""
    original = model.rope if fault == ROTATION else model.get_parameter(fault).data.clone()
    if fault == ROTATION:  # shifting every position alike changes no distance, so the first one stays
        model.rope = torch.cat([original[:1], original[2:], original[-1:]])
    else:
        model.get_parameter(fault).data.mul_(1 + SIZE)
    try:
        yield
    finally:
        if fault == ROTATION:
            model.rope = original
        else:
            model.get_parameter(fault).data.copy_(original)


def _leaning(fault: str, left: Tensor, change: Tensor) -> Leaning | None:
    """The share by least squares, (texts, length, vocabulary) each; None for a fault that changes nothing."""
    along, size = (left * change).sum((1, 2)).double(), change.square().sum((1, 2)).double()
    return _of_products(fault, along, size, float(left.norm()))


def _of_products(fault: str, along: Tensor, size: Tensor, noise: float) -> Leaning | None:
    """The same from (texts,) products of what is left with a change, and squares of that change."""
    if not float(size.sum().sqrt()) > LEAST * noise:
        return None
    share = along.sum() / size.sum()
    error = ((along - share * size).square().sum() * len(along) / max(1, len(along) - 1)).sqrt() / size.sum()
    return Leaning(fault, float(share), float(error))


def _may_lean(look: Look, noise: float) -> bool:
    """Half of what `Leaning.found` wants, because lengths are estimates: a share, and texts that agree on its sign."""
    along, size = look.along.sum().abs(), look.size.sum()
    changes = size.sqrt() > LEAST / 2 * noise
    agreed = along.square() > len(look.along) / 4 * look.along.square().sum()
    return bool(changes and agreed and along > HALF / 2 * size)


def direction_failures(loops: int, leanings: list[Leaning]) -> list[str]:
    """A line for the fault that explains most of what is left."""
    certain = [leaning for leaning in leanings if leaning.found]
    if not certain:
        return []
    worst = max(certain, key=lambda leaning: abs(leaning.share) / max(leaning.error, 1e-12))
    tried = f"{worst.fault} {SIZE:.0%} larger" if "." in worst.fault else worst.fault
    return [
        f"T={loops}: the outputs lean by {worst.share:.2g} +- {worst.error:.1g} of the way "
        f"to a model with {tried}, above {HALF}"
    ]
