"""Cached attention in standard ONNX operators, for the portable flavour.

    attention = PortableAttention(nodes, growing=False)    # one for each stage
    rows, present_key, present_value = attention.lower(node)

Queries and keys are rotated, the chunk's keys and values join the cache, and softmax(q k^T / sqrt(size)) v is spelled
out with a causal mask. What all layers of a stage share (mask, rotation, positions) is made once per stage.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from export.targets.onnx.nodes import StageNodes


class PortableAttention:
    """Attention of the layers of one stage, whose nodes go to `nodes`.

    With `growing` caches a present is its past with the chunk appended, with `chunks_only` as well the chunk alone;
    otherwise the chunk is written at its positions of the past.
    """

    def __init__(self, nodes: StageNodes, growing: bool = False, chunks_only: bool = False) -> None:
        self.nodes, self.growing, self.chunks_only = nodes, growing, chunks_only
        self._shared: dict[str, str] = {}  # values that all layers of the stage use

    def lower(self, node: Any) -> list[str]:
        """`parcae::cached_attention` (see `export/stages.py` for its contract) as nodes."""
        query, key, value, past_key, past_value, total, rope = node.args
        nodes, (heads, size), kv_heads = self.nodes, query.meta["val"].shape[2:], key.meta["val"].shape[2]
        self._share(nodes.operand(query), nodes.operand(total), heads // kv_heads)
        q, k = (nodes.operand(t) if rope is None else self._rotate(nodes.operand(t), rope, size) for t in (query, key))
        q, k, v = (nodes.emit("Transpose", [t], perm=[0, 2, 1, 3]) for t in (q, k, nodes.operand(value)))
        present_key, present_value = (
            self._append(nodes.operand(past), chunk, kv_heads) for past, chunk in ((past_key, k), (past_value, v))
        )
        keys, values = (present if self.growing else self._filled(present) for present in (present_key, present_value))
        scaled = nodes.emit("Mul", [q, nodes.constant(np.array(size**-0.5, np.float32))])
        if heads != kv_heads:  # queries of one group lie below each other
            scaled = nodes.reshape(scaled, [1, kv_heads, -1, size])
        scores = nodes.emit("MatMul", [scaled, nodes.emit("Transpose", [keys], perm=[0, 1, 3, 2])])
        masked = nodes.emit("Add", [scores, self._shared[f"mask.{heads // kv_heads}"]])
        out = nodes.emit("MatMul", [nodes.emit("Softmax", [masked], axis=-1), values])
        if heads != kv_heads:
            out = nodes.reshape(out, [1, heads, -1, size])
        rows = nodes.reshape(nodes.emit("Transpose", [out], perm=[0, 2, 1, 3]), [1, -1, heads * size])
        return [rows, k, v] if self.chunks_only else [rows, present_key, present_value]

    def _share(self, query: str, total: str, group: int) -> None:
        """Positions of the chunk and of all tokens; the mask (chunk x group, tokens), 0 where a query sees a key."""
        nodes, shared = self.nodes, self._shared
        zero, one = (nodes.constant(np.array(value, np.int64)) for value in (0, 1))
        if "positions" not in shared:
            shared["total"] = nodes.emit("Cast", [total], to=TensorProto.INT64)
            length = nodes.emit("Gather", [nodes.emit("Shape", [query]), one], axis=0)
            shared["past"] = nodes.emit("Sub", [shared["total"], length])
            shared["positions"] = nodes.emit("Range", [shared["past"], shared["total"], one])
            tokens = nodes.emit("Range", [zero, shared["total"], one])
            seen = nodes.emit("LessOrEqual", [tokens, nodes.reshape(shared["positions"], [-1, 1])])
            visible, hidden = (nodes.constant(np.array(value, np.float32)) for value in (0, -np.inf))
            shared["mask.1"] = nodes.emit("Where", [seen, visible, hidden])
        if f"mask.{group}" not in shared:
            shared[f"mask.{group}"] = nodes.emit("Concat", [shared["mask.1"]] * group, axis=0)

    def _rotate(self, x: str, rope: Any, size: int) -> str:
        """Rotate adjacent pairs of (1, S, heads, size): x * cos + swapped(x) * (-sin, sin)."""
        nodes, shared = self.nodes, self._shared
        if "cosines" not in shared:
            tables = nodes.weight(rope, _cosines, ".cosines"), nodes.weight(rope, _signed_sines, ".sines")
            shared["cosines"], shared["sines"] = (
                nodes.emit("Gather", [table, shared["positions"]], axis=0) for table in tables
            )
        swap = nodes.constant(np.arange(size, dtype=np.int64) ^ 1, f"swap.{size}")
        swapped = nodes.emit("Gather", [x, swap], axis=3)
        turned = nodes.emit("Mul", [x, shared["cosines"]]), nodes.emit("Mul", [swapped, shared["sines"]])
        return nodes.emit("Add", [*turned])

    def _append(self, past: str, chunk: str, heads: int) -> str:
        """A cache (1, heads, tokens, size) with the chunk appended, or written at its positions."""
        nodes, shared, places = self.nodes, self._shared, f"places.{heads}"
        if self.growing:
            return nodes.emit("Concat", [past, chunk], axis=2)
        if places not in shared:
            shared[places] = cache_places(nodes, shared["positions"], heads)
        return nodes.emit("ScatterND", [past, shared[places], chunk])

    def _filled(self, present: str) -> str:
        """The tokens that a cache holds."""
        start, axis = (self.nodes.constant(np.array([value], np.int64)) for value in (0, 2))
        return self.nodes.emit("Slice", [present, start, self.nodes.reshape(self._shared["total"], [1]), axis])


def cache_places(nodes: StageNodes, positions: str, heads: int) -> str:
    """(1, heads, S, 3) int64: where in a cache (1, heads, tokens, size) the chunk at `positions` (S) lies."""
    grid = np.stack([np.zeros(heads, np.int64), np.arange(heads)], axis=-1).reshape(1, heads, 1, 2)
    rows = nodes.reshape(positions, [1, 1, -1, 1])
    count = nodes.emit("Shape", [positions])
    sizes = [nodes.constant(np.array([value], np.int64)) for value in (1, heads, 2)]
    layout = nodes.emit("Concat", [sizes[0], sizes[1], count, sizes[2]], axis=0)
    which = nodes.emit("Expand", [nodes.constant(grid, f"heads.{heads}"), layout])
    layout = nodes.emit("Concat", [sizes[0], sizes[1], count, sizes[0]], axis=0)
    places: str = nodes.emit("Concat", [which, nodes.emit("Expand", [rows, layout])], axis=3)
    return places


def _cosines(table: np.ndarray) -> np.ndarray:
    """(positions, pairs, 2) -> (positions, 1, size)."""
    return np.repeat(table[..., 0], 2, axis=1)[:, None]


def _signed_sines(table: np.ndarray) -> np.ndarray:
    return np.stack([-table[..., 1], table[..., 1]], axis=-1).reshape(len(table), 1, -1)
