"""GPTQ for palettes: columns make up for each other's errors, and the values of a palette are solved for.

    tensor = quantize_palette_gptq(weight, hessian, bits=4, rows_per_palette=16)

The objective is that of `gptq`, |(W - Q) X|^2 given H = X X^T. Values are first found by k-means weighted with H's
diagonal; then, in turn, indices are taken column by column with errors fed forward, and values are solved for with the
indices held: 2^bits unknowns for each palette, one small linear system.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .gptq import DAMPING, Problem, feed_errors_forward
from .palette import PaletteTensor, middles, search_values

ROUNDS = 3
_BYTES_AT_ONCE = 2**28


def quantize_palette_gptq(
    weight: Tensor, hessian: Tensor, bits: int, rows_per_palette: int, damping: float = DAMPING
) -> PaletteTensor:
    """Quantize (rows, columns) fp32 given the (columns, columns) moments of its inputs. Deterministic.

    Raises `HessianError` where the moments are all zero or not positive definite after damping.
    """
    problem = Problem.of(hessian, damping)
    weight = weight.float()
    values = search_values(weight, bits, rows_per_palette, problem.hessian.diagonal())
    indices = _one_pass(weight, problem, values)
    for _ in range(ROUNDS):
        values = _refit(indices, values, weight, problem.hessian)
        indices = _one_pass(weight, problem, values)
    return PaletteTensor(indices.to(torch.uint8), values)


def _one_pass(weight: Tensor, problem: Problem, values: Tensor) -> Tensor:
    """int64 indices (rows, columns) for given values (palettes, 2^bits)."""
    between = middles(values)

    def round_column(index: int, column: Tensor) -> tuple[Tensor, Tensor]:
        codes = torch.searchsorted(between, column.view(len(values), -1))
        return codes.view(-1).float(), values.gather(1, codes).view(-1)

    return feed_errors_forward(weight, problem, round_column).long()


def _refit(indices: Tensor, values: Tensor, weight: Tensor, hessian: Tensor) -> Tensor:
    """Values with the least error for given indices, rising and exact in fp16; one that is not used stays."""
    (rows, columns), (palettes, count) = indices.shape, values.shape
    normal, target = torch.zeros(rows, count, count), torch.zeros(rows, count)
    for chunk in torch.arange(rows).split(max(1, _BYTES_AT_ONCE // (8 * columns * count))):
        taken = torch.nn.functional.one_hot(indices[chunk], count).float()  # (rows, columns, values)
        through = hessian @ taken
        normal[chunk] = taken.transpose(1, 2) @ through
        target[chunk] = (through.transpose(1, 2) @ weight[chunk][..., None])[..., 0]
    summed = normal.view(palettes, -1, count, count).sum(1).double()
    wanted = target.view(palettes, -1, count).sum(1).double()
    ridge = 1e-4 * summed.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-12)
    system = summed + ridge[:, None, None] * torch.eye(count, dtype=torch.float64)
    solved = torch.linalg.solve(system, wanted + ridge[:, None] * values.double())
    return solved.half().float().sort(dim=1).values
