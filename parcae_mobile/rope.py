"""The table of rotary position embedding: computed, or as a checkpoint saved it.

    rope_table(config)                                 # (positions, head size / 2, 2) cosines and sines
    note = make_exact(model)                           # a saved table that 16-bit rounding left is no rotation

The original saves its table with the weights and computes with what it loads, so a saved table is used as it is. A
16-bit checkpoint rounds it to something that is no rotation: it changes the length of what it turns. The exported
graphs normalise queries and keys before they turn them, which is the same only for a rotation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .config import ParcaeConfig

if TYPE_CHECKING:
    from .model import Parcae

ROTATION_ERROR = 1e-5  # how far cos^2 + sin^2 may be from 1: fp32 gives 1e-7, bf16 5e-3, fp16 5e-4


def rope_table(config: ParcaeConfig) -> Tensor:
    """(positions, head size / 2, 2) cosines and sines in fp32 of position / condense ratio * base^(-2i / head size)."""
    rope, size = config.rope_settings, config.head_size
    length = config.randomize_positions_from or config.block_size
    if torch.get_default_device().type == "meta":  # a shape is all there is, and computing it would import a compiler
        return torch.empty(length, (size + 1) // 2, 2)
    frequencies = 1.0 / (rope.rope_base ** (torch.arange(0, size, 2, dtype=torch.float32) / size))
    angles = torch.outer(torch.arange(length, dtype=torch.float32) / rope.rope_condense_ratio, frequencies)
    return torch.stack([angles.cos(), angles.sin()], -1)


def is_rotation(table: Tensor) -> bool:
    """Whether every pair of a (positions, pairs, 2) table has length 1."""
    return bool((table.square().sum(-1) - 1).abs().max() <= ROTATION_ERROR)


def rounded_from(table: Tensor, exact: Tensor) -> bool:
    """Whether `table` is `exact` rounded to bf16 or fp16."""
    return any(torch.equal(exact.to(kind).float(), table) for kind in (torch.bfloat16, torch.float16))


def make_exact(model: Parcae) -> str | None:
    """Replace a table that is no rotation by the one that it was rounded from; returns what was done, if anything.

    Only where queries and keys are normalised: without that any table can be exported as it is.
    """
    config = model.config
    if not config.rope_settings.use_rope or not config.qk_norm or is_rotation(model.rope):
        return None
    computed = rope_table(config).to(model.rope.device)
    if rounded_from(model.rope, computed):
        model.rope = computed
        return "the saved RoPE table is a 16-bit rounding of the computed one, which is exported in its place"
    model.rope = model.rope / model.rope.square().sum(-1, keepdim=True).sqrt()
    return "the saved RoPE table is no rotation (16-bit rounding?): each of its pairs is exported with length 1"
