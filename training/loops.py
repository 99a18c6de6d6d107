"""The loss of a batch whose sequences loop each their own number of times.

Counts are Poisson draws around the mean recurrence; only the last few loops carry gradients. Sequences are ordered by
their count, so those that loop less simply join later: no loop is computed for a sequence that does not need it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from parcae_mobile.model import Parcae

from .shape import state_deviation, truncated_normal


class Stages(NamedTuple):
    """The model's three stages as functions, compiled or not."""

    prelude: Callable[..., Any]
    recur: Callable[..., Any]
    coda: Callable[..., Any]

    @classmethod
    def of(cls, model: Parcae, compiled: bool = False) -> Stages:
        """Compiled once for all batch and text lengths; the model itself stays eager, for evaluation."""
        plain = cls(model.prelude, model.recur, model.coda)
        return cls(*(torch.compile(stage, dynamic=True) for stage in plain)) if compiled else plain


def draw_loops(batch: int, mean: int, generator: torch.Generator) -> Tensor:
    """int64 (batch,), descending: Poisson around `mean`, at least 1, at most four times the mean."""
    counts = torch.poisson(torch.full((batch,), float(mean)), generator=generator)
    return counts.clamp(1, 4 * mean).to(torch.int64).sort(descending=True).values


def draw_state(model: Parcae, batch: int, length: int, generator: torch.Generator) -> Tensor:
    """The original's `like-init` first state (batch, sequence, state width) on the CPU."""
    width = model.config.recurrent_embedding_dimension
    return truncated_normal((batch, length, width), state_deviation(model.config), generator)


def looped_loss(
    model: Parcae, stages: Stages, text: Tensor, counts: Tensor, state: Tensor, depth: int, half: bool
) -> Tensor:
    """Mean cross-entropy in nats of (batch, sequence + 1) int64 ids.

    `counts` (batch,) is descending, `state` the first state, `depth` the loops that carry gradients; with `half`,
    matrix products are in bf16.
    """
    ids, targets = text[:, :-1], text[:, 1:]
    device = text.device.type
    most = int(counts[0])
    active = [int((counts >= most - loop).sum()) for loop in range(most)]
    # Three autocast regions: weights cast where gradients are off must not be reused from its cache where they are on.
    with torch.autocast(device, torch.bfloat16, enabled=half):
        injected, values = stages.prelude(ids, model.slots("prelude", ids))

    def advance(state: Tensor, rows: int) -> Tensor:
        part = [None if value is None else value[:rows] for value in values]
        new = stages.recur(state[:rows], injected[:rows], part, model.slots("core_block", ids))
        return new if rows == len(state) else torch.cat([new, state[rows:]])

    with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=half):
        for rows in active[: max(most - depth, 0)]:
            state = advance(state, rows)
    with torch.autocast(device, torch.bfloat16, enabled=half):
        for rows in active[max(most - depth, 0) :]:
            state = advance(state, rows)
        logits = stages.coda(state, ids, model.slots("coda", ids))
    return F.cross_entropy(logits.flatten(0, 1), targets.reshape(-1))


@torch.no_grad()
def windows_loss(model: Parcae, windows: Tensor, loops: int) -> float:
    """Mean cross-entropy in nats of (batch, sequence + 1) ids from the zero state, in fp32."""
    logits = model(windows[:, :-1], loops)
    return F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].reshape(-1)).item()
