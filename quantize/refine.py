"""Two refinements of a quantized matrix for the same objective as GPTQ's, |(W - Q) X|^2 given H = X X^T.

Scales are solved for exactly with the integers held (a small least-squares problem for each row), and integers are
moved one column at a time with the scales held (coordinate descent, which only ever lowers the objective).
"""

from __future__ import annotations

import torch
from torch import Tensor

from .tensor import on_scale_grid

BLOCK, PASSES = 128, 2
NARROWEST, WIDEST = 0.7, 1.4  # a solved scale further than this from the searched one is not taken
_BYTES_AT_ONCE = 2**28


def refit_scales(steps: Tensor, scales: Tensor, weight: Tensor, hessian: Tensor) -> Tensor:
    """Scales (rows, groups) on their grid for given steps (rows, columns), integers less zero points, in fp32."""
    rows, columns = steps.shape
    groups = scales.shape[1]
    grouped = hessian.view(columns, groups, -1)
    parts = []
    for chunk in torch.arange(rows).split(max(1, _BYTES_AT_ONCE // (4 * columns * groups))):
        step = steps[chunk].view(len(chunk), groups, -1)
        through = torch.einsum("xgc,rgc->rxg", grouped, step)  # H times each group's steps
        normal = torch.einsum("rgc,rgch->rgh", step, through.view(len(chunk), groups, -1, groups)).double()
        target = torch.einsum("rxg,rx->rg", through, weight[chunk]).double()
        ridge = 1e-5 * normal.diagonal(dim1=1, dim2=2).clamp_min(1e-12)
        parts.append(torch.linalg.solve(normal + torch.diag_embed(ridge), target).float())
    solved = torch.cat(parts)
    near = (solved > NARROWEST * scales) & (solved < WIDEST * scales)
    return on_scale_grid(torch.where(near, solved, scales))


def descend(
    integers: Tensor, zeros: Tensor, scales: Tensor, weight: Tensor, hessian: Tensor, low: int, high: int
) -> Tensor:
    """Integers (rows, columns), as floats, after some passes over the columns. Nothing is done in place."""
    columns, size = weight.shape[1], weight.shape[1] // scales.shape[1]
    scale, zero = (part.repeat_interleave(size, 1).T.contiguous() for part in (scales, zeros))
    now = integers.T.contiguous()
    slope = hessian @ (weight.T - (now - zero) * scale)  # half the objective's negative gradient, (columns, rows)
    diagonal = hessian.diagonal()
    for _ in range(PASSES):
        for start in range(0, columns, BLOCK):
            block = slice(start, min(start + BLOCK, columns))
            moved = torch.zeros_like(now[block])
            local = slope[block].clone()
            for index in range(start, block.stop):
                best = (now[index] + local[index - start] / (diagonal[index] * scale[index])).round_().clamp_(low, high)
                moved[index - start] = (best - now[index]) * scale[index]
                now[index] = best
                local.addr_(hessian[block, index], moved[index - start], alpha=-1)
            slope.addmm_(hessian[:, block], moved, alpha=-1)
    return now.T.contiguous()
