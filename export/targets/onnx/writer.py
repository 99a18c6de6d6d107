"""The ONNX target: traced stages as graphs over one weights file.

    write_stages(quantized, folder)    # model_prelude.onnx, model_recur.onnx, model_coda.onnx: the host runs the loop
    write_scan(quantized, folder)      # model.onnx: the loop is a Scan (scan.py)
    write_static(quantized, folder, {4: "model.onnx"})  # the loop is unrolled, for stock clients (static.py)

All hold one set of weights, whatever the loop count. Caches are inputs and outputs that may share memory.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError
from onnx import TensorProto, ValueInfoProto, helper, numpy_helper

from export.stages import trace_stages
from export.targets.onnx.clients import write_client_files
from export.targets.onnx.graph import ACCURACY_LEVELS, declare, save, scales_of
from export.targets.onnx.lowering import StageLowering
from export.targets.onnx.nodes import half_casts
from export.targets.onnx.portable.lowering import COLUMNS, PortableLowering
from export.targets.onnx.runtime.mapped_file import WEIGHTS
from export.targets.onnx.scan import write_scan
from export.targets.onnx.static import write_static
from export.targets.onnx.weights import WeightFile
from export.targets.registry import StoredInjection, WriteOptions
from parcae_mobile.errors import InputError, reason_of
from parcae_mobile.given_file import check_regular
from parcae_mobile.kv_cache import CacheScales
from parcae_mobile.manifest import Port, Signature
from quantize.apply import QuantizedModel

ADAPTER = "transformer.adapter."
MOST_GRAPH = 256_000_000  # bytes of a graph without its weights


def write(quantized: QuantizedModel, folder: Path, options: WriteOptions) -> None:
    """Write the graphs of `options.loop_form` and the weights file."""
    if options.loop_form == "unrolled":
        graphs = options.graphs or {int(options.loops): "model.onnx"}
        write_static(
            quantized,
            folder,
            graphs,
            compute=options.compute,
            last_logits=options.last_logits,
            kv_scales=options.kv_scales,
            portable=options.portable,
            kv_policy=options.kv_policy,
        )
        write_client_files(quantized.config, folder, options)
    elif options.portable:
        write_stages(quantized, folder, options.compute, options.kv_scales, PortableLowering)
    else:
        writer = {"stages": write_stages, "scan": write_scan}[options.loop_form]
        writer(quantized, folder, options.compute, options.kv_scales)


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

    graphs = {path.name: _graph(path) for path in sorted(folder.glob("model*.onnx"))}
    return {name: Signature(inputs=ports(graph.input), outputs=ports(graph.output)) for name, graph in graphs.items()}


def read_injection(folder: Path) -> StoredInjection | None:
    """Decay, dt and B by the nodes that consume them: decay scales the state, B multiplies, dt scales its product.

    Raises `InputError` if another operator does, or if two graphs of the folder consume different ones.
    """
    consumed: dict[str, np.ndarray] = {}
    for path in sorted(folder.glob("model*.onnx")):
        graph = _graph(path)
        stored = {tensor.name: tensor for tensor in graph.initializer}
        check_external(path, graph)
        bodies = [attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")]
        for node in [*graph.node, *(node for body in bodies for node in body.node)]:
            for name in node.input:
                role = name.removeprefix(ADAPTER).removesuffix(COLUMNS)
                if role in ("decay", "dt", "B") and name.startswith(ADAPTER):
                    portable = name.endswith(COLUMNS)
                    if node.op_type != {"B": "MatMul" if portable else "FusedMatMul"}.get(role, "Mul"):
                        raise InputError(
                            f"{path}: {name} is consumed by {node.op_type}; the artifact is not one of ours"
                        )
                    array = _values(path, stored, name)
                    matrix = array.T if portable else array
                    if not np.array_equal(consumed.setdefault(role, matrix), matrix):
                        raise InputError(f"{path}: {name} is not what another graph of {folder} consumes")
    if set(consumed) != {"decay", "dt", "B"}:
        return None
    return StoredInjection(*(torch.from_numpy(consumed[role].copy()) for role in ("decay", "dt", "B")))


def _graph(path: Path) -> onnx.GraphProto:
    check_regular(path, InputError, MOST_GRAPH)
    try:
        return onnx.load(path, load_external_data=False).graph
    except (DecodeError, OSError):
        raise InputError(f"{path}: not a readable ONNX graph; export the artifact again") from None


def check_external(path: Path, graph: onnx.GraphProto) -> None:
    """Raise `InputError` unless every tensor outside of a graph lies whole in a file beside it."""
    graphs = [graph]
    while graphs:
        part = graphs.pop()
        graphs += [attribute.g for node in part.node for attribute in node.attribute if attribute.HasField("g")]
        constants = [a.t for node in part.node for a in node.attribute if a.HasField("t")]
        for tensor in [*part.initializer, *constants]:
            if tensor.data_location != TensorProto.EXTERNAL:
                continue
            entries = {entry.key: entry.value for entry in tensor.external_data}
            name = entries.get("location", "")
            if name in ("", ".", "..") or "/" in name or "\\" in name or (path.parent / name).is_symlink():
                raise InputError(f"{path}: {tensor.name} lies in {name[:200]!r}, outside of the folder; do not use it")
            offset, length = (entries.get(key, "0") for key in ("offset", "length"))
            if not (offset.isascii() and offset.isdigit() and length.isascii() and length.isdigit()):
                raise InputError(f"{path}: {tensor.name} has no usable place in {name}; export the artifact again")
            size = check_regular(path.parent / name, InputError)
            if len(offset + length) > 40 or int(offset) + int(length) > size:
                raise InputError(f"{path}: {tensor.name} ends beyond {name}'s {size} bytes; export the artifact again")


def _values(path: Path, stored: dict[str, TensorProto], name: str) -> np.ndarray:
    try:
        return numpy_helper.to_array(stored[name], base_dir=str(path.parent))
    except (LookupError, ValueError, TypeError, OSError, onnx.checker.ValidationError) as error:
        raise InputError(f"{path}: {name} is not readable ({reason_of(error)}); export the artifact again") from None


def write_stages(
    quantized: QuantizedModel,
    folder: Path,
    compute: str = "fp32",
    kv_scales: CacheScales | None = None,
    lowering: type[StageLowering] = StageLowering,
) -> list[str]:
    """Write three graphs and the weights file into `folder`; returns the file names."""
    weights, model = WeightFile(folder / WEIGHTS), quantized.outline()
    names = []
    for name, stage in trace_stages(model).items():
        initializers: dict[str, TensorProto] = {}
        scales = scales_of(kv_scales, name)
        level = ACCURACY_LEVELS[compute]
        nodes = lowering(stage, quantized, weights, initializers, level, kv_scales=scales).run()
        inputs, outputs = (
            [
                declare(model, name, value, int8_cache=scales is not None, pads_heads=lowering.pads_heads)
                for value in values
            ]
            for values in (stage.inputs, stage.outputs)
        )
        nodes = [*half_casts(initializers, nodes), *nodes]
        graph = helper.make_graph(nodes, name, inputs, outputs, initializer=list(initializers.values()))
        names.append(save(graph, folder / f"model_{name}.onnx", contrib=lowering is StageLowering))
    weights.close()
    return [*names, WEIGHTS]
