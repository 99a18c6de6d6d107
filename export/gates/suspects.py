"""Which matrices a remainder may lean towards, by derivatives: a pass of the model for all of them, not for each.

    first = first_look(model, ids, left, loops, size=0.01)
    first["lm_head.weight"].along, first["lm_head.weight"].size     # (texts,) each

A matrix that is `size` larger changes the logits by `size` times their derivative by a factor on what the matrix gives.
One backward pass gives the product of a fixed direction with all those derivatives: of the remainder itself, which is
what a projection needs, and of random signs, whose mean square is the squared length of each derivative (Hutchinson's
estimate). Only what may lean by these figures has to be tried, which takes a pass of its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from parcae_mobile.model import Parcae

SIGNS = 32  # random directions, of all texts together: a length is known to a quarter
SEED = 21


@dataclass(frozen=True)
class Look:
    """By text (n,): the remainder's product with a fault's change, and the estimated square of that change."""

    along: Tensor
    size: Tensor


def first_look(model: Parcae, ids: Tensor, left: Tensor, loops: int, size: float) -> dict[str, Look]:
    """A look at each matrix that is a layer's weight, by its name.

    `ids` (texts, length) int64, `left` (texts, length, vocabulary); the fault is a matrix `size` larger. Text by text,
    because what a pass keeps for its derivatives is several times its result.
    """
    generator, signs = torch.Generator().manual_seed(SEED), -(-SIGNS // len(ids))
    rows: dict[str, list[tuple[float, float]]] = {}
    for text, remainder in zip(ids[:, None], left, strict=True):
        with torch.enable_grad(), _factors(model) as factors:
            logits = model(text, loops)[0]
            leaves = list(factors.values())
            ask = partial(torch.autograd.grad, logits, leaves, retain_graph=True, materialize_grads=True)
            along = torch.stack(ask(remainder)) * size
            random = (torch.randint(0, 2, logits.shape, generator=generator).float() * 2 - 1 for _ in range(signs))
            square = torch.stack([torch.stack(ask(sign)) for sign in random]).square().mean(0) * size**2
        for name, products in zip(factors, zip(along.tolist(), square.tolist(), strict=True), strict=True):
            rows.setdefault(name, []).append(products)
    return {name: Look(*torch.tensor(pairs, dtype=torch.float64).T) for name, pairs in rows.items()}


@contextlib.contextmanager
def _factors(model: Parcae) -> Iterator[dict[str, Tensor]]:
    """By a matrix's name by how much what it gives is larger: zero, and what derivatives are taken by."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    factors: dict[str, Tensor] = {}
    hooks = []
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):  # a tied table is in two of them
            factor = factors.setdefault(names[id(module.weight)], torch.zeros((), requires_grad=True))
            hooks.append(module.register_forward_hook(partial(_larger, factor)))
    try:
        yield factors
    finally:
        for hook in hooks:
            hook.remove()


def _larger(factor: Tensor, module: Any, inputs: Any, result: Tensor) -> Tensor:
    bias = getattr(module, "bias", None)
    return result + factor * (result if bias is None else result - bias)
