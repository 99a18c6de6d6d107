"""Attention over caches that are Core ML states: rotate, write the chunk's keys and values, attend to the past.

`keyCache` and `valueCache` hold (slots, 1, heads, context, head size) in fp16, which states have to be; a slot is one
(loop, layer) pair in the order in which a token passes them. Causality and positions are made in the graph, because a
client's mask cannot be trusted with them (swift-transformers passes zeros).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from export.targets.coreml_builder import FLOATS, MilWriter, Var, int32, join, pair_rotation
from parcae_mobile.model import Parcae

MASKED = -30000.0  # fp16 holds it, and exp of it is zero


class Caches:
    """The two states within one function, and what all of its layers share: positions, mask, rotation.

    `start` (1,) int32 is the chunk's first position, `length` its tokens. With a `length` that is a number all shapes
    are static and attention reads the whole context behind a mask; with a (1,) int32 value it reads what is filled.
    """

    def __init__(
        self, writer: MilWriter, model: Parcae, context: int, states: tuple[Var, Var], start: Var, length: Var | int
    ) -> None:
        self.writer, self.context, self.states, self.start = writer, context, states, start
        self.static = isinstance(length, int)
        op = writer.op
        self.end = op("add", x=start, y=int32(length) if isinstance(length, int) else length)
        if isinstance(length, int):
            positions = op("add", x=writer.constant(f"places.{length}", np.arange(length, dtype=np.int32)), y=start)
            keys: Any = writer.constant(f"keys.{context}", np.arange(context, dtype=np.int32)[None])
        else:
            first, last = op("squeeze", x=start, axes=int32(0)), op("squeeze", x=self.end, axes=int32(0))
            positions = op("range_1d", start=first, end=last, step=np.int32(1))
            keys = op("expand_dims", x=op("range_1d", start=np.int32(0), end=last, step=np.int32(1)), axes=int32(0))
        later = op("greater", x=keys, y=op("expand_dims", x=positions, axes=int32(1)))
        masked = op("mul", "mask", x=writer.cast(later, writer.compute), y=FLOATS[writer.compute](MASKED))
        self.mask = op("expand_dims", "mask", x=masked, axes=int32(0, 1))
        self.cos = self.sin = self.turn = None
        if model.config.rope_settings.use_rope:
            table = model.rope[:context].repeat_interleave(2, dim=1)
            self.cos, self.sin = (
                op("expand_dims", x=self._rows(f"rope.{name}", table[..., part].numpy(), positions), axes=int32(1))
                for part, name in enumerate(("cos", "sin"))
            )
            size = table.shape[1]
            self.turn = writer.constant("rope.turn", pair_rotation(size).astype(FLOATS[writer.compute]))

    def _rows(self, name: str, table: np.ndarray, positions: Var) -> Var:
        table = self.writer.constant(name, table.astype(FLOATS[self.writer.compute]))
        return self.writer.op("gather", x=table, indices=positions, axis=0, validate_indices=False)

    def attend(self, query: Var, key: Var, value: Var, slot: int | Var, rotary: bool) -> Var:
        """(1, chunk, heads, size) each, normalised -> (1, chunk, heads * size). `slot` is a number or (1,) int32."""
        op, heads, kv_heads, size = self.writer.op, query.shape[2], key.shape[2], query.shape[3]
        if rotary:
            query, key = self._rotate(query), self._rotate(key)
        query, key, value = (op("transpose", x=x, perm=int32(0, 2, 1, 3)) for x in (query, key, value))
        keys, values = (
            self._append(state, chunk, slot, kv_heads, size)
            for state, chunk in zip(self.states, (key, value), strict=True)
        )
        if heads != kv_heads:
            keys, values = (self._repeat(x, heads // kv_heads, size) for x in (keys, values))
        out = op("scaled_dot_product_attention", query=query, key=keys, value=values, attn_mask=self.mask)
        out = op("transpose", x=out, perm=int32(0, 2, 1, 3))
        return op("reshape", x=out, shape=int32(1, -1, heads * size))

    def _rotate(self, x: Var) -> Var:
        op = self.writer.op
        turned = op("matmul", x=x, y=self.turn)
        return op("add", x=op("mul", x=x, y=self.cos), y=op("mul", x=turned, y=self.sin))

    def _append(self, state: Var, chunk: Var, slot: int | Var, heads: int, size: int) -> Var:
        """Write a chunk (1, heads, chunk, size) into the state's slot; returns (1, heads, positions, size) to read."""
        writer, op = self.writer, self.writer.op
        stop = slot + 1 if isinstance(slot, int) else op("add", x=slot, y=int32(1))
        updated = op(
            "slice_update",
            x=op("read_state", input=state),
            update=op("expand_dims", x=writer.cast(chunk, "fp16"), axes=int32(0)),
            begin=join(writer, [slot, 0, 0, self.start, 0]),
            end=join(writer, [stop, 1, heads, self.end, size]),
        )
        whole = op("coreml_update_state", state=state, value=updated)
        of_slot = op("slice_by_size", x=whole, begin=join(writer, [slot, 0, 0, 0, 0]),
                     size=int32(1, 1, heads, self.context, size))  # fmt: skip
        filled = op("squeeze", x=of_slot, axes=int32(0))
        if not self.static:
            filled = op(
                "slice_by_index", x=filled, begin=int32(0, 0, 0, 0), end=join(writer, [1, heads, self.end, size]),
                begin_mask=[True] * 4, end_mask=[True, True, False, True],
            )  # fmt: skip
        return writer.narrow(filled)

    def _repeat(self, x: Var, times: int, size: int) -> Var:
        op, heads = self.writer.op, x.shape[1]
        tiled = op("tile", x=op("expand_dims", x=x, axes=int32(2)), reps=int32(1, 1, times, 1, 1))
        return op("reshape", x=tiled, shape=int32(1, heads * times, -1, size))


def cache_shape(model: Parcae, loops: int, context: int) -> tuple[int, int, int, int, int]:
    """(slots, 1, heads, context, head size) of each state; layers with fewer heads or a smaller size leave room."""
    layers = {name: model.transformer[name] for name in ("prelude", "core_block", "coda")}
    slots = sum(len(blocks) * (loops if name == "core_block" else 1) for name, blocks in layers.items())
    attention = [block.attn for blocks in layers.values() for block in blocks]
    return slots, 1, max(a.kv_heads for a in attention), context, max(a.head_size for a in attention)


def cache_bytes(shape: tuple[int, ...]) -> int:
    """Bytes of both states."""
    return 2 * 2 * math.prod(shape)
