"""`QuantizedTensor`: the integers and scales of one matrix. `dequantize` is the definition of what they mean.

    tensor = QuantizedTensor(integers, scales, bits=4, group_size=32)
    weight = tensor.dequantize()                           # (rows, columns) fp32: (integer - zero point) * scale

It is made once, before any target. Every target stores these integers, so that all artifacts compute the same weights:
scales are values that bf16 holds exactly and that are normal in fp16, whatever float type a runtime keeps them in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from parcae_mobile.errors import TensorValueError

SMALLEST_SCALE = 2.0**-14  # the smallest normal fp16 value; bf16 holds it exactly
LARGEST_SCALE = 65280.0  # the largest value that both bf16 and fp16 hold


@dataclass(frozen=True)
class QuantizedTensor:
    """A matrix as integers in groups along its columns.

    `integers` (rows, columns) int8; `scales` (rows, columns / group size) fp32 on the bf16 grid; `zero_points` like
    `scales` in int8, or None where the integers are symmetric around zero. `group_size` divides the columns, or is the
    whole row. Raises `TensorValueError` for parts that contradict each other.
    """

    integers: Tensor
    scales: Tensor
    bits: int
    group_size: int
    zero_points: Tensor | None = None

    def __post_init__(self) -> None:
        rows, columns = self.integers.shape
        low, high = integer_range(self.bits, self.zero_points is None)
        if self.group_size < 1 or columns % self.group_size:
            raise TensorValueError(f"group size {self.group_size} does not divide {columns} columns")
        groups = columns // self.group_size
        if tuple(self.scales.shape) != (rows, groups):
            raise TensorValueError(f"scales {tuple(self.scales.shape)} for {rows} x {groups} groups")
        if self.zero_points is not None and self.zero_points.shape != self.scales.shape:
            raise TensorValueError(f"zero points {tuple(self.zero_points.shape)}, scales {tuple(self.scales.shape)}")
        if self.integers.dtype != torch.int8 or int(self.integers.min()) < low or int(self.integers.max()) > high:
            raise TensorValueError(f"integers must be int8 from {low} to {high} for {self.bits} bits")
        if not torch.equal(on_scale_grid(self.scales), self.scales):
            raise TensorValueError("scales must be positive, exact in bf16 and normal in fp16")

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.integers.shape[0], self.integers.shape[1]

    @property
    def symmetric(self) -> bool:
        return self.zero_points is None

    def dequantize(self) -> Tensor:
        """(rows, columns) fp32. Exact: an integer of at most 8 bits times a bf16 value fits fp32's 24 bits."""
        rows, columns = self.shape
        grouped = self.integers.view(rows, -1, self.group_size).float()
        if self.zero_points is not None:
            grouped.sub_(self.zero_points[..., None])
        return grouped.mul_(self.scales[..., None]).view(rows, columns)

    @property
    def nbytes(self) -> int:
        """Bytes at rest, see `stored_bytes`."""
        return stored_bytes(*self.shape, self.bits, self.group_size, self.symmetric)

    def to_tensors(self, name: str) -> dict[str, Tensor]:
        """The parts under `name.integers`, `name.scales`, `name.zero_points` and `name.format` (bits, group size)."""
        parts = {
            f"{name}.integers": self.integers,
            f"{name}.scales": self.scales.to(torch.bfloat16),
            f"{name}.format": torch.tensor([self.bits, self.group_size], dtype=torch.int32),
        }
        if self.zero_points is not None:
            parts[f"{name}.zero_points"] = self.zero_points
        return parts

    @classmethod
    def from_tensors(cls, name: str, parts: dict[str, Tensor]) -> QuantizedTensor:
        """The inverse of `to_tensors`. Raises `TensorValueError` if a part is missing."""
        try:
            bits, group_size = parts[f"{name}.format"].tolist()
            integers, scales = parts[f"{name}.integers"], parts[f"{name}.scales"].float()
        except (KeyError, ValueError) as error:
            raise TensorValueError(f"{name}: incomplete quantized tensor ({error})") from None
        return cls(integers, scales, bits, group_size, parts.get(f"{name}.zero_points"))


def stored_bytes(rows: int, columns: int, bits: int, group_size: int, symmetric: bool = True) -> int:
    """Bytes of packed integers, 16-bit scales and packed zero points."""
    groups = rows * columns // group_size
    return math.ceil((rows * columns * bits + groups * (16 if symmetric else 16 + bits)) / 8)


def integer_range(bits: int, symmetric: bool = True) -> tuple[int, int]:
    """Least and greatest integer: int8 is -127..127, int4 -8..7; asymmetric integers are shifted to the same range."""
    if bits not in (2, 3, 4, 8):
        raise TensorValueError(f"{bits} bits are not supported; choose 2, 3, 4 or 8")
    return (-127 if bits == 8 and symmetric else -(2 ** (bits - 1))), 2 ** (bits - 1) - 1


def on_scale_grid(scales: Tensor) -> Tensor:
    """The nearest scales that bf16 holds exactly and that are normal, finite fp16 values. fp32 in, fp32 out."""
    return scales.to(torch.bfloat16).float().clamp(SMALLEST_SCALE, LARGEST_SCALE)
