"""Half-quadratic quantization: scales fitted without data to an error norm that large weights do not dominate.

    tensor = quantize_hqq(weight, bits=4, group_size=32)

Alternates a shrinkage of the error (for sum |e|^p, p < 1) with the scale and zero point that fit best what is left
(Badri and Shaji 2023, "Half-Quadratic Quantization of Large Machine Learning Models"). The original keeps zero points
as floats, which no runtime here stores: they are whole numbers, so this can win less over round-to-nearest.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .rtn import round_to, search_scales
from .tensor import QuantizedTensor, integer_range, on_scale_grid

NORM = 0.7  # p
PENALTY, PENALTY_GROWTH = 10.0, 1.01  # with errors in units of a step
STEPS = 20
_WEIGHTS_AT_ONCE = 2**22


def quantize_hqq(weight: Tensor, bits: int, group_size: int, symmetric: bool = True) -> QuantizedTensor:
    """Quantize (rows, columns) fp32 in groups of `group_size` columns. Deterministic."""
    at_once = max(1, _WEIGHTS_AT_ONCE // weight.shape[1])
    parts = [_quantize_rows(rows, bits, group_size, symmetric) for rows in weight.split(at_once)]
    integers, scales, zero_points = (torch.cat(list(part)) for part in zip(*parts, strict=True))
    return QuantizedTensor(integers, scales, bits, group_size, None if symmetric else zero_points)


def _quantize_rows(weight: Tensor, bits: int, group_size: int, symmetric: bool) -> tuple[Tensor, Tensor, Tensor]:
    groups = weight.float().reshape(weight.shape[0], -1, group_size)
    low, high = integer_range(bits, symmetric)
    scale, zero = search_scales(groups, bits, symmetric)
    best_scale, best_zero, best_error = scale, zero, torch.full_like(scale, torch.inf)
    penalty = PENALTY
    for _ in range(STEPS):
        steps = round_to(groups, scale, zero, low, high).sub_(zero)
        error = groups - steps * scale
        size = error.abs().pow(NORM).sum(-1, keepdim=True)
        better = size < best_error
        best_error = torch.where(better, size, best_error)
        best_scale, best_zero = torch.where(better, scale, best_scale), torch.where(better, zero, best_zero)
        fitted = groups - _shrink(error / scale, penalty) * scale
        penalty *= PENALTY_GROWTH
        if not symmetric:
            zero = (steps + zero - fitted / scale).mean(-1, keepdim=True).round().clamp(low, high)
            steps = round_to(groups, scale, zero, low, high).sub_(zero)
        squares = steps.square().sum(-1, keepdim=True)
        free = (fitted * steps).sum(-1, keepdim=True) / squares.clamp_min(1)
        scale = on_scale_grid(torch.where((squares > 0) & (free > 0), free, scale))
    integers = round_to(groups, best_scale, best_zero, low, high)
    return integers.to(torch.int8).reshape(weight.shape), best_scale[..., 0], best_zero[..., 0].to(torch.int8)


def _shrink(error: Tensor, penalty: float) -> Tensor:
    """Generalised soft threshold: the minimiser over e of |e|^p + penalty / 2 (e - error)^2, to first order."""
    size = error.abs()
    return error.sign() * (size - NORM / penalty * size.clamp_min(1e-6).pow(NORM - 1)).clamp_min_(0)
