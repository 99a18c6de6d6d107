"""Cached attention as onnxruntime's `GroupQueryAttention`, which rotates, appends to the cache in place and attends.

    attention = FusedAttention(nodes)                      # one for each stage
    rows, present_key, present_value = attention.lower(node)

Heads of a size that it does not take are padded with zeros (`shapes.py`), in the graph and in the caches.

Over an int8 cache the operator widens keys and values anew for each query, which costs nothing for one and more than
half of the time for a chunk of them. So a chunk of several tokens takes another way (`If`): it is rounded and scattered
into the cache, all that the cache holds is widened once, and the operator attends in fp32. Both ways round and attend
alike; a token of its own, which is decoding, passes the same operator as before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from export.targets.onnx.graph import MS
from export.targets.onnx.nodes import StageNodes
from export.targets.onnx.portable.attention import cache_places
from export.targets.onnx.shapes import padded_head


@dataclass(frozen=True)
class _Layer:
    """What attention of one layer works on: names of values, and sizes.

    `flat` are queries, keys and values (1, S, heads * size); `rotary` the cosines and sines, or nothing; `scales` an
    int8 cache's, of keys and values, or nothing; `total_less_one` and `total` the filled positions afterwards.
    """

    heads: int
    kv_heads: int
    size: int
    flat: list[str]
    pasts: list[str]
    rotary: list[str]
    scales: list[str]
    total_less_one: str
    total: str
    scale: float | None

    @property
    def attributes(self) -> dict[str, Any]:
        """Of the operator, whatever the cache holds."""
        scale = {} if self.scale is None else {"scale": self.scale}
        return {"domain": MS, "num_heads": self.heads, "kv_num_heads": self.kv_heads, **scale}


class FusedAttention:
    """Attention of the layers of one stage, whose nodes go to `nodes`.

    `kv_scales` are an int8 cache's, of each layer's keys and values. Values in `flat` are (1, S, width) and taken as
    they are. `in_place` says that a past is a buffer with room for the chunk, which then is the present.
    """

    def __init__(
        self, nodes: StageNodes, kv_scales: list[tuple[float, float]] | None = None, in_place: bool = True
    ) -> None:
        self.nodes, self.flat = nodes, set[str]()
        self._scales, self._splits = iter(kv_scales or ()), kv_scales is not None and in_place
        self._shared: dict[str, str] = {}  # values that all layers of the stage use

    def lower(self, node: Any) -> list[str]:
        """`parcae::cached_attention` (see `export/stages.py` for its contract) as `GroupQueryAttention`."""
        query, key, value, past_key, past_value, total, rope = node.args
        nodes, (heads, size), kv_heads = self.nodes, query.meta["val"].shape[2:], key.meta["val"].shape[2]
        padded = padded_head(size, rope is not None)
        total_less_one = self._total_less_one(nodes.operand(total))
        layer = _Layer(
            heads=heads,
            kv_heads=kv_heads,
            size=padded,
            flat=[self._heads(t, n, size, padded) for t, n in ((query, heads), (key, kv_heads), (value, kv_heads))],
            pasts=[nodes.operand(past_key), nodes.operand(past_value)],
            rotary=[] if rope is None else self._rotary(rope, padded - size),
            scales=[nodes.constant(np.array([scale], np.float32)) for scale in next(self._scales, ())],
            total_less_one=total_less_one,
            total=nodes.operand(total),
            scale=None if padded == size else size**-0.5,
        )
        out, *present = self._by_length(layer) if self._splits else self._in_one(layer)
        if padded != size:
            out = nodes.cut(nodes.reshape(out, [1, -1, heads, padded]), 3, size)
            out = nodes.reshape(out, [1, -1, heads * size])
        return [out, *present]

    def _in_one(self, layer: _Layer) -> list[str]:
        """Rotation, cache and attention in one operator."""
        inputs = [*layer.flat, *layer.pasts, layer.total_less_one, layer.total, *layer.rotary]
        cache: dict[str, Any] = {}
        if layer.scales:
            inputs += [""] * (12 - len(inputs)) + layer.scales
            cache = {"kv_cache_bit_width": 8, "k_quant_type": "PER_TENSOR", "v_quant_type": "PER_TENSOR"}
        rotates = int(bool(layer.rotary))
        attributes = {**layer.attributes, "do_rotary": rotates, "rotary_interleaved": rotates, **cache}
        results: list[str] = self.nodes.emit("GroupQueryAttention", inputs, outputs=3, **attributes)
        return results

    def _by_length(self, layer: _Layer) -> list[str]:
        """One token by the operator, several by `_widened`."""
        nodes, shared = self.nodes, self._shared
        if "single" not in shared:
            shared["length"] = nodes.emit("Shape", [layer.flat[0]], start=1, end=2)
            shared["single"] = nodes.emit("Equal", [shared["length"], nodes.constant(np.array([1], np.int64))])
        name = f"attention_{len(nodes.nodes)}"
        branches = {}
        for branch, lower in (("then_branch", self._in_one), ("else_branch", self._widened)):
            with nodes.branch(f"{name}/{branch}") as inner:
                outputs = lower(layer)
            kinds = (TensorProto.FLOAT, TensorProto.INT8, TensorProto.INT8)
            infos = [helper.make_tensor_value_info(o, k, None) for o, k in zip(outputs, kinds, strict=True)]
            branches[branch] = helper.make_graph(inner, branch, [], infos)
        results: list[str] = nodes.emit("If", [shared["single"]], outputs=3, **branches)
        return results

    def _widened(self, layer: _Layer) -> list[str]:
        """A chunk over an int8 cache: rounded, scattered, and attended in fp32."""
        nodes, length = self.nodes, self._shared["length"]
        zero, one, axis = (nodes.constant(np.array([value], np.int64)) for value in (0, 1, 2))
        total = nodes.reshape(nodes.emit("Cast", [layer.total], to=TensorProto.INT64), [1])
        past = nodes.emit("Sub", [total, length])
        bounds = [nodes.emit("Squeeze", [value]) for value in (past, total, one)]
        places = cache_places(nodes, nodes.emit("Range", bounds), layer.kv_heads)
        query, key, value = layer.flat
        if layer.rotary:
            query, key = (
                nodes.emit("RotaryEmbedding", [rows, past, *layer.rotary], domain=MS, interleaved=1, num_heads=heads)
                for rows, heads in ((query, layer.heads), (key, layer.kv_heads))
            )
        chunks, filled, presents = [], [], []
        int8 = nodes.constant(np.array(0, np.int8))
        for rows, buffer, scale in zip((key, value), layer.pasts, layer.scales, strict=True):
            integers = nodes.emit("QuantizeLinear", [rows, scale, int8])
            heads = nodes.reshape(integers, [1, -1, layer.kv_heads, layer.size])
            present = nodes.emit("ScatterND", [buffer, places, nodes.emit("Transpose", [heads], perm=[0, 2, 1, 3])])
            tokens = nodes.emit("Slice", [present, zero, total, axis])
            chunks.append(nodes.emit("DequantizeLinear", [integers, scale]))
            filled.append(nodes.emit("DequantizeLinear", [tokens, scale]))
            presents.append(present)
        inputs = [query, *chunks, *filled, layer.total_less_one, layer.total]
        out = nodes.emit("GroupQueryAttention", inputs, outputs=3, do_rotary=0, **layer.attributes)[0]
        return [out, *presents]

    def _total_less_one(self, total: str) -> str:
        nodes, shared = self.nodes, self._shared
        if "total_less_one" not in shared:
            less = nodes.emit("Sub", [total, nodes.constant(np.array(1, np.int32))])
            shared["total_less_one"] = nodes.reshape(less, [1])
        return shared["total_less_one"]

    def _rotary(self, rope: Any, added: int) -> list[str]:
        """Cosines and sines (positions, half of a head); `added` channels of a padded head do not turn."""
        half = ((0, 0), (0, added // 2))
        return [
            self.nodes.weight(rope, lambda table: np.pad(table[..., 0], half, constant_values=1.0), ".cos"),
            self.nodes.weight(rope, lambda table: np.pad(table[..., 1], half), ".sin"),
        ]

    def _heads(self, node: Any, count: int, size: int, padded: int) -> str:
        """(1, S, count, size) as (1, S, count * padded), with zeros behind the channels of each head."""
        nodes, value = self.nodes, self.nodes.operand(node)
        if padded == size:
            return value if value in self.flat else nodes.reshape(value, [1, -1, count * size])
        pads = [nodes.constant(np.array(sizes, np.int64)) for sizes in ([0, padded - size], [3])]
        value = nodes.emit("Pad", [nodes.reshape(value, [1, -1, count, size]), pads[0], "", pads[1]])
        return nodes.reshape(value, [1, -1, count * padded])
