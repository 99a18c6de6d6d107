"""Nodes, initializers and values of one traced stage on its way to ONNX: what each operator's lowering writes to.

    x = low.operand(node.args[0])                          # the name of a value, a parameter or a constant
    y = low.emit("Mul", [x, low.constant(np.array(2, np.float32))])

Both flavours (`lowering.py`, `portable/`) and the plain operators (`operators.py`) are written in these words.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from onnx import NodeProto, TensorProto, helper
from torch import fx

from export.stages import Stage
from export.targets.onnx.weights import WeightFile, as_numpy
from quantize.apply import QuantizedModel

HALF = ".half"  # suffix of initializers that are stored in fp16


class StageNodes:
    """The nodes so far; initializers go to a dictionary that the stages of one graph share.

    Values of the stage are named `prefix` + name, its inputs and outputs as `names` maps them (themselves otherwise).
    With `all_positions` the stage gives logits of every position and has no input that chooses some.
    """

    def __init__(
        self,
        stage: Stage,
        quantized: QuantizedModel,
        weights: WeightFile,
        initializers: dict[str, TensorProto],
        prefix: str = "",
        names: dict[str, str] | None = None,
        all_positions: bool = False,
    ) -> None:
        self.stage, self.quantized, self.weights, self.initializers = stage, quantized, weights, initializers
        self.prefix, self.names = prefix, names or {}
        self.nodes: list[NodeProto] = []
        self.values: dict[fx.Node, Any] = {}
        self.parameters: dict[fx.Node, str] = {}
        self.rows_settled = all_positions  # whether the stage's choice of positions has nothing left to choose

    def emit(self, op: str, inputs: list[str], outputs: int = 1, domain: str = "", **attributes: Any) -> Any:
        """Add a node; returns its output's name, or the list of names."""
        label = f"{self.prefix}{op}_{len(self.nodes)}"
        names = [label] if outputs == 1 else [f"{label}.{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, names, name=label, domain=domain, **attributes))
        return names[0] if outputs == 1 else names

    @contextlib.contextmanager
    def branch(self, name: str) -> Iterator[list[NodeProto]]:
        """What is emitted within goes to a list of its own, for the subgraph `name` of a node that follows."""
        outside = self.nodes, self.prefix
        self.nodes, self.prefix = [], f"{self.prefix}{name}/"
        try:
            yield self.nodes
        finally:
            self.nodes, self.prefix = outside

    def constant(self, value: np.ndarray, name: str | None = None) -> str:
        """An initializer, shared by value for small constants and by name for named ones."""
        if name is None:
            name = f"const.{value.dtype.name}.{'x'.join(map(str, value.shape))}.{value.tobytes().hex()}"
        if name not in self.initializers:
            self.initializers[name] = self.weights.initializer(name, value)
        return name

    def reshape(self, value: str, shape: list[int]) -> str:
        return self.emit("Reshape", [value, self.constant(np.array(shape, np.int64))])

    def cut(self, value: str, axis: int, size: int) -> str:
        """The first `size` entries along an axis."""
        bounds = [self.constant(np.array([number], np.int64)) for number in (0, size, axis)]
        return self.emit("Slice", [value, *bounds])

    def weight(self, node: Any, transform: Callable[[np.ndarray], np.ndarray] | None = None, tag: str = "") -> str:
        """A float parameter or buffer, in fp32: an initializer, or what `half_casts` makes of one that fp16 holds."""
        return self.stored(node, transform, tag).removesuffix(HALF)

    def stored(self, node: Any, transform: Callable[[np.ndarray], np.ndarray] | None = None, tag: str = "") -> str:
        """A float parameter or buffer as an initializer, in fp16 (its name says so) where the recipe rounded it."""
        name = self.canonical(self.parameters[node])
        label = name + tag + (HALF if name in self.quantized.halves else "")
        if label in self.initializers:
            return label
        array = as_numpy(self.tensor(node))
        array = array if transform is None else transform(array)
        return self.constant(array.astype(np.float16) if label.endswith(HALF) else array, label)

    def tensor(self, node: Any) -> torch.Tensor:
        program, name = self.stage.program, "model." + self.parameters[node]
        return program.state_dict[name] if name in program.state_dict else program.constants[name]

    def canonical(self, name: str) -> str:
        tied = self.quantized.config.tie_embeddings
        return "transformer.wte.weight" if tied and name == "lm_head.weight" else name

    def operand(self, value: Any, like: str = "float32") -> str:
        """A value of the graph, a parameter, or a Python number as an initializer."""
        if isinstance(value, fx.Node):
            return self.weight(value) if value in self.parameters else self.values[value]
        return self.constant(np.array(value, like))

    def gather(self, table: str, ids: str, axis: int = 0) -> str:
        """Rows (or columns) of a float table, in fp32."""
        taken = self.emit("Gather", [table, ids], axis=axis)
        return self.emit("Cast", [taken], to=TensorProto.FLOAT) if table.endswith(HALF) else taken


def half_casts(initializers: dict[str, TensorProto], nodes: Iterable[NodeProto]) -> list[NodeProto]:
    """Casts to fp32 of the fp16 matrices that nodes multiply with, for the head of a graph.

    A runtime folds them when it loads the graph; one cast for all loops keeps that to one copy.
    """
    used = {name for node in nodes for name in node.input}
    names = [name.removesuffix(HALF) for name in initializers if name.endswith(HALF)]
    return [
        helper.make_node("Cast", [name + HALF], [name], name=f"cast/{name}", to=TensorProto.FLOAT)
        for name in names
        if name in used
    ]
