"""The static ONNX form: the loop unrolled for clients that know nothing of loops (onnxruntime-genai, Optimum).

    write_static(quantized, folder, {4: "model.onnx"}, compute="int8")                    # beside weights.data
    write_static(quantized, folder, {2: "model_T2.onnx", 8: "model.onnx"})                # one weights.data for both

The recurrent block's nodes are repeated, its initializers are not: graphs of any loop count refer to byte-identical
weights. (In the portable flavour the block is the body of a Scan, see `portable/loop.py`.) Inputs are `input_ids`,
`attention_mask` and `past_key_values.{i}.key|value` for each layer, and for each cache slot of a recurrent layer (under
the policy `full` a loop is a slot), in the order in which a token passes them; outputs are `logits` and
`present.{i}.key|value`. Loops that share a slot read the same past; the last one's keys and values are its present.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, helper

from export.stages import Stage, trace_stages
from export.targets.onnx.graph import ACCURACY_LEVELS, declare, rename, save, scales_of
from export.targets.onnx.lowering import StageLowering
from export.targets.onnx.nodes import half_casts
from export.targets.onnx.portable.loop import BODY, scan_static
from export.targets.onnx.portable.lowering import PortableLowering
from export.targets.onnx.runtime.mapped_file import WEIGHTS
from export.targets.onnx.weights import WeightFile
from parcae_mobile.config import ParcaeConfig
from parcae_mobile.kv_cache import CacheScales
from parcae_mobile.loops import policy_slots
from quantize.apply import QuantizedModel


def write_static(
    quantized: QuantizedModel,
    folder: Path,
    graphs: Mapping[int, str],
    compute: str = "fp32",
    last_logits: bool = False,
    kv_scales: CacheScales | None = None,
    portable: bool = False,
    kv_policy: str = "full",
) -> list[str]:
    """Write a graph for each loop count under its file name, and the weights file; returns the file names.

    With `last_logits` the graphs give (1, 1, vocabulary) logits of the last position instead of all. `portable` graphs
    hold standard operators only; their presents are their pasts with the chunk appended, under the policy `full` alone.
    """
    composer = _Composer(quantized, WeightFile(folder / WEIGHTS), ACCURACY_LEVELS[compute], kv_scales, portable)
    for loops, name in graphs.items():
        save(composer.graph(loops, last_logits, policy_slots(kv_policy, loops)), folder / name, contrib=not portable)
    composer.weights.close()
    return [*graphs.values(), WEIGHTS]


Initializers = dict[str, TensorProto]


class _Composer:
    """Unrolled graphs of one model over one weights file."""

    def __init__(
        self,
        quantized: QuantizedModel,
        weights: WeightFile,
        level: int,
        kv_scales: CacheScales | None,
        portable: bool,
    ) -> None:
        self.quantized, self.weights, self.level = quantized, weights, level
        self.kv_scales, self.portable = kv_scales, portable
        self.model = quantized.outline()
        self.stages = trace_stages(self.model)

    def graph(self, loops: int, last_logits: bool, slots: int) -> GraphProto:
        """The graph of one loop count, with `slots` cache slots for each recurrent layer."""
        model = self.model
        initializers: Initializers = {}
        first = _FirstLayers.of(model.config, slots)
        nodes = self._lower(initializers, "prelude", "prelude/", first.prelude)
        nodes += self._scanned(initializers, loops) if self.portable else self._repeated(initializers, loops, first)
        nodes += self._lower(
            initializers, "coda", "coda/", first.coda, {"state": f"state.{loops}"}, all_positions=not last_logits
        )
        width = model.config.recurrent_embedding_dimension
        leading = _leading_nodes(initializers, self.weights, width, last_logits)
        inner = [node for outer in nodes for attribute in outer.attribute for node in attribute.g.node]
        casts = half_casts(initializers, [*nodes, *inner])
        inputs, outputs = self._ports(first, last_logits)
        return helper.make_graph([*casts, *leading, *nodes], "parcae", inputs, outputs, list(initializers.values()))

    def _repeated(self, initializers: Initializers, loops: int, first: _FirstLayers) -> list[NodeProto]:
        """The recurrent block's nodes `loops` times; of loops that share a slot the last one gives its presents."""
        nodes = []
        for loop in range(loops):
            slot, prefix = first.slot_of(loop), f"loop{loop}/"
            names = {"state": f"state.{loop}", "next_state": f"state.{loop + 1}"}
            if loop + 1 < loops and first.slot_of(loop + 1) == slot:
                names |= {value: prefix + value for value in _caches(self.stages["recur"], "present.")}
            nodes += self._lower(initializers, "recur", prefix, first.recurrent[slot], names)
        return nodes

    def _scanned(self, initializers: Initializers, loops: int) -> list[NodeProto]:
        def lower(names: dict[str, str]) -> list[NodeProto]:
            return self._lower(initializers, "recur", BODY, 0, names)

        return scan_static(self.model, self.stages["recur"], self.weights, initializers, loops, lower)

    def _ports(self, first: _FirstLayers, last_logits: bool) -> tuple[list[ValueInfoProto], list[ValueInfoProto]]:
        """The graph's inputs and outputs."""
        model, int8 = self.model, self.kv_scales is not None
        placed = [("prelude", first.prelude), *(("recur", layer) for layer in first.recurrent), ("coda", first.coda)]

        def caches(prefix: str, length: str) -> list[ValueInfoProto]:
            return [
                rename(
                    declare(model, name, value, length, int8_cache=int8, pads_heads=not self.portable),
                    _numbered(value, layer),
                )
                for name, layer in placed
                for value in _caches(self.stages[name], prefix)
            ]

        inputs = [
            helper.make_tensor_value_info("input_ids", TensorProto.INT64, [1, "sequence"]),
            helper.make_tensor_value_info("attention_mask", TensorProto.INT64, [1, "total"]),
            *caches("past.", "past"),
        ]
        shape = [1, 1 if last_logits else "sequence", model.config.padded_vocab_size]
        logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)
        return inputs, [logits, *caches("present.", "total" if self.portable else "present")]

    def _lower(
        self,
        initializers: Initializers,
        name: str,
        prefix: str,
        first_layer: int,
        names: Mapping[str, str] = MappingProxyType({}),
        all_positions: bool = False,
    ) -> list[NodeProto]:
        stage = self.stages[name]
        numbered = {value: _numbered(value, first_layer) for value in (*stage.inputs, *stage.outputs)}
        arguments = (stage, self.quantized, self.weights, initializers, self.level)
        options: dict[str, Any] = {
            "prefix": prefix,
            "names": {value: target for value, target in numbered.items() if target != value} | dict(names),
            "kv_scales": scales_of(self.kv_scales, name),
            "all_positions": all_positions,
        }
        if not self.portable:
            return StageLowering(*arguments, **options, in_place=False).run()  # clients' pasts may end with the text
        scanned = name == "recur"
        private = BODY if scanned else ""
        return PortableLowering(*arguments, growing=True, chunks_only=scanned, private=private, **options).run()


