"""The scan form: all stages in one ONNX graph, the loop a Scan over the recurrent layers' stacked caches.

    write_scan(quantized, folder, compute="int8")          # model.onnx beside weights.data

The loop count is the leading dimension of the recurrent caches, so the graph needs no input for it.
"""

from __future__ import annotations

from pathlib import Path

from onnx import NodeProto, TensorProto, ValueInfoProto, helper

from export.stages import trace_stages
from export.targets.onnx.graph import ACCURACY_LEVELS, CACHE_STAGES, WEIGHTS, declare, rename, save
from export.targets.onnx.lowering import StageLowering, half_casts
from export.targets.onnx.weights import WeightFile
from parcae_mobile.kv_cache import CacheScales
from quantize.apply import QuantizedModel


def write_scan(
    quantized: QuantizedModel, folder: Path, compute: str = "fp32", kv_scales: CacheScales | None = None
) -> list[str]:
    """Write one graph and the weights file into `folder`; returns the file names.

    Recurrent caches are stacked over loops: their leading dimension is the loop count.
    """
    stages = trace_stages(quantized.model)
    weights = WeightFile(folder / WEIGHTS)
    initializers: dict[str, TensorProto] = {}
    model, level, int8 = quantized.model, ACCURACY_LEVELS[compute], kv_scales is not None

    def lower(name: str, names: dict[str, str]) -> list[NodeProto]:
        scales = kv_scales[CACHE_STAGES[name]] if kv_scales is not None else None
        return StageLowering(stages[name], quantized, weights, initializers, level, f"{name}/", names, scales).run()

    outer = {name: {v: _scan_name(name, v) for v in (*s.inputs, *s.outputs) if "." in v} for name, s in stages.items()}
    for name in outer:
        outer[name] |= {v: v for v in stages["prelude"].outputs if v.startswith("value_embedding")}
    prelude = lower("prelude", outer["prelude"])
    carried = [value for value in stages["recur"].inputs if value.startswith("past.")]
    scanned = [value for value in stages["recur"].outputs if value.startswith("present.")]
    body_names = outer["recur"] | {v: f"recur/{v}" for v in (*carried, *scanned, "state", "next_state")}
    body = helper.make_graph(
        lower("recur", body_names),
        "recurrent_block",
        [rename(declare(model, "recur", v, int8_cache=int8), body_names[v]) for v in ("state", *carried)],
        [rename(declare(model, "recur", v, int8_cache=int8), body_names[v]) for v in ("next_state", *scanned)],
    )
    scan = helper.make_node(
        "Scan",
        ["initial_state", *(_scan_name("recur", value) for value in carried)],
        ["final_state", *(_scan_name("recur", value) for value in scanned)],
        name="recurrence",
        body=body,
        num_scan_inputs=len(carried),
    )
    coda = lower("coda", outer["coda"] | {"state": "final_state"})

    def declared(name: str, values: tuple[str, ...] | list[str]) -> list[ValueInfoProto]:
        stacked = name == "recur"
        return [rename(declare(model, name, v, stacked=stacked, int8_cache=int8), _scan_name(name, v)) for v in values]

    def kv(name: str, prefix: str) -> list[str]:
        return [v for v in (*stages[name].inputs, *stages[name].outputs) if v.startswith(prefix)]

    inputs = [
        declare(model, "prelude", "input_ids"),
        declare(model, "coda", "positions"),
        declare(model, "prelude", "total"),
        rename(declare(model, "recur", "state"), "initial_state"),
        *(info for name in stages for info in declared(name, kv(name, "past."))),
    ]
    outputs = [
        declare(model, "coda", "logits"),
        rename(declare(model, "recur", "state"), "final_state"),
        *(info for name in stages for info in declared(name, kv(name, "present."))),
    ]
    nodes = [*prelude, scan, *coda]
    nodes = [*half_casts(initializers, [*nodes, *body.node]), *nodes]
    graph = helper.make_graph(nodes, "parcae", inputs, outputs, initializer=list(initializers.values()))
    name = save(graph, folder / "model.onnx")
    weights.close()
    return [name, WEIGHTS]


def _scan_name(stage: str, value: str) -> str:
    """`past.0.key` of a stage -> `past.prelude.0.key` in the graph that holds all stages."""
    head, _, tail = value.partition(".")
    return f"{head}.{stage}.{tail}" if head in ("past", "present") else value
