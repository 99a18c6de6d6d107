"""What quantizing the injection would have done to a model: the reason why every recipe leaves it alone.

    for row in injection_report(HeldOut(model, windows)): print(row.stored, row.bits, row.max_decay, row.kl)

Each row stores one part in another format, with nothing else quantized: `A_log` and `dt_bias` together, the decay made
of them, or `B`. An error in a decay is the one that loops compound; a decay that rounds to 1 stops contracting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from parcae_mobile.injection import DiagonalInjection
from parcae_mobile.model import Parcae

from .apply import with_tensors
from .compression import HeldOut
from .rtn import quantize_rtn

FORMATS = ("bf16", "int8", "int4")
GROUP = 32  # of B at int4


@dataclass(frozen=True)
class GuardRow:
    """The model with one part of its injection in another format; errors by loop count."""

    stored: str
    format: str
    max_decay: float
    max_decay_error: float
    state_errors: dict[int, float]
    kl: dict[int, float]

    @property
    def stable(self) -> bool:
        """Whether the linear injection still contracts."""
        return self.max_decay < 1

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"stable": self.stable}


def injection_report(held_out: HeldOut, formats: tuple[str, ...] = FORMATS) -> list[GuardRow]:
    """Rows for `A_log` with `dt_bias`, the decay and `B`; none for an injection without poles."""
    model = held_out.reference
    injection = model.transformer["adapter"]
    if not isinstance(injection, DiagonalInjection):
        return []
    rows = []
    for stored, format_, floats in _variants(injection, formats):
        changed = with_tensors(model, {}, {f"transformer.adapter.{name}": values for name, values in floats.items()})
        decay = changed.transformer["adapter"].decay()
        error = float((decay - injection.decay()).abs().max())
        distances, errors = held_out.measure(changed)
        kl = {loops: distance.kl_mean for loops, distance in distances.items()}
        rows.append(GuardRow(stored, format_, float(decay.max()), error, errors, kl))
    return rows


def max_decay(model: Parcae) -> float | None:
    """The greatest pole of a diagonal injection in fp32; None without poles."""
    injection = model.transformer["adapter"]
    return float(injection.decay().max()) if isinstance(injection, DiagonalInjection) else None


def store(values: Tensor, format_: str) -> Tensor:
    """What comes back of (n,) fp32 values stored as bf16, or as integers with one symmetric scale for all."""
    if format_ == "bf16":
        return values.to(torch.bfloat16).float()
    most = 2 ** (int(format_.removeprefix("int")) - 1) - 1
    scale = values.abs().max() / most
    return (values / scale).round().clamp(-most - 1, most) * scale


def _variants(injection: DiagonalInjection, formats: tuple[str, ...]) -> Iterator[tuple[str, str, dict[str, Tensor]]]:
    parts: tuple[tuple[str, Callable[[str], dict[str, Tensor]]], ...] = (
        ("A_log and dt_bias", lambda f: {"A_log": store(injection.A_log, f), "dt_bias": store(injection.dt_bias, f)}),
        ("decay", lambda f: {"A_log": _rate_of(store(injection.decay(), f), injection.dt())}),
        ("B", lambda f: {"B": _matrix(injection.B, f)}),
    )
    for name, change in parts:
        for format_ in formats:
            yield name, format_, change(format_)


def _rate_of(decay: Tensor, dt: Tensor) -> Tensor:
    """The A_log whose decay is the given one; a decay of 1 gives minus infinity, which gives 1 again."""
    return (-decay.clamp(min=0).log() / dt).log()


def _matrix(matrix: Tensor, format_: str) -> Tensor:
    if format_ == "bf16":
        return matrix.to(torch.bfloat16).float()
    bits = int(format_.removeprefix("int"))
    group = GROUP if bits < 8 and matrix.shape[1] % GROUP == 0 else matrix.shape[1]
    return quantize_rtn(matrix, bits, group).dequantize()
