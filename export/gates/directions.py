"""Is it the right function, where the backend cannot be told not to round?

    leanings = lean(host, published_reference, model, probe, loops, spec)
    failures = direction_failures(loops, leanings)

XNNPACK rounds every row of every product's input to int8, and no reference follows it for long: one number on the other
side of an edge in the first layer is a step of noise in the second, and after a few layers two correct computations
differ as much as either differs from one without rounding. But that noise has no direction, and a wrong function has
one. So what is left (the artifact's logits less those of a reference that rounds in the same way) is projected on the
change that each suspected fault would make: each matrix 1 % larger, positions off by one, one loop more. The share of
a fault is about 0 in the right function and 1 in the faulty one; over hundreds of positions a fault that is a fifth of
the noise in size stands out by several standard errors.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from export.gates.probes import Probe, answered, expected
from export.targets.host import Host
from parcae_mobile.kv_cache import CacheSpec
from parcae_mobile.model import Parcae

SIZE = 0.01  # by how much a suspected matrix is too large
HALF = 0.5  # the share of a fault from which on it is taken to be there
CERTAIN = 4.0  # standard errors that a share has to be away from 0
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
    host: Host, rounded: Parcae, model: Parcae, probe: Probe, loops: int, spec: CacheSpec, every: bool = True
) -> list[Leaning]:
    """A leaning for each fault, or only for the loop count and the rotation.

    `rounded` is the reference that rounds, `model` the one whose changes are faults. The probe needs several texts:
    their scatter is the standard error.
    """
    left = answered(host, probe, loops)[0].float() - expected(rounded, probe, loops, spec)[0]
    base = expected(model, probe, loops, spec)[0]
    leanings = []
    for fault in faults(model) if every else [name for name in faults(model) if "." not in name]:
        with suspected(model, fault):
            change = expected(model, probe, loops, spec)[0] - base
        leanings.append(_leaning(fault, left, change))
    if not model.config.plain:
        change = expected(model, probe, loops + 1, spec)[0] - base
        leanings.append(_leaning("one loop more", left, change))
    return [leaning for leaning in leanings if leaning is not None]


def faults(model: Parcae) -> list[str]:
    """Every matrix by its name, and the rotation."""
    matrices = [name for name, parameter in model.named_parameters() if parameter.dim() == 2]
    return [*matrices, "rotation"] if model.config.rope_settings.use_rope else matrices


@contextlib.contextmanager
def suspected(model: Parcae, fault: str) -> Iterator[None]:
    """The model with a fault, and without it afterwards."""
    original = model.rope if fault == "rotation" else model.get_parameter(fault).data.clone()
    if fault == "rotation":  # shifting every position alike changes no distance, so the first one stays
        model.rope = torch.cat([original[:1], original[2:], original[-1:]])
    else:
        model.get_parameter(fault).data.mul_(1 + SIZE)
    try:
        yield
    finally:
        if fault == "rotation":
            model.rope = original
        else:
            model.get_parameter(fault).data.copy_(original)


def _leaning(fault: str, left: Tensor, change: Tensor) -> Leaning | None:
    """The share by least squares, (texts, length, vocabulary) each; None for a fault that changes nothing."""
    if not float(change.norm()) > LEAST * float(left.norm()):
        return None
    along, size = (left * change).sum((1, 2)).double(), change.square().sum((1, 2)).double()
    share = along.sum() / size.sum()
    error = ((along - share * size).square().sum() * len(along) / max(1, len(along) - 1)).sqrt() / size.sum()
    return Leaning(fault, float(share), float(error))


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
