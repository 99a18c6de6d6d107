"""GPTQ: quantize a matrix column by column and let the columns that are left make up for each error.

    tensor = quantize_gptq(weight, hessian, bits=4, group_size=32)

Minimises |(W - Q) X|^2 given H = X X^T, with the upper Cholesky factor of H^-1 (Frantar et al. 2022, arXiv:2210.17323).
Columns are taken in order of falling diagonal of H. Scales are therefore found beforehand for all groups, for the
least error weighted by that diagonal, on the grid of every `QuantizedTensor`; then they are solved for, the columns
are taken again with the new ones, and integers and scales are refined in turn (`refine`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .refine import descend, refit_scales
from .rtn import round_to, search_scales
from .tensor import QuantizedTensor, integer_range

DAMPING = 0.03  # added to H's diagonal, as a share of its mean
BLOCK = 128  # columns whose errors are applied to the rest of the matrix together
_ROWS_AT_ONCE = 4096


class HessianError(ValueError):
    """A Hessian that cannot be inverted, or that says nothing: the layer needs another algorithm."""


def quantize_gptq(
    weight: Tensor, hessian: Tensor, bits: int, group_size: int, symmetric: bool = True, damping: float = DAMPING
) -> QuantizedTensor:
    """Quantize (rows, columns) fp32 given the (columns, columns) moments of its inputs. Deterministic.

    Raises `HessianError` where the moments are all zero or not positive definite after damping.
    """
    problem = Problem.of(hessian, damping)
    parts = [_quantize_rows(rows.float(), problem, bits, group_size, symmetric) for rows in weight.split(_ROWS_AT_ONCE)]
    integers, scales, zero_points = (torch.cat(list(part)) for part in zip(*parts, strict=True))
    return QuantizedTensor(integers, scales, bits, group_size, None if symmetric else zero_points)


@dataclass(frozen=True)
class Problem:
    """What a matrix's rows share: the damped moments, the order of columns, and the factor in that order."""

    hessian: Tensor
    order: Tensor
    factor: Tensor

    @classmethod
    def of(cls, hessian: Tensor, damping: float) -> Problem:
        order = hessian.diagonal().argsort(descending=True, stable=True)
        damped = damp(hessian, damping)
        return cls(damped.float(), order, inverse_factor(damped[order][:, order]))


def damp(hessian: Tensor, damping: float = DAMPING) -> Tensor:
    """Moments in fp64 with a share of their mean diagonal added to the diagonal.

    A column that is always zero gets the mean diagonal: it is then rounded by itself. Raises `HessianError`.
    """
    h = hessian.double()
    diagonal = h.diagonal().clone()
    if not torch.isfinite(h).all() or not (diagonal > 0).any():
        raise HessianError("its inputs are zero or not finite on the calibration text")
    h.diagonal()[diagonal <= 0] = diagonal[diagonal > 0].mean()
    h.diagonal().add_(damping * h.diagonal().mean())
    return h


def inverse_factor(damped: Tensor) -> Tensor:
    """Upper U in fp32 with U^T U = H^-1, worked out in fp64. Raises `HessianError`."""
    lower, failed = torch.linalg.cholesky_ex(damped)
    if int(failed):
        raise HessianError("the moments of its inputs are not positive definite")
    upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
    if int(failed):
        raise HessianError("the moments of its inputs are nearly singular")
    return upper.float()


def _quantize_rows(
    weight: Tensor, problem: Problem, bits: int, group_size: int, symmetric: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Integers, scales and zero points of some rows. Fewer than 8 bits are refined; 8 gain nothing from it."""
    low, high = integer_range(bits, symmetric)
    grouped = weight.reshape(weight.shape[0], -1, group_size)
    importance = problem.hessian.diagonal().view(1, -1, group_size)
    scales, zeros = (part[..., 0].contiguous() for part in search_scales(grouped, bits, symmetric, importance))
    integers = _one_pass(weight, problem, scales, zeros, low, high)
    if bits < 8:
        spread_zeros = zeros.repeat_interleave(group_size, 1)
        scales = refit_scales(integers - spread_zeros, scales, weight, problem.hessian)
        integers = _one_pass(weight, problem, scales, zeros, low, high)
        integers = descend(integers, zeros, scales, weight, problem.hessian, low, high)
        scales = refit_scales(integers - spread_zeros, scales, weight, problem.hessian)
    return integers.to(torch.int8), scales, zeros.to(torch.int8)


def _one_pass(weight: Tensor, problem: Problem, scales: Tensor, zeros: Tensor, low: int, high: int) -> Tensor:
    """Integers (rows, columns), as floats, for given scales and zero points (rows, groups)."""
    size = weight.shape[1] // scales.shape[1]
    column_scales, column_zeros = scales.T.contiguous(), zeros.T.contiguous()

    def round_column(index: int, column: Tensor) -> tuple[Tensor, Tensor]:
        scale, zero = column_scales[index // size], column_zeros[index // size]
        rounded = round_to(column, scale, zero, low, high)
        return rounded, (rounded - zero) * scale

    return feed_errors_forward(weight, problem, round_column)


def feed_errors_forward(
    weight: Tensor, problem: Problem, round_column: Callable[[int, Tensor], tuple[Tensor, Tensor]]
) -> Tensor:
    """Codes (rows, columns), as floats. `round_column(index, values)` gives a column's codes and what they stand for;
    what is left of it goes into the columns that are still to come."""
    rows, total = weight.shape
    order, factor = problem.order, problem.factor
    columns = weight.T[order].contiguous()  # a column is a contiguous row here
    places = order.tolist()
    codes = torch.empty(total, rows)
    for start in range(0, total, BLOCK):
        stop = min(start + BLOCK, total)
        errors = torch.empty(stop - start, rows)
        for index in range(start, stop):
            codes[places[index]], meant = round_column(places[index], columns[index])
            errors[index - start] = (columns[index] - meant) / factor[index, index]
            columns[index + 1 : stop].addr_(factor[index, index + 1 : stop], errors[index - start], alpha=-1)
        columns[stop:].addmm_(factor[start:stop, stop:].T, errors, alpha=-1)
    return codes.T.contiguous()
