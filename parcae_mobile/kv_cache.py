"""Keys and values of past tokens, one slot for each (loop, layer) pair that the policy keeps apart.

A layer does not know where its past is kept: it hands queries, keys and values, not yet rotated or normalised, to a
*slot*, and the slot does that, stores and attends. `FullSequence` has no past; `KVCache` keeps one in preallocated
tensors; an export target brings a slot of its own. Cache policies are a map from loop to slot: because a chunk's own
entries are overwritten before they are read, within a chunk a token sees the keys of the same loop, and of the past the
policy's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from .config import ParcaeConfig
from .errors import PromptTooLongError, UsageError
from .loops import KV_POLICIES, policy_slots
from .stage_names import LAYER_GROUPS

CacheScales = dict[str, list[tuple[float, float]]]  # by stage: the int8 scales of each layer's keys and values
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "int8": torch.int8}


@dataclass(frozen=True)
class CacheSpec:
    """The cache's contract: policy, type, and the scales of an int8 cache."""

    policy: str = "full"
    dtype: str = "fp32"
    scales: CacheScales | None = None

    def make(self, config: ParcaeConfig, max_loops: int, context: int, batch: int = 1) -> KVCache:
        """An empty eager cache of this kind."""
        return KVCache(
            config,
            max_loops,
            batch=batch,
            context=context,
            dtype=DTYPES[self.dtype],
            policy=self.policy,
            scales=self.scales,
        )


class Slot(Protocol):
    """Where one layer's keys and values go."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, normalise: bool) -> Tensor:
        """(batch, sequence, heads, head size) before RoPE and QK-norm -> (batch, sequence, heads * head size)."""
        ...


def rotate(x: Tensor, rope: Tensor) -> Tensor:
    """Rotate adjacent pairs of (batch, sequence, heads, head size) by a (sequence, head size / 2, 2) cos-sin table."""
    pairs = x.unflatten(-1, (-1, 2))
    cos, sin = rope[None, :, None, :, 0], rope[None, :, None, :, 1]
    real = pairs[..., 0] * cos - pairs[..., 1] * sin
    imaginary = pairs[..., 1] * cos + pairs[..., 0] * sin
    return torch.stack([real, imaginary], -1).flatten(-2)


def place(x: Tensor, rope: Tensor | None, normalise: bool) -> Tensor:
    """RoPE, then QK-norm (no weight, machine epsilon), in the original's order. The two commute up to rounding."""
    if rope is not None:
        x = rotate(x.float(), rope).to(x.dtype)
    return F.rms_norm(x, (x.shape[-1],)) if normalise else x


class FullSequence:
    """A slot without a past: the whole text is given at once and attended causally."""

    def __init__(self, rope: Tensor | None) -> None:
        self.rope = rope

    def attend(self, query: Tensor, key: Tensor, value: Tensor, normalise: bool) -> Tensor:
        query, key = place(query, self.rope, normalise), place(key, self.rope, normalise)
        q, k, v = (t.transpose(1, 2) for t in (query, key, value))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1])
        return out.transpose(1, 2).flatten(2)


def store(x: Tensor, dtype: torch.dtype, scale: float | None) -> Tensor:
    """Keys or values in the cache's type; with a scale as int8, rounded to nearest and clipped."""
    return x.to(dtype) if scale is None else (x / scale).round().clamp(-128, 127).to(dtype)


def fetch(x: Tensor, dtype: torch.dtype, scale: float | None) -> Tensor:
    """The inverse of `store`."""
    return x.to(dtype) if scale is None else x.to(dtype) * scale


class CacheSlot:
    """One slot of a `KVCache` for one layer during one chunk of tokens."""

    def __init__(
        self,
        keys: Tensor,
        values: Tensor,
        past: int,
        rope: Tensor | None,
        scales: tuple[float, float] | None = None,
    ) -> None:
        self.keys, self.values, self.past, self.rope, self.scales = keys, values, past, rope, scales

    def attend(self, query: Tensor, key: Tensor, value: Tensor, normalise: bool) -> Tensor:
        length = query.shape[1]
        total = self.past + length
        query, key = place(query, self.rope, normalise), place(key, self.rope, normalise)
        key_scale, value_scale = self.scales or (None, None)
        self.keys[:, :, self.past : total] = store(key.transpose(1, 2), self.keys.dtype, key_scale)
        self.values[:, :, self.past : total] = store(value.transpose(1, 2), self.values.dtype, value_scale)
        q = query.transpose(1, 2)
        k = fetch(self.keys[:, :, :total], q.dtype, key_scale)
        v = fetch(self.values[:, :, :total], q.dtype, value_scale)
        mask = None
        if length > 1:
            positions = torch.arange(total, device=q.device)
            mask = positions[None, :] <= positions[self.past :, None]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=q.shape[1] != k.shape[1])
        return out.transpose(1, 2).flatten(2)


