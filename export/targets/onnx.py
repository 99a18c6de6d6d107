"""The ONNX target: traced stages as graphs over one weights file.

    write_stages(quantized, folder)   # model_prelude.onnx, model_recur.onnx, model_coda.onnx: the host runs the loop
    write_scan(quantized, folder)     # model.onnx: the loop is a Scan over the recurrent layers' stacked caches

Both hold one set of weights, whatever the loop count at run time. Caches are inputs and outputs that may share memory.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, ValueInfoProto, helper, numpy_helper

from export.hosts.base import CacheGeometry, Host
from export.stages import Stage, trace_stages
from export.target import StoredInjection, WriteOptions
from parcae_mobile.errors import InputError
from parcae_mobile.manifest import Manifest, Port, Signature
from parcae_mobile.model import Parcae
from quantize.apply import QuantizedModel

from .onnx_lowering import MS, StageLowering
from .onnx_weights import WeightFile

WEIGHTS = "weights.data"
OPSET = 21
IR_VERSION = 10
ADAPTER = "transformer.adapter."
ACCURACY_LEVELS = {"fp32": 1, "int8": 4}
FLOAT, INT64, INT32 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT32


def write(quantized: QuantizedModel, folder: Path, options: WriteOptions) -> None:
    """Write the graphs of `options.loop_form` and the weights file."""
    {"stages": write_stages, "scan": write_scan}[options.loop_form](quantized, folder, options.compute)


def open_host(folder: Path, manifest: Manifest, threads: int = 0) -> Host:
    """onnxruntime on this machine's CPU."""
    from export.hosts.onnx_host import OnnxHost

    return OnnxHost(folder, manifest.loop_form, CacheGeometry.from_manifest(manifest), threads)


def signatures(folder: Path) -> dict[str, Signature]:
    """Inputs and outputs of each graph, as written."""

    def ports(infos: list[ValueInfoProto]) -> list[Port]:
        kinds = [info.type.tensor_type for info in infos]
        return [
            Port(
                name=info.name,
                dtype=str(helper.tensor_dtype_to_np_dtype(kind.elem_type)),
                shape=[dim.dim_param or dim.dim_value for dim in kind.shape.dim],
            )
            for info, kind in zip(infos, kinds, strict=True)
        ]

    graphs = {path.name: onnx.load(path, load_external_data=False).graph for path in sorted(folder.glob("model*.onnx"))}
    return {name: Signature(inputs=ports(graph.input), outputs=ports(graph.output)) for name, graph in graphs.items()}