@dataclass(frozen=True)
class _FirstLayers:
    """Where the layers of each stage, and of each slot of the recurrent one, begin among those that a client counts."""

    prelude: int
    recurrent: tuple[int, ...]  # by slot
    coda: int

    @classmethod
    def of(cls, config: ParcaeConfig, slots: int) -> _FirstLayers:
        before, layers = config.n_layers_in_prelude, config.n_layers_in_recurrent_block
        return cls(0, tuple(before + slot * layers for slot in range(slots)), before + slots * layers)

    def slot_of(self, loop: int) -> int:
        return min(loop, len(self.recurrent) - 1)


def _caches(stage: Stage, prefix: str) -> list[str]:
    return [value for value in (*stage.inputs, *stage.outputs) if value.startswith(prefix)]


def _leading_nodes(
    initializers: Initializers, weights: WeightFile, state_width: int, last_logits: bool
) -> list[NodeProto]:
    """`total` from the mask, the zero state, and the positions whose logits are given."""

    def constant(name: str, value: np.ndarray) -> str:
        initializers[name] = weights.initializer(name, value)
        return name

    one = constant("one", np.array([1], np.int64))
    width = constant("state_width", np.array([state_width], np.int64))
    nodes = [
        helper.make_node("Shape", ["attention_mask"], ["mask_shape"]),
        helper.make_node("Gather", ["mask_shape", constant("mask_axis", np.array(1, np.int64))], ["total_int64"]),
        helper.make_node("Cast", ["total_int64"], ["total"], to=TensorProto.INT32),
        helper.make_node("Shape", ["input_ids"], ["ids_shape"]),
        helper.make_node("Concat", ["ids_shape", width], ["state_shape"], axis=0),
        helper.make_node("ConstantOfShape", ["state_shape"], ["state.0"]),
        helper.make_node("Gather", ["ids_shape", one], ["length"]),
    ]
    if last_logits:
        nodes.append(helper.make_node("Sub", ["length", one], ["positions"]))
    return nodes


def _numbered(value: str, first_layer: int) -> str:
    """`past.0.key` of a stage that starts at layer 5 -> `past_key_values.5.key`; other names stay."""
    head, _, tail = value.partition(".")
    if head not in ("past", "present"):
        return value
    layer, part = tail.split(".")
    return f"{'past_key_values' if head == 'past' else 'present'}.{int(layer) + first_layer}.{part}"
