"""Compressed constants: what turns stored integers, palettes and masks into the weights that other operators use.

Results are cached by the program, so each is computed once however often the graph names it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from export.targets.coreml.mil.dtypes import UINT1, UINT2, UINT4, UINT6, UINT8, DType
from export.targets.coreml.mil.files.blob import decode, packed_bytes
from export.targets.coreml.mil.registry import Arguments, like, operator

BY_PALETTE_SIZE: dict[int, DType] = {2: UINT1, 4: UINT2, 16: UINT4, 64: UINT6, 256: UINT8}


def _blocks(a: Arguments, shape: torch.Size, grid: torch.Size, name: str) -> tuple[list[int], list[int]]:
    """Shapes under which data and one value per block broadcast: (n0, b0, n1, b1, ...) and (n0, 1, n1, 1, ...)."""
    if len(shape) != len(grid) or any(n == 0 or size % n for size, n in zip(shape, grid, strict=True)):
        raise a.fail(f"'{name}' {list(grid)} does not divide {list(shape)} into blocks")
    split = [part for size, n in zip(shape, grid, strict=True) for part in (n, size // n)]
    return split, [part for n in grid for part in (n, 1)]


def _shift_scale(a: Arguments, data: Tensor) -> Tensor:
    scale = a.wide("scale")
    split, grid = _blocks(a, data.shape, scale.shape, "scale")
    y = data.to(a.compute).reshape(split)
    if a.has("offset"):
        if a.raw("offset").shape != scale.shape:
            raise a.fail(f"offset {list(a.raw('offset').shape)} and scale {list(scale.shape)} differ")
        y = y - a.raw("offset").to(a.compute).reshape(grid)
    return (y * scale.reshape(grid)).reshape(data.shape)


@operator("constexpr_blockwise_shift_scale", result=like("scale"))
def _blockwise_shift_scale(a: Arguments) -> Tensor:
    """scale * (data - offset), one scale and offset per block (iOS 18)."""
    return _shift_scale(a, a.raw("data"))


def _per_axis(a: Arguments, name: str, data: Tensor) -> Tensor:
    tensor = a.raw(name).to(a.compute)
    if tensor.dim() == 0:
        return tensor
    axis = a.axis(a.integer("axis"), data.dim())
    if tensor.numel() not in (1, data.shape[axis]):
        raise a.fail(f"'{name}' has {tensor.numel()} values for axis {axis} of {list(data.shape)}")
    return tensor.reshape([-1 if i == axis else 1 for i in range(data.dim())])


@operator("constexpr_affine_dequantize", result=like("scale"))
def _affine_dequantize(a: Arguments) -> Tensor:
    """scale * (quantized_data - zero_point), per tensor or per index of `axis` (iOS 16)."""
    data = a.raw("quantized_data")
    a.room(data.numel())
    return (data.to(a.compute) - _per_axis(a, "zero_point", data)) * _per_axis(a, "scale", data)


def _look_up(a: Arguments, indices: Tensor) -> Tensor:
    """iOS 18 palettes: lut (groups of every axis..., palette, vector). A vector lies along `vector_axis`."""
    lut = a.raw("lut")
    if lut.dim() != indices.dim() + 2:
        raise a.fail(f"lut has rank {lut.dim()}, want {indices.dim() + 2}")
    palette, width = lut.shape[-2:]
    if int(indices.amax()) >= palette:
        raise a.fail(f"index {int(indices.amax())} into a palette of {palette}")
    split, grid = _blocks(a, indices.shape, lut.shape[:-2], "lut")
    a.room(indices.numel(), width)
    # Number of each element's group, so that one flat look-up serves all groups.
    group = torch.arange(lut.shape[:-2].numel()).reshape(grid).expand(split).reshape(indices.shape)
    dense = lut.reshape(-1, width)[(group * palette + indices.long()).reshape(-1)].reshape(*indices.shape, width)
    if width == 1 and not a.has("vector_axis"):
        return dense.squeeze(-1)
    axis = a.axis(a.integer("vector_axis"), indices.dim(), "vector_axis")
    return dense.movedim(-1, axis + 1).flatten(axis, axis + 1)


@operator("constexpr_lut_to_dense", result=like("lut"))
def _lut_to_dense(a: Arguments) -> Tensor:
    if not a.has("shape"):
        return _look_up(a, a.raw("indices"))
    # iOS 16: one palette, packed indices, and the shape as an attribute.
    lut, shape = a.raw("lut"), tuple(a.integers("shape"))
    if lut.dim() != 1 or lut.numel() not in BY_PALETTE_SIZE:
        raise a.fail(f"lut {list(lut.shape)}, want a vector of 2, 4, 16, 64 or 256 values")
    return lut[_packed(a, "indices", BY_PALETTE_SIZE[lut.numel()], shape).long()]


def _packed(a: Arguments, name: str, dtype: DType, shape: tuple[int, ...]) -> Tensor:
    data = bytes(a.raw(name).reshape(-1).to(torch.uint8).numpy())
    a.room(*(max(0, size) for size in shape))
    want = packed_bytes(torch.Size(shape).numel(), dtype)
    if len(data) != want:
        raise a.fail(f"'{name}' has {len(data)} bytes, want {want} for {list(shape)}")
    return decode(data, dtype, shape)


def _to_dense(a: Arguments, values: Tensor, mask: Tensor) -> Tensor:
    keep = mask != 0
    if values.dim() != 1 or int(keep.sum()) != values.numel():
        raise a.fail(f"{list(values.shape)} values for {int(keep.sum())} set bits of the mask")
    dense = torch.zeros(mask.shape, dtype=values.dtype)
    dense[keep] = values
    return dense


@operator("constexpr_sparse_to_dense", result=like("nonzero_data"))
def _sparse_to_dense(a: Arguments) -> Tensor:
    mask = _packed(a, "mask", UINT1, tuple(a.integers("shape"))) if a.has("shape") else a.raw("mask")
    return _to_dense(a, a.raw("nonzero_data"), mask)


@operator("constexpr_lut_to_sparse", result=lambda a: (UINT1, a.dtype("lut")))
def _lut_to_sparse(a: Arguments) -> tuple[Tensor, ...]:
    mask = a.raw("indices_mask")
    dense = _look_up(a, _to_dense(a, a.raw("indices_nonzero_data"), mask))
    if dense.shape != mask.shape:
        mask = mask.repeat_interleave(a.raw("lut").shape[-1], a.axis(a.integer("vector_axis"), mask.dim()))
    return mask, dense[mask != 0]


@operator("constexpr_sparse_blockwise_shift_scale", result=lambda a: (UINT1, a.dtype("scale")))
def _sparse_blockwise_shift_scale(a: Arguments) -> tuple[Tensor, ...]:
    mask = a.raw("data_mask")
    return mask, _shift_scale(a, _to_dense(a, a.raw("nonzero_data"), mask))[mask != 0]


@operator("constexpr_cast", result=lambda a: a.named_dtype("output_dtype"))
def _constexpr_cast(a: Arguments) -> Tensor:
    return a.wide("source_val")


@operator("dequantize", result=like("scale"))
def _dequantize(a: Arguments) -> Tensor:
    """scale * (input - zero_point): the run-time form (iOS 17)."""
    data = a.raw("input")
    shifted = data.to(a.compute) - (_per_axis(a, "zero_point", data) if a.has("zero_point") else 0)
    return shifted * _per_axis(a, "scale", data)


@operator("quantize", result=lambda a: a.named_dtype("output_dtype"))
def _quantize(a: Arguments) -> Tensor:
    """clip(round(input / scale) + zero_point), rounding half to even (iOS 17)."""
    data, target = a.wide("input"), a.named_dtype("output_dtype")
    y = torch.round(data / _per_axis(a, "scale", data))
    if a.has("zero_point"):
        y = y + _per_axis(a, "zero_point", data)
    return y.clamp(target.low, target.high).to(target.carrier)
