"""Attention over caches that are Core ML states: rotate, write the chunk's keys and values, attend to the past.

`keyCache` and `valueCache` hold (slots, parts, heads, context, head size) in fp16, which states have to be; a slot is
one (loop, layer) pair in the order in which a token passes them. An fp16 cache has one part. An fp32 cache has two: a
value rounded to fp16, and what the rounding left times 2^11, which is no larger than the first and seldom subnormal.
Together they hold 22 bits of a value, two less than fp32.
A state is read once, and each update's result is what the next layer reads. Were it read anew, `remove_redundant_ops`,
which is in coremltools' default pipeline, would merge the reads, and one layer's update would undo another's.
Causality and positions are made in the graph, because a client's mask cannot be trusted with them (swift-transformers
passes zeros).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from export.targets.coreml.builder import FLOATS, MilWriter, Var, int32, join, pair_rotation
from parcae_mobile.model import Parcae
from parcae_mobile.stage_names import LAYER_GROUPS

MASKED = -30000.0  # fp16 holds it, and exp of it is zero
PARTS = {"fp16": 1, "fp32": 2}  # states of a cache by its type
RESIDUE_SCALE = 2.0**11  # half a unit in fp16's last place is 2^-11 of a value


class Caches:
    """The two states within one function, and what all of its layers share: positions, mask, rotation.

    `start` (1,) int32 is the chunk's first position, `length` its tokens. With a `length` that is a number all shapes
    are static and attention reads the whole context behind a mask; with a (1,) int32 value it reads what is filled.
    """

    def __init__(
        self, writer: MilWriter, model: Parcae, context: int, states: tuple[Var, Var], start: Var, length: Var | int
    ) -> None:
        self.writer, self.context, self.states, self.start = writer, context, states, start
        self.current: list[Var] = []  # keys and values as they are now; within a loop's body, its loop variables
        self.parts = states[0].shape[1]
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
        keys, values = (self._append(which, chunk, slot, kv_heads, size) for which, chunk in enumerate((key, value)))
        if heads != kv_heads:
            keys, values = (self._repeat(x, heads // kv_heads, size) for x in (keys, values))
        out = op("scaled_dot_product_attention", query=query, key=keys, value=values, attn_mask=self.mask)
        out = op("transpose", x=out, perm=int32(0, 2, 1, 3))
        return op("reshape", x=out, shape=int32(1, -1, heads * size))

    def _rotate(self, x: Var) -> Var:
        op = self.writer.op
        turned = op("matmul", x=x, y=self.turn)
        return op("add", x=op("mul", x=x, y=self.cos), y=op("mul", x=turned, y=self.sin))

    def read(self) -> list[Var]:
        """Keys and values as they are now: the one read of each state, or what the last update gave."""
        if not self.current:
            self.current = [self.writer.op("read_state", input=state) for state in self.states]
        return self.current

    def _append(self, which: int, chunk: Var, slot: int | Var, heads: int, size: int) -> Var:
        """Write a chunk (1, heads, chunk, size) into a state's slot; returns (1, heads, positions, size) to read."""
        writer, op, parts = self.writer, self.writer.op, self.parts
        stop = slot + 1 if isinstance(slot, int) else op("add", x=slot, y=int32(1))
        updated = op(
            "slice_update",
            x=self.read()[which],
            update=self._split(chunk),
            begin=join(writer, [slot, 0, 0, self.start, 0]),
            end=join(writer, [stop, parts, heads, self.end, size]),
        )
        whole = self.current[which] = op("coreml_update_state", state=self.states[which], value=updated)
        of_slot = op("slice_by_size", x=whole, begin=join(writer, [slot, 0, 0, 0, 0]),
                     size=int32(1, parts, heads, self.context, size))  # fmt: skip
        if not self.static:
            of_slot = op(
                "slice_by_index", x=of_slot, begin=int32(0, 0, 0, 0, 0),
                end=join(writer, [1, parts, heads, self.end, size]),
                begin_mask=[True] * 5, end_mask=[True, True, True, False, True],
            )  # fmt: skip
        return self._joined(of_slot)

    def _split(self, chunk: Var) -> Var:
        """(1, heads, chunk, size) -> (1, parts, heads, chunk, size) in fp16."""
        writer, op = self.writer, self.writer.op
        rounded = writer.cast(chunk, "fp16")
        if self.parts == 1:
            return op("expand_dims", x=rounded, axes=int32(0))
        left = op("sub", x=writer.wide(chunk), y=writer.wide(rounded))
        residue = writer.cast(op("mul", x=left, y=np.float32(RESIDUE_SCALE)), "fp16")
        return op("stack", values=[rounded, residue], axis=1)

    def _joined(self, stored: Var) -> Var:
        """(1, parts, heads, positions, size) in fp16 -> (1, heads, positions, size) in the compute type."""
        writer, op = self.writer, self.writer.op
        if self.parts == 1:
            return writer.narrow(op("squeeze", x=stored, axes=int32(0)))
        weights = np.array([1, 1 / RESIDUE_SCALE], np.float32).reshape(1, 2, 1, 1, 1)
        weighted = op("mul", x=writer.wide(stored), y=writer.constant("cache.parts", weights))
        return writer.narrow(op("reduce_sum", x=weighted, axes=int32(1), keep_dims=False))

    def _repeat(self, x: Var, times: int, size: int) -> Var:
        op, heads = self.writer.op, x.shape[1]
        tiled = op("tile", x=op("expand_dims", x=x, axes=int32(2)), reps=int32(1, 1, times, 1, 1))
        return op("reshape", x=tiled, shape=int32(1, heads * times, -1, size))


def cache_shape(model: Parcae, loop_slots: int, context: int, dtype: str) -> tuple[int, int, int, int, int]:
    """(slots, parts, heads, context, head size) of each state; layers with fewer heads or a smaller size leave room.

    `loop_slots` is how many loops have slots of their own.
    """
    layers = {name: model.transformer[name] for name in LAYER_GROUPS}
    slots = sum(len(blocks) * (loop_slots if name == "core_block" else 1) for name, blocks in layers.items())
    attention = [block.attn for blocks in layers.values() for block in blocks]
    heads, size = max(a.cached_heads for a in attention), max(a.head_size for a in attention)
    return slots, PARTS[dtype], heads, context, size
