"""Round-to-nearest with scales searched for the least squared error, on the grid that every runtime holds exactly.

tensor = quantize_rtn(weight, bits=4, group_size=32)
"""

from __future__ import annotations

import torch
from torch import Tensor

from .tensor import QuantizedTensor, integer_range, on_scale_grid

# Shares of the largest magnitude that a group's greatest integer may stand for. Clipping a little lowers the squared
# error of 4-bit groups; 8-bit rows gain nothing from it.
SHRINKS = {8: (1.0,), 4: tuple(1.0 - 0.04 * step for step in range(-1, 12))}
_ROWS_AT_ONCE = 2**18


def quantize_rtn(weight: Tensor, bits: int, group_size: int, symmetric: bool = True) -> QuantizedTensor:
    """Quantize (rows, columns) fp32 in groups of `group_size` columns. Deterministic."""
    rows, columns = weight.shape
    step = max(1, _ROWS_AT_ONCE // columns)
    parts = [_quantize_rows(weight[r : r + step], bits, group_size, symmetric) for r in range(0, rows, step)]
    integers, scales, zero_points = (torch.cat(list(part)) for part in zip(*parts, strict=True))
    return QuantizedTensor(integers, scales, bits, group_size, None if symmetric else zero_points)


def search_scales(
    groups: Tensor, bits: int, symmetric: bool, importance: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Scale and zero point (..., 1) of (..., group size) weights with the least (weighted) squared error.

    `importance` broadcasts against `groups`; zero points are 0 where `symmetric`.
    """
    low, high = integer_range(bits, symmetric)
    best_error = best_scale = best_zero = None
    for shrink in SHRINKS.get(bits, SHRINKS[4]):
        scale, zero = _scale_for(groups, low, high, symmetric, shrink)
        error = (round_to(groups, scale, zero, low, high).sub_(zero).mul_(scale).sub_(groups)).square_()
        error = (error if importance is None else error * importance).sum(-1, keepdim=True)
        if best_error is None or best_scale is None or best_zero is None:
            best_error, best_scale, best_zero = error, scale, zero
        else:
            better = error < best_error
            best_error = torch.where(better, error, best_error)
            best_scale, best_zero = torch.where(better, scale, best_scale), torch.where(better, zero, best_zero)
    assert best_scale is not None and best_zero is not None
    return best_scale, best_zero


def round_to(groups: Tensor, scale: Tensor, zero: Tensor, low: int, high: int) -> Tensor:
    """Nearest integers (as floats) of `groups` for the given scales and zero points."""
    return (groups / scale).round_().add_(zero).clamp_(low, high)


def _scale_for(groups: Tensor, low: int, high: int, symmetric: bool, shrink: float) -> tuple[Tensor, Tensor]:
    if symmetric:
        scale = on_scale_grid(groups.abs().amax(-1, keepdim=True) * shrink / high)
        return scale, torch.zeros_like(scale)
    least = groups.amin(-1, keepdim=True).clamp(max=0) * shrink
    most = groups.amax(-1, keepdim=True).clamp(min=0) * shrink
    scale = on_scale_grid((most - least) / (high - low))
    return scale, (low - least / scale).round().clamp(low, high)


def _quantize_rows(weight: Tensor, bits: int, group_size: int, symmetric: bool) -> tuple[Tensor, Tensor, Tensor]:
    groups = weight.float().reshape(weight.shape[0], -1, group_size)
    scale, zero = search_scales(groups, bits, symmetric)
    integers = round_to(groups, scale, zero, *integer_range(bits, symmetric))
    return integers.to(torch.int8).reshape(weight.shape), scale[..., 0], zero[..., 0].to(torch.int8)
