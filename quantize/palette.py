"""`PaletteTensor`: a matrix as indices into small tables of values, the 4-bit form that Apple's Neural Engine reads.

    tensor = quantize_palette(weight, bits=4, rows_per_palette=16)
    weight = tensor.dequantize()                           # (rows, columns) fp32: each value is one of 16

A linear 4-bit weight is one of 16 multiples of a scale; here the 16 values are free, and a table of them serves whole
rows. Values are exact in fp16. Core ML stores it as `constexpr_lut_to_dense`; no other target has an operator for it.
The values are one-dimensional k-means (Lloyd's iterations) for the least squared error, weighted where a matrix's
inputs are known.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from parcae_mobile.errors import TensorValueError

STEPS = 40  # of Lloyd's iterations; the error falls by less than a thousandth after them
_WEIGHTS_AT_ONCE = 2**22


@dataclass(frozen=True)
class PaletteTensor:
    """`indices` (rows, columns) uint8 into `values` (rows / rows per palette, 2^bits) fp32, rising and exact in fp16.

    Raises `TensorValueError` for parts that contradict each other.
    """

    indices: Tensor
    values: Tensor

    def __post_init__(self) -> None:
        rows, palettes = self.indices.shape[0], self.values.shape[0]
        if palettes < 1 or rows % palettes:
            raise TensorValueError(f"{palettes} palettes do not divide {rows} rows")
        if self.values.shape[1] not in (2, 4, 8, 16) or self.indices.dtype != torch.uint8:
            raise TensorValueError("a palette has 2, 4, 8 or 16 values, and its indices are uint8")
        if int(self.indices.max()) >= self.values.shape[1]:
            raise TensorValueError(f"index {int(self.indices.max())} into a palette of {self.values.shape[1]}")
        if not torch.equal(self.values.half().float(), self.values) or not torch.isfinite(self.values).all():
            raise TensorValueError("values of a palette must be finite and exact in fp16")

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.indices.shape[0], self.indices.shape[1]

    @property
    def bits(self) -> int:
        return self.values.shape[1].bit_length() - 1

    @property
    def rows_per_palette(self) -> int:
        return self.shape[0] // self.values.shape[0]

    def dequantize(self) -> Tensor:
        """(rows, columns) fp32."""
        rows, columns = self.shape
        return self.values.gather(1, self.indices.view(len(self.values), -1).long()).view(rows, columns)

    @property
    def nbytes(self) -> int:
        """Bytes at rest, see `palette_bytes`."""
        return palette_bytes(*self.shape, self.bits, self.rows_per_palette)

    def to_tensors(self, name: str) -> dict[str, Tensor]:
        """The parts under `name.indices` and `name.values`."""
        return {f"{name}.indices": self.indices, f"{name}.values": self.values.half()}

    @classmethod
    def from_tensors(cls, name: str, parts: dict[str, Tensor]) -> PaletteTensor:
        """The inverse of `to_tensors`. Raises `TensorValueError` if a part is missing."""
        try:
            return cls(parts[f"{name}.indices"], parts[f"{name}.values"].float())
        except KeyError as error:
            raise TensorValueError(f"{name}: incomplete palette ({error})") from None


def palette_bytes(rows: int, columns: int, bits: int, rows_per_palette: int) -> int:
    """Bytes of packed indices and fp16 values."""
    return (rows * columns * bits + 7) // 8 + rows // rows_per_palette * 2**bits * 2


def quantize_palette(
    weight: Tensor, bits: int, rows_per_palette: int, importance: Tensor | None = None
) -> PaletteTensor:
    """Quantize (rows, columns) fp32; `importance` (columns,) weighs squared errors. Deterministic."""
    values = search_values(weight, bits, rows_per_palette, importance)
    return PaletteTensor(nearest(weight, values), values)


def search_values(weight: Tensor, bits: int, rows_per_palette: int, importance: Tensor | None = None) -> Tensor:
    """(rows / rows per palette, 2^bits) values with a low squared error, rising and exact in fp16."""
    grouped = weight.float().reshape(-1, rows_per_palette * weight.shape[1])
    weights = None if importance is None else importance.float().repeat(rows_per_palette)
    at_once = max(1, _WEIGHTS_AT_ONCE // grouped.shape[1])
    return torch.cat([_kmeans(part, 2**bits, weights) for part in grouped.split(at_once)])


def nearest(weight: Tensor, values: Tensor) -> Tensor:
    """uint8 indices (rows, columns) of the nearest of each palette's rising values."""
    grouped = weight.float().reshape(len(values), -1)
    return torch.searchsorted(middles(values), grouped).to(torch.uint8).view(weight.shape)


def middles(values: Tensor) -> Tensor:
    """What lies halfway between neighbouring values: the bounds of what each stands for."""
    return ((values[:, 1:] + values[:, :-1]) / 2).contiguous()


def _kmeans(grouped: Tensor, count: int, weights: Tensor | None) -> Tensor:
    """Lloyd's iterations on each row. Clusters are runs of the sorted row, so their means are differences of sums."""
    ordered, order = grouped.sort(dim=1)
    weight = torch.ones_like(ordered) if weights is None else weights[order]
    mass, moment = (_running(part) for part in (weight, weight * ordered))
    shares = (torch.arange(count) + 0.5) / count
    places = torch.searchsorted(mass, mass[:, -1:] * shares.double()).clamp(1, ordered.shape[1]) - 1
    spread = ordered[:, :1] + (ordered[:, -1:] - ordered[:, :1]) * shares
    values = (ordered.gather(1, places) + spread) / 2  # between equal shares and equal steps: ends and middle
    for _ in range(STEPS):
        bounds = torch.searchsorted(ordered, middles(values))
        edges = torch.cat(
            [torch.zeros_like(bounds[:, :1]), bounds, torch.full_like(bounds[:, :1], mass.shape[1] - 1)], 1
        )
        masses, moments = (part.gather(1, edges).diff(dim=1) for part in (mass, moment))
        values = torch.where(masses > 0, moments / masses.clamp_min(1e-300), values.double()).float()
    return values.half().float().sort(dim=1).values


def _running(x: Tensor) -> Tensor:
    """Sums of the first 0, 1, 2, ... values of each row, in fp64."""
    return torch.nn.functional.pad(x.double().cumsum(1), (1, 0))
