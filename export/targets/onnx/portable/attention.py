"""Cached attention in standard ONNX operators, for the portable flavour.

Queries and keys are rotated, the chunk's keys and values join the cache, and softmax(q k^T / sqrt(size)) v is spelled
out with a causal mask. What all layers of a stage share (mask, rotation, positions) is made once per stage.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto

from parcae_mobile.errors import ToolMissingError

if TYPE_CHECKING:
    from export.targets.onnx.portable.lowering import PortableLowering


def cached_attention(low: PortableLowering, node: Any) -> list[str]:
    """`parcae::cached_attention` (see `export/stages.py` for its contract) as nodes."""
    query, key, value, past_key, past_value, total, rope = node.args
    if low.kv_scales is not None:
        raise ToolMissingError("--portable has no int8 cache: standard attention cannot read it; use --kv-dtype fp32")
    heads, size = query.meta["val"].shape[2:]
    kv_heads = key.meta["val"].shape[2]
    _share(low, low.operand(query), low.operand(total), heads // kv_heads)
    q, k = (low.operand(t) if rope is None else _rotate(low, low.operand(t), rope, size) for t in (query, key))
    q, k, v = (low.emit("Transpose", [t], perm=[0, 2, 1, 3]) for t in (q, k, low.operand(value)))
    present_key, present_value = (
        _append(low, low.operand(past), chunk, kv_heads) for past, chunk in ((past_key, k), (past_value, v))
    )
    keys, values = (present if low.growing else _filled(low, present) for present in (present_key, present_value))
    scaled = low.emit("Mul", [q, low.constant(np.array(size**-0.5, np.float32))])
    if heads != kv_heads:  # queries of one group lie below each other
        scaled = low.reshape(scaled, [1, kv_heads, -1, size])
    scores = low.emit("MatMul", [scaled, low.emit("Transpose", [keys], perm=[0, 1, 3, 2])])
    masked = low.emit("Add", [scores, low.shared[f"mask.{heads // kv_heads}"]])
    out = low.emit("MatMul", [low.emit("Softmax", [masked], axis=-1), values])
    if heads != kv_heads:
        out = low.reshape(out, [1, heads, -1, size])
    rows = low.reshape(low.emit("Transpose", [out], perm=[0, 2, 1, 3]), [1, -1, heads * size])
    return [rows, k, v] if low.chunks_only else [rows, present_key, present_value]


def _share(low: PortableLowering, query: str, total: str, group: int) -> None:
    """Positions of the chunk and of all tokens, and the mask (chunk x group, tokens): 0 where a query sees a key."""
    shared, zero, one = low.shared, *(low.constant(np.array(value, np.int64)) for value in (0, 1))
    if "positions" not in shared:
        shared["total"] = low.emit("Cast", [total], to=TensorProto.INT64)
        length = low.emit("Gather", [low.emit("Shape", [query]), one], axis=0)
        shared["past"] = low.emit("Sub", [shared["total"], length])
        shared["positions"] = low.emit("Range", [shared["past"], shared["total"], one])
        tokens = low.emit("Range", [zero, shared["total"], one])
        seen = low.emit("LessOrEqual", [tokens, low.reshape(shared["positions"], [-1, 1])])
        visible, hidden = (low.constant(np.array(value, np.float32)) for value in (0, -np.inf))
        shared["mask.1"] = low.emit("Where", [seen, visible, hidden])
    if f"mask.{group}" not in shared:
        shared[f"mask.{group}"] = low.emit("Concat", [shared["mask.1"]] * group, axis=0)


def _rotate(low: PortableLowering, x: str, rope: Any, size: int) -> str:
    """Rotate adjacent pairs of (1, S, heads, size): x * cos + swapped(x) * (-sin, sin)."""
    if "cosines" not in low.shared:
        tables = low.weight(rope, _cosines, ".cosines"), low.weight(rope, _signed_sines, ".sines")
        low.shared["cosines"], low.shared["sines"] = (
            low.emit("Gather", [table, low.shared["positions"]], axis=0) for table in tables
        )
    swap = low.constant(np.arange(size, dtype=np.int64) ^ 1, f"swap.{size}")
    swapped = low.emit("Gather", [x, swap], axis=3)
    return low.emit(
        "Add", [low.emit("Mul", [x, low.shared["cosines"]]), low.emit("Mul", [swapped, low.shared["sines"]])]
    )


def _cosines(table: np.ndarray) -> np.ndarray:
    """(positions, pairs, 2) -> (positions, 1, size)."""
    return np.repeat(table[..., 0], 2, axis=1)[:, None]


def _signed_sines(table: np.ndarray) -> np.ndarray:
    return np.stack([-table[..., 1], table[..., 1]], axis=-1).reshape(len(table), 1, -1)


def _append(low: PortableLowering, past: str, chunk: str, heads: int) -> str:
    """A cache (1, heads, tokens, size) with the chunk appended, or written at its positions."""
    if low.growing:
        return low.emit("Concat", [past, chunk], axis=2)
    places = f"places.{heads}"
    if places not in low.shared:
        grid = np.stack([np.zeros(heads, np.int64), np.arange(heads)], axis=-1).reshape(1, heads, 1, 2)
        positions = low.reshape(low.shared["positions"], [1, 1, -1, 1])
        count = low.emit("Shape", [low.shared["positions"]])
        sizes = [low.constant(np.array([value], np.int64)) for value in (1, heads, 2)]
        layout = low.emit("Concat", [sizes[0], sizes[1], count, sizes[2]], axis=0)
        which = low.emit("Expand", [low.constant(grid, f"heads.{heads}"), layout])
        layout = low.emit("Concat", [sizes[0], sizes[1], count, sizes[0]], axis=0)
        low.shared[places] = low.emit("Concat", [which, low.emit("Expand", [positions, layout])], axis=3)
    return low.emit("ScatterND", [past, low.shared[places], chunk])


def _filled(low: PortableLowering, present: str) -> str:
    """The tokens that a cache holds."""
    start, axis = (low.constant(np.array([value], np.int64)) for value in (0, 2))
    return low.emit("Slice", [present, start, low.reshape(low.shared["total"], [1]), axis])