def read_injection(folder: Path) -> StoredInjection | None:
    """Decay, dt and B by the nodes that consume them: decay scales the state, B multiplies, dt scales its product."""
    found: dict[str, np.ndarray] = {}
    for path in sorted(folder.glob("model*.onnx")):
        graph = onnx.load(path, load_external_data=False).graph
        stored = {tensor.name: tensor for tensor in graph.initializer}
        bodies = [attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")]
        for node in [*graph.node, *(node for body in bodies for node in body.node)]:
            for name in node.input:
                role = name.removeprefix(ADAPTER)
                if role in ("decay", "dt", "B") and name != role:
                    if node.op_type != {"B": "FusedMatMul"}.get(role, "Mul"):
                        raise InputError(
                            f"{path}: {name} is consumed by {node.op_type}; the artifact is not one of ours"
                        )
                    found[role] = numpy_helper.to_array(stored[name], base_dir=str(folder))
    if set(found) != {"decay", "dt", "B"}:
        return None
    return StoredInjection(*(torch.from_numpy(found[role].copy()) for role in ("decay", "dt", "B")))


def write_stages(quantized: QuantizedModel, folder: Path, compute: str = "fp32") -> list[str]:
    """Write three graphs and the weights file into `folder`; returns the file names."""
    weights = WeightFile(folder / WEIGHTS)
    names = []
    for name, stage in trace_stages(quantized.model).items():
        initializers: dict[str, TensorProto] = {}
        nodes = StageLowering(stage, quantized, weights, initializers, ACCURACY_LEVELS[compute]).run()
        inputs = [_declare(quantized.model, name, value, stage) for value in stage.inputs]
        outputs = [_declare(quantized.model, name, value, stage) for value in stage.outputs]
        graph = helper.make_graph(nodes, name, inputs, outputs, initializer=list(initializers.values()))
        names.append(_save(graph, folder / f"model_{name}.onnx"))
    weights.close()
    return [*names, WEIGHTS]


def write_scan(quantized: QuantizedModel, folder: Path, compute: str = "fp32") -> list[str]:
    """Write one graph and the weights file into `folder`; returns the file names.

    Recurrent caches are stacked over loops: their leading dimension is the loop count.
    """
    stages = trace_stages(quantized.model)
    weights = WeightFile(folder / WEIGHTS)
    initializers: dict[str, TensorProto] = {}
    model, level = quantized.model, ACCURACY_LEVELS[compute]

    def lower(name: str, names: dict[str, str]) -> list[onnx.NodeProto]:
        return StageLowering(stages[name], quantized, weights, initializers, level, f"{name}/", names).run()

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
        [_rename(_declare(model, "recur", v, stages["recur"]), body_names[v]) for v in ("state", *carried)],
        [_rename(_declare(model, "recur", v, stages["recur"]), body_names[v]) for v in ("next_state", *scanned)],
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
        return [_rename(_declare(model, name, v, stages[name], stacked), _scan_name(name, v)) for v in values]

    def kv(name: str, prefix: str) -> list[str]:
        return [v for v in (*stages[name].inputs, *stages[name].outputs) if v.startswith(prefix)]

    inputs = [
        _declare(model, "prelude", "input_ids", stages["prelude"]),
        _declare(model, "coda", "positions", stages["coda"]),
        _declare(model, "prelude", "total", stages["prelude"]),
        _rename(_declare(model, "recur", "state", stages["recur"]), "initial_state"),
        *(info for name in stages for info in declared(name, kv(name, "past."))),
    ]
    outputs = [
        _declare(model, "coda", "logits", stages["coda"]),
        _rename(_declare(model, "recur", "state", stages["recur"]), "final_state"),
        *(info for name in stages for info in declared(name, kv(name, "present."))),
    ]
    nodes = [*prelude, scan, *coda]
    graph = helper.make_graph(nodes, "parcae", inputs, outputs, initializer=list(initializers.values()))
    name = _save(graph, folder / "model.onnx")
    weights.close()
    return [name, WEIGHTS]


def _scan_name(stage: str, value: str) -> str:
    """`past.0.key` of a stage -> `past.prelude.0.key` in the graph that holds all stages."""
    head, _, tail = value.partition(".")
    return f"{head}.{stage}.{tail}" if head in ("past", "present") else value


def _declare(model: Parcae, stage: str, name: str, traced: Stage, stacked: bool = False) -> ValueInfoProto:
    """Type and shape of a stage's input or output, by its name."""
    config = model.config
    width = config.recurrent_embedding_dimension
    if name.startswith(("past.", "present.")):
        attention = model.transformer["core_block" if stage == "recur" else stage][int(name.split(".")[1])].attn
        shape = [1, attention.kv_heads, "cache", attention.head_size]
        return helper.make_tensor_value_info(name, FLOAT, ["loops", *shape] if stacked else shape)
    kinds: dict[str, tuple[int, list[int | str]]] = {
        "input_ids": (INT64, [1, "sequence"]),
        "positions": (INT64, ["positions"]),
        "total": (INT32, []),
        "logits": (FLOAT, [1, "positions", config.padded_vocab_size]),
        **{key: (FLOAT, [1, "sequence", width]) for key in ("state", "next_state", "injected")},
    }
    kind, dims = kinds.get(name, (FLOAT, [1, "sequence", config.value_width]))
    return helper.make_tensor_value_info(name, kind, dims)


def _rename(info: ValueInfoProto, name: str) -> ValueInfoProto:
    info.name = name
    return info


def _save(graph: onnx.GraphProto, path: Path) -> str:
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MS, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="parcae-mobile")
    path.write_bytes(model.SerializeToString(deterministic=True))
    return path.name