class KVCache:
    """Preallocated keys and values of up to `context` tokens for up to `max_loops` loops.

    Tensors have shape (slots, layers, batch, heads, context, head size) for each stage; prelude and coda have one slot.
    """

    def __init__(
        self,
        config: ParcaeConfig,
        max_loops: int,
        *,
        batch: int = 1,
        context: int | None = None,
        dtype: torch.dtype = torch.float32,
        policy: str = "full",
        device: torch.device | str = "cpu",
        scales: CacheScales | None = None,
    ) -> None:
        if policy not in KV_POLICIES:
            raise UsageError(f"unknown KV policy {policy!r}; choose one of {', '.join(KV_POLICIES)}")
        if dtype not in (torch.float32, torch.float16, torch.bfloat16) and (dtype, scales is None) != (
            torch.int8,
            False,
        ):
            raise UsageError(f"a KV cache of {dtype} is not built; choose fp32, fp16, bf16, or int8 with its scales")
        self.scales = scales
        self.config, self.max_loops, self.policy = config, max_loops, policy
        self.context = min(context or config.context, config.context)
        self.length = 0
        shapes = {
            stage: (
                self.slots if stage == "core_block" else 1,
                config.layer_count(stage),
                batch,
                config.cached_heads(stage),
                self.context,
                config.head_width(stage),
            )
            for stage in LAYER_GROUPS
        }
        self.keys = {stage: torch.zeros(shape, dtype=dtype, device=device) for stage, shape in shapes.items()}
        self.values = {stage: torch.zeros(shape, dtype=dtype, device=device) for stage, shape in shapes.items()}

    @property
    def slots(self) -> int:
        """Slots of a recurrent layer: one for each loop, or those that the policy keeps."""
        return policy_slots(self.policy, self.max_loops)

    def slot_of(self, loop: int) -> int:
        """The recurrent slot that loop `loop` (from 0) writes and reads."""
        return min(loop, self.slots - 1)

    def stage(self, stage: str, length: int, rope: Tensor | None, loop: int = 0) -> Sequence[Slot]:
        """A slot for each layer of a stage, for a chunk of `length` tokens that follow those already held."""
        if self.length + length > self.context:
            raise PromptTooLongError(
                f"{self.length} + {length} tokens do not fit the context of {self.context}; shorten the text"
            )
        index = self.slot_of(loop) if stage == "core_block" else 0
        chunk = None if rope is None else rope[self.length : self.length + length]
        layers = zip(self.keys[stage][index], self.values[stage][index], strict=True)
        scales = self.scales[stage] if self.scales is not None else [None] * len(self.keys[stage][index])
        return [CacheSlot(*pair, self.length, chunk, scale) for pair, scale in zip(layers, scales, strict=True)]

    def advance(self, length: int, loops: int) -> None:
        """Count a chunk as held, once every stage has stored it.

        Slots of loops that were not run take the keys and values of the last one, so that the next chunk may run more.
        """
        last = self.slot_of(loops - 1)
        if last + 1 < self.slots:
            for tensors in (self.keys["core_block"], self.values["core_block"]):
                chunk = tensors[..., self.length : self.length + length, :]
                chunk[last + 1 :] = chunk[last]
        self.length += length

    def written(self, loop: int, length: int = 1) -> tuple[Tensor, Tensor]:
        """Views of the keys and values that loop `loop` gave the chunk being stored.

        Each is (layers, batch, heads, length, head size).
        """
        place = (self.slot_of(loop), ..., slice(self.length, self.length + length), slice(None))
        return self.keys["core_block"][place], self.values["core_block"][place]

    @property
    def nbytes(self) -> int:
        """Bytes of all keys and values, for the full context."""
        return sum(t.nbytes for tensors in (self.keys, self.values) for t in tensors.values())
