"""An ONNX artifact with the rounding of activations out of the way: the same graphs and bytes at accuracy level 1.

    host, model = open_exact(folder, manifest, threads), reference(quantized, compute)

Published `MatMulNBits` nodes say in which precision they multiply; level 1 is fp32. The attribute is changed in memory,
weights are read from the artifact's own file. A static graph is opened up further, so that its loop can be watched: its
zero state and its choice of positions become inputs, the state after each loop becomes an output.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, NodeProto, TensorProto, helper

from export.targets.host import CacheGeometry, Chunk, Host
from export.targets.onnx.runtime.host import OnnxHost, Workspace, ort
from export.targets.onnx.runtime.portable import PortableHost
from parcae_mobile.manifest import Manifest
from parcae_mobile.model import Parcae
from quantize.apply import QuantizedModel

STILL_ROUNDS = False
FP32_LEVEL = 1
WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"
STATE = "state."  # the static form's states: state.0 before the first loop, state.1 after it


def open_exact(folder: Path, manifest: Manifest, threads: int = 0) -> Host:
    """A host on fp32 arithmetic that takes a first state and shows states, whatever the form."""
    graphs = {int(loops): name for loops, name in manifest.graphs.items()}
    if not graphs and manifest.loops != "dynamic":
        graphs = {int(manifest.loops): "model.onnx"}
    arguments = (folder, manifest.loop_form, CacheGeometry.from_manifest(manifest), threads)
    if manifest.portable:
        return ExactPortableHost(*arguments, graphs=graphs)
    return ExactHost(*arguments, manifest.kv.dtype, graphs, halves=bool(manifest.quantization.halves))


def reference(quantized: QuantizedModel, compute: str) -> Parcae:
    """What it is compared with: the eager model itself."""
    return quantized.model


def rewrite(folder: Path, to: Path) -> str | None:
    """Nothing: sessions optimise graphs when they load them, so the gates see them optimised."""
    return None


def exact_graph(path: Path, open_up: bool) -> bytes:
    """A graph in fp32 arithmetic, without its weights; with `open_up` its loop can be watched."""
    model = onnx.load(path, load_external_data=False)
    for node in _nodes(model.graph):
        for attribute in node.attribute:
            if attribute.name == "accuracy_level":
                attribute.i = FP32_LEVEL
    if open_up:
        _open_up(model.graph)
    content: bytes = model.SerializeToString()
    return content


def _nodes(graph: GraphProto) -> Iterator[NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g)


def _open_up(graph: GraphProto) -> None:
    """`state.0` and `positions` as inputs instead of computed, the states after each loop as outputs."""
    outputs = {name for node in graph.node for name in node.output}
    shape = next(node for node in graph.node if f"{STATE}0" in node.output).input[0]
    width = next(node for node in graph.node if shape in node.output).input[1]
    size = next(tensor for tensor in graph.initializer if tensor.name == width)
    columns = int(onnx.numpy_helper.to_array(size)[0])
    state: list[str | int | None] = [1, "sequence", columns]
    opened = {f"{STATE}0": helper.make_tensor_value_info(f"{STATE}0", TensorProto.FLOAT, state)}
    if "positions" in outputs:
        opened["positions"] = helper.make_tensor_value_info("positions", TensorProto.INT64, ["positions"])
        next(o for o in graph.output if o.name == "logits").type.tensor_type.shape.dim[1].dim_param = "positions"
    others = [node for node in graph.node if not set(node.output) & set(opened)]
    del graph.node[:]
    graph.node.extend(others)
    graph.input.extend(opened.values())
    after = sorted(name for name in outputs if name.startswith(STATE) and name.removeprefix(STATE).isdigit())
    graph.output.extend(helper.make_tensor_value_info(n, TensorProto.FLOAT, state) for n in after if n != f"{STATE}0")


class ExactHost(OnnxHost):
    """One artifact in fp32 arithmetic. Not thread-safe."""

    _watched: Workspace

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.takes_state = True

    def _session(self, file: str) -> ort.InferenceSession:
        if file not in self._sessions:
            if not self._sessions:  # onnxruntime warns of an entry that is given twice
                self._options.add_session_config_entry(WEIGHTS_FOLDER, str(self._folder))
            graph = exact_graph(self._folder / file, self.loop_form == "unrolled")
            self._sessions[file] = ort.InferenceSession(graph, self._options, providers=["CPUExecutionProvider"])
        return self._sessions[file]

    def _workspace(self, chunk: Chunk) -> Workspace:
        work = self._watched = super()._workspace(chunk)
        if self.loop_form == "unrolled":
            state = np.zeros((1, chunk.length, self.geometry.state_width), np.float32)
            work.buffers.arrays.setdefault(f"{STATE}0", state)[...] = 0 if chunk.state is None else chunk.state
        return work

    def _run_unrolled(self, chunk: Chunk) -> np.ndarray:
        logits = super()._run_unrolled(chunk)
        if chunk.on_state is not None:
            for name, array in self._watched.buffers.arrays.items():
                if name.startswith(STATE) and name != f"{STATE}0":
                    chunk.on_state(int(name.removeprefix(STATE)) - 1, array.copy())
        return logits


class ExactPortableHost(PortableHost):
    """A portable artifact in fp32 arithmetic: its products are told by a session entry. Shows the last state only."""

    _chunk: Chunk

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.takes_state = True

    def _session(self, file: str) -> Any:
        if self.loop_form != "unrolled":
            return super()._session(file)
        if file not in self._sessions:
            if not self._sessions:  # onnxruntime warns of an entry that is given twice
                self._options.add_session_config_entry(WEIGHTS_FOLDER, str(self._folder))
            graph = exact_graph(self._folder / file, open_up=True)
            session = ort.InferenceSession(graph, self._options, providers=["CPUExecutionProvider"])
            self._sessions[file] = _Watched(session, self)
        return self._sessions[file]

    def _run_unrolled(self, chunk: Chunk) -> np.ndarray:
        self._chunk = chunk
        return super()._run_unrolled(chunk)


class _Watched:
    """A session of an opened graph that is called as that of the closed one."""

    def __init__(self, session: ort.InferenceSession, host: ExactPortableHost) -> None:
        self._session, self._host = session, host
        self._last = next(port.name for port in session.get_outputs() if port.name.startswith(STATE))
        self._opened = {port.name for port in session.get_inputs()} & {"positions"}

    def get_inputs(self) -> list[Any]:
        return list(self._session.get_inputs())

    def run(self, outputs: list[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        chunk, width = self._host._chunk, self._host.geometry.state_width
        state = np.zeros((1, chunk.length, width), np.float32) if chunk.state is None else chunk.state
        extra = {f"{STATE}0": np.ascontiguousarray(state, np.float32)}
        extra |= dict.fromkeys(self._opened, chunk.positions)
        *results, last = self._session.run([*outputs, self._last], inputs | extra)
        if chunk.on_state is not None:
            chunk.on_state(chunk.loops - 1, last)
        return results
