"""GPTQ: quantize a matrix column by column and let the columns that are left make up for each error.

    tensor = quantize_gptq(weight, hessian, bits=4, group_size=32)

Minimises |(W - Q) X|^2 given H = X X^T, with the upper Cholesky factor of H^-1 (Frantar et al. 2022, arXiv:2210.17323).
Columns are taken in order of falling diagonal of H. Scales are therefore found beforehand for all groups, for the
least error weighted by that diagonal, on the grid of every `QuantizedTensor`.
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
    order = hessian.diagonal().argsort(descending=True, stable=True)
    factor, ordered = inverse_factor(hessian[order][:, order], damping)
    importance = torch.empty_like(ordered).scatter_(0, order, ordered)
    parts = [
        _quantize_rows(rows.float(), factor, order, importance, bits, group_size, symmetric)
        for rows in weight.split(_ROWS_AT_ONCE)
    ]
    integers, scales, zero_points = (torch.cat(list(part)) for part in zip(*parts, strict=True))
    return QuantizedTensor(integers, scales, bits, group_size, None if symmetric else zero_points)


def inverse_factor(hessian: Tensor, damping: float = DAMPING) -> tuple[Tensor, Tensor]:
    """Upper U with U^T U = (H + damping)^-1, and the damped diagonal, both fp32. Worked out in fp64.

    A column that is always zero gets the mean diagonal: it is then rounded by itself. Raises `HessianError`.
    """
    h = hessian.double()
    diagonal = h.diagonal().clone()
    if not torch.isfinite(h).all() or not (diagonal > 0).any():
        raise HessianError("its inputs are zero or not finite on the calibration text")
    h.diagonal()[diagonal <= 0] = diagonal[diagonal > 0].mean()
    h.diagonal().add_(damping * h.diagonal().mean())
    lower, failed = torch.linalg.cholesky_ex(h)
    if int(failed):
        raise HessianError("the moments of its inputs are not positive definite")
    upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
    if int(failed):
        raise HessianError("the moments of its inputs are nearly singular")
    return upper.float(), h.diagonal().float()


def _quantize_rows(
    weight: Tensor, factor: Tensor, order: Tensor, importance: Tensor, bits: int, group_size: int, symmetric: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Integers, scales and zero points of some rows; `factor` has its columns in `order`, `importance` has not."""
    rows, total = weight.shape
    low, high = integer_range(bits, symmetric)
    grouped = weight.reshape(rows, -1, group_size)
    scales, zeros = (
        part[..., 0] for part in search_scales(grouped, bits, symmetric, importance.view(1, -1, group_size))
    )
    columns = weight.T[order].contiguous()  # a column is a contiguous row here
    group_of = (order // group_size).tolist()
    column_scales, column_zeros = scales.T.contiguous(), zeros.T.contiguous()
    integers = torch.empty(total, rows, dtype=torch.int8)
    for start in range(0, total, BLOCK):
        stop = min(start + BLOCK, total)
        errors = torch.empty(stop - start, rows)
        for index in range(start, stop):
            scale, zero = column_scales[group_of[index]], column_zeros[group_of[index]]
            rounded = round_to(columns[index], scale, zero, low, high)
            integers[order[index]] = rounded.to(torch.int8)
            errors[index - start] = (columns[index] - (rounded - zero) * scale) / factor[index, index]
            columns[index + 1 : stop].addr_(factor[index, index + 1 : stop], errors[index - start], alpha=-1)
        columns[stop:].addmm_(factor[start:stop, stop:].T, errors, alpha=-1)
    return integers.T.contiguous(), scales.contiguous(), zeros.to(torch.int8)
