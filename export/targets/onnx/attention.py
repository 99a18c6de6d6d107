"""Cached attention as onnxruntime's `GroupQueryAttention`, which rotates, appends to the cache in place and attends.

    attention = FusedAttention(nodes)                      # one for each stage
    rows, present_key, present_value = attention.lower(node)

Heads of a size that it does not take are padded with zeros (`shapes.py`), in the graph and in the caches.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from export.targets.onnx.graph import MS
from export.targets.onnx.nodes import StageNodes
from export.targets.onnx.shapes import padded_head


class FusedAttention:
    """Attention of the layers of one stage, whose nodes go to `nodes`.

    `kv_scales` are an int8 cache's, of each layer's keys and values. Values in `flat` are (1, S, width) and taken as
    they are.
    """

    def __init__(self, nodes: StageNodes, kv_scales: list[tuple[float, float]] | None = None) -> None:
        self.nodes, self.flat = nodes, set[str]()
        self._int8, self._scales = kv_scales is not None, iter(kv_scales or ())
        self._total_less_one: str | None = None

    def lower(self, node: Any) -> list[str]:
        """`parcae::cached_attention` (see `export/stages.py` for its contract) as `GroupQueryAttention`."""
        query, key, value, past_key, past_value, total, rope = node.args
        nodes, (heads, size), kv_heads = self.nodes, query.meta["val"].shape[2:], key.meta["val"].shape[2]
        total = nodes.operand(total)
        if self._total_less_one is None:
            less = nodes.emit("Sub", [total, nodes.constant(np.array(1, np.int32))])
            self._total_less_one = nodes.reshape(less, [1])
        padded = padded_head(size, rope is not None)
        flat = [self._heads(t, n, size, padded) for t, n in ((query, heads), (key, kv_heads), (value, kv_heads))]
        rotary = []
        if rope is not None:
            half = ((0, 0), (0, (padded - size) // 2))
            rotary = [
                nodes.weight(rope, lambda table: np.pad(table[..., 0], half, constant_values=1.0), ".cos"),
                nodes.weight(rope, lambda table: np.pad(table[..., 1], half), ".sin"),
            ]
        pasts = [nodes.operand(past_key), nodes.operand(past_value)]
        inputs = [*flat, *pasts, self._total_less_one, total, *rotary]
        cache: dict[str, Any] = {} if padded == size else {"scale": size**-0.5}
        if self._int8:
            scales = [nodes.constant(np.array([scale], np.float32)) for scale in next(self._scales)]
            inputs += [""] * (12 - len(inputs)) + scales
            cache |= {"kv_cache_bit_width": 8, "k_quant_type": "PER_TENSOR", "v_quant_type": "PER_TENSOR"}
        out, *present = nodes.emit(
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
        if padded != size:
            out = nodes.cut(nodes.reshape(out, [1, -1, heads, padded]), 3, size)
            out = nodes.reshape(out, [1, -1, heads * size])
        return [out, *present]

    def _heads(self, node: Any, count: int, size: int, padded: int) -> str:
        """(1, S, count, size) as (1, S, count * padded), with zeros behind the channels of each head."""
        nodes, value = self.nodes, self.nodes.operand(node)
        if padded == size:
            return value if value in self.flat else nodes.reshape(value, [1, -1, count * size])
        pads = [nodes.constant(np.array(sizes, np.int64)) for sizes in ([0, padded - size], [3])]
        value = nodes.emit("Pad", [nodes.reshape(value, [1, -1, count, size]), pads[0], "", pads[1]])
        return nodes.reshape(value, [1, -1, count * padded])
