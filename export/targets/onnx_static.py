"""The static ONNX form: the loop unrolled for clients that know nothing of loops (onnxruntime-genai, Optimum).

    write_static(quantized, folder, loops=4, compute="int8")  # model.onnx beside weights.data

The recurrent block's nodes are repeated, its initializers are not: graphs of any loop count refer to byte-identical
weights. Inputs are `input_ids`, `attention_mask` and `past_key_values.{i}.key|value` for each (loop, layer) pair in the
order in which a token passes them; outputs are `logits` and `present.{i}.key|value`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import NodeProto, TensorProto, ValueInfoProto, helper

from export.stages import Stage, trace_stages
from parcae_mobile.kv_cache import CacheScales
from quantize.apply import QuantizedModel

from .onnx_graph import ACCURACY_LEVELS, CACHE_STAGES, WEIGHTS, declare, rename, save
from .onnx_lowering import StageLowering
from .onnx_weights import WeightFile


def write_static(
    quantized: QuantizedModel,
    folder: Path,
    loops: int,
    compute: str = "fp32",
    last_logits: bool = False,
    kv_scales: CacheScales | None = None,
) -> list[str]:
    """Write `model.onnx` and the weights file; returns the file names.

    With `last_logits` the graph gives (1, 1, vocabulary) logits of the last position instead of all.
    """
    stages = trace_stages(quantized.model)
    weights = WeightFile(folder / WEIGHTS)
    initializers: dict[str, TensorProto] = {}
    level = ACCURACY_LEVELS[compute]
    config = quantized.model.config
    prelude, recurrent = config.n_layers_in_prelude, config.n_layers_in_recurrent_block

    def lower(name: str, prefix: str, first_layer: int, names: dict[str, str]) -> list[NodeProto]:
        numbered = {value: _numbered(value, first_layer) for value in (*stages[name].inputs, *stages[name].outputs)}
        given = {value: target for value, target in numbered.items() if target != value} | names
        scales = kv_scales[CACHE_STAGES[name]] if kv_scales is not None else None
        return StageLowering(stages[name], quantized, weights, initializers, level, prefix, given, scales).run()

    nodes = lower("prelude", "prelude/", 0, {})
    coda_names = {"state": f"state.{loops}"} | ({} if last_logits else {"positions": ""})
    for loop in range(loops):
        state = {"state": f"state.{loop}", "next_state": f"state.{loop + 1}"}
        nodes += lower("recur", f"loop{loop}/", prelude + loop * recurrent, state)
    nodes += lower("coda", "coda/", prelude + loops * recurrent, coda_names)
    weights.close()

    def kv(stage: Stage, prefix: str) -> list[str]:
        return [value for value in (*stage.inputs, *stage.outputs) if value.startswith(prefix)]

    placed = [("prelude", 0), *(("recur", prelude + loop * recurrent) for loop in range(loops))]
    placed.append(("coda", prelude + loops * recurrent))
    int8 = kv_scales is not None

    def declared(prefix: str, length: str) -> list[ValueInfoProto]:
        return [
            rename(declare(quantized.model, name, value, length, int8_cache=int8), _numbered(value, first))
            for name, first in placed
            for value in kv(stages[name], prefix)
        ]

    int64, float32 = TensorProto.INT64, TensorProto.FLOAT
    inputs = [
        helper.make_tensor_value_info("input_ids", int64, [1, "sequence"]),
        helper.make_tensor_value_info("attention_mask", int64, [1, "total"]),
        *declared("past.", "past"),
    ]
    rows: int | str = 1 if last_logits else "sequence"
    logits = helper.make_tensor_value_info("logits", float32, [1, rows, config.padded_vocab_size])
    leading = _leading_nodes(initializers, weights, config.recurrent_embedding_dimension, last_logits)
    graph = helper.make_graph(
        [*leading, *nodes],
        "parcae",
        inputs,
        [logits, *declared("present.", "present")],
        initializer=list(initializers.values()),
    )
    return [save(graph, folder / "model.onnx"), WEIGHTS]


def _leading_nodes(
    initializers: dict[str, TensorProto], weights: WeightFile, state_width: int, last_logits: bool
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
