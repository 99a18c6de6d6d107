"""Cached attention as onnxruntime's `GroupQueryAttention`, which rotates, appends to the cache in place and attends.

Heads of a size that it does not take are padded with zeros (`shapes.py`), in the graph and in the caches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from export.targets.onnx.shapes import padded_head

if TYPE_CHECKING:
    from export.targets.onnx.lowering import StageLowering

MS = "com.microsoft"


def cached_attention(low: StageLowering, node: Any) -> list[str]:
    """`parcae::cached_attention` (see `export/stages.py` for its contract) as `GroupQueryAttention`."""
    query, key, value, past_key, past_value, total, rope = node.args
    heads, size = node.args[0].meta["val"].shape[2:]
    kv_heads = node.args[1].meta["val"].shape[2]
    total = low.operand(total)
    if low.total_less_one is None:
        less = low.emit("Sub", [total, low.constant(np.array(1, np.int32))])
        low.total_less_one = low.reshape(less, [1])
    kept = padded_head(size, rope is not None)
    flat = [_heads(low, t, n, size, kept) for t, n in ((query, heads), (key, kv_heads), (value, kv_heads))]
    rotary = []
    if rope is not None:
        half = ((0, 0), (0, (kept - size) // 2))
        rotary = [
            low.weight(rope, lambda table: np.pad(table[..., 0], half, constant_values=1.0), ".cos"),
            low.weight(rope, lambda table: np.pad(table[..., 1], half), ".sin"),
        ]
    inputs = [*flat, low.operand(past_key), low.operand(past_value), low.total_less_one, total, *rotary]
    cache: dict[str, Any] = {} if kept == size else {"scale": size**-0.5}
    if low.kv_scales is not None:
        scales = [low.constant(np.array([scale], np.float32)) for scale in next(low.kv_scales)]
        inputs += [""] * (12 - len(inputs)) + scales
        cache |= {"kv_cache_bit_width": 8, "k_quant_type": "PER_TENSOR", "v_quant_type": "PER_TENSOR"}
    out, *present = low.emit(
        "GroupQueryAttention",
        inputs,
        outputs=3,
        domain=MS,
        num_heads=heads,
        kv_num_heads=kv_heads,
        do_rotary=int(rope is not None),
        rotary_interleaved=int(rope is not None),
        **cache,
    )
    if kept != size:
        out = low.reshape(low.cut(low.reshape(out, [1, -1, heads, kept]), 3, size), [1, -1, heads * size])
    return [out, *present]


def _heads(low: StageLowering, node: Any, count: int, size: int, kept: int) -> str:
    """(1, S, count, size) as (1, S, count * kept), with zeros behind the channels of each head."""
    value = low.operand(node)
    if kept == size:
        return value if value in low.flat else low.reshape(value, [1, -1, count * size])
    pads = [low.constant(np.array(sizes, np.int64)) for sizes in ([0, kept - size], [3])]
    padded = low.emit("Pad", [low.reshape(value, [1, -1, count, size]), pads[0], "", pads[1]])
    return low.reshape(padded, [1, -1, count * kept])
