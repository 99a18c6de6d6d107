"""GPTQ: quantize a matrix column by column and let the columns that are left make up for each error.

    tensor = quantize_gptq(weight, hessian, bits=4, group_size=32)

Minimises |(W - Q) X|^2 given H = X X^T, with the upper Cholesky factor of H^-1 (Frantar et al. 2022, arXiv:2210.17323).
Scales are searched for the least error weighted by H's diagonal, on the grid of every `QuantizedTensor`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .rtn import round_to, search_scales
from .tensor import QuantizedTensor, integer_range

DAMPING = 0.01  # added to H's diagonal, as a share of its mean
BLOCK = 128  # columns whose errors are applied to the rest of the matrix together
_ROWS_AT_ONCE = 8192


class HessianError(ValueError):
    """A Hessian that cannot be inverted, or that says nothing: the layer needs another algorithm."""


def quantize_gptq(
    weight: Tensor, hessian: Tensor, bits: int, group_size: int, symmetric: bool = True, damping: float = DAMPING
) -> QuantizedTensor:
    """Quantize (rows, columns) fp32 given the (columns, columns) moments of its inputs. Deterministic.

    Raises `HessianError` where the moments are all zero or not positive definite after damping.
    """
    factor, importance = inverse_factor(hessian, damping)
    parts = [
        _quantize_rows(rows.float().T.clone(), factor, importance, bits, group_size, symmetric)
        for rows in weight.split(_ROWS_AT_ONCE)
    ]
    integers, scales, zero_points = (torch.cat(list(part)) for part in zip(*parts, strict=True))
    return QuantizedTensor(integers, scales, bits, group_size, None if symmetric else zero_points)


def inverse_factor(hessian: Tensor, damping: float = DAMPING) -> tuple[Tensor, Tensor]:
    """Upper U with U^T U = (H + damping)^-1, and the damped diagonal, both fp32. Worked out in fp64."""
    h = hessian.double()
    diagonal = h.diagonal().clone()
    if not torch.isfinite(h).all() or not (diagonal > 0).any():
        raise HessianError("its inputs are zero or not finite on the calibration text")
    dead = diagonal <= 0
    h = h + torch.diag(dead.double() * diagonal[~dead].mean())
    h.diagonal().add_(damping * h.diagonal().mean())
    lower, failed = torch.linalg.cholesky_ex(h)
    if int(failed):
        raise HessianError("the moments of its inputs are not positive definite")
    inverse = torch.cholesky_inverse(lower)
    upper, failed = torch.linalg.cholesky_ex(inverse, upper=True)
    if int(failed):
        raise HessianError("the moments of its inputs are nearly singular")
    return upper.float(), h.diagonal().float()


def _quantize_rows(
    columns: Tensor, factor: Tensor, importance: Tensor, bits: int, group_size: int, symmetric: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Integers, scales and zero points of a transposed (columns, rows) matrix, which is overwritten."""
    total, rows = columns.shape
    low, high = integer_range(bits, symmetric)
    integers = torch.empty(total, rows, dtype=torch.int8)
    scales, zeros = [], []
    scale = zero = columns.new_zeros(rows)
    for start in range(0, total, BLOCK):
        stop = min(start + BLOCK, total)
        errors = torch.empty(stop - start, rows)
        for index in range(start, stop):
            if index % group_size == 0:
                group = slice(index, index + group_size)
                found = search_scales(columns[group].T[:, None], bits, symmetric, importance[group])
                scale, zero = (part.reshape(rows) for part in found)
                scales.append(scale)
                zeros.append(zero)
            rounded = round_to(columns[index], scale, zero, low, high)
            integers[index] = rounded.to(torch.int8)
            error = (columns[index] - (rounded - zero) * scale) / factor[index, index]
            errors[index - start] = error
            columns[index + 1 : stop].addr_(factor[index, index + 1 : stop], error, alpha=-1)
        columns[stop:].addmm_(factor[start:stop, stop:].T, errors, alpha=-1)
    return integers.T.contiguous(), torch.stack(scales, 1), torch.stack(zeros, 1).to(torch.int8)
