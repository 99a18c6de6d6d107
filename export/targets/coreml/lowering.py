"""A traced stage to MIL operations: one small function for each operator that the stages contain.

Types: matrix products, attention and residual sums are in the compute type; squares, norms and the injection are fp32
islands, because fp16 overflows where |x| > 256 is squared, rounds the norms' epsilons to nothing and cannot hold a pole
close to 1. An operator that is not in the table is an error that names it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import fx

from export.stages import Stage
from export.targets.coreml.attention import Caches
from export.targets.coreml.builder import FLOATS, MilWriter, Var, int32
from parcae_mobile.errors import ToolMissingError

aten = torch.ops.aten
WHOLE = 2**31 - 1
ISLAND_PARAMETERS = ("transformer.adapter.decay", "transformer.adapter.dt")


class StageLowering:
    """Lowers one stage inside of the function that `writer` writes.

    `inputs` gives a value for each of the stage's inputs but its caches; None for `positions` means all of them. Layers
    of the stage take the caches' slots from `first_slot` on.
    """

    def __init__(
        self,
        stage: Stage,
        writer: MilWriter,
        caches: Caches | None,
        first_slot: int | Var,
        inputs: dict[str, Var | None],
    ) -> None:
        self.stage, self.writer, self.caches, self.first_slot, self.inputs = stage, writer, caches, first_slot, inputs
        self.values: dict[fx.Node, Any] = {}
        self.parameters: dict[fx.Node, str] = {}

    def run(self) -> dict[str, Var]:
        """The stage's outputs by name, without the caches, which are states."""
        signature = self.stage.program.graph_signature
        targets = {spec.arg.name: spec.target for spec in signature.input_specs if spec.target is not None}
        user_inputs = iter(self.stage.inputs)
        results: dict[str, Var] = {}
        for node in self.stage.program.graph.nodes:
            if node.op == "placeholder":
                if node.name in targets:
                    self.parameters[node] = targets[node.name].removeprefix("model.")
                else:
                    name = next(user_inputs)
                    self.values[node] = name.split(".")[1] if name.startswith("past.") else self.inputs[name]
            elif node.op == "call_function":
                handler = _HANDLERS.get(node.target)
                if handler is None:
                    raise ToolMissingError(f"Core ML: no lowering for {node.target}; this model cannot be exported yet")
                self.values[node] = handler(self, node)
            else:
                for name, value in zip(self.stage.outputs, node.args[0], strict=True):
                    if not name.startswith("present."):
                        results[name] = self.values[value]
        return results

    def tensor(self, node: Any) -> torch.Tensor:
        """The value of a parameter or buffer."""
        program, name = self.stage.program, "model." + self.parameters[node]
        return program.state_dict[name] if name in program.state_dict else program.constants[name]

    def operand(self, value: Any, dtype: str | None = None) -> Var:
        """A value, or a parameter in the compute type unless told otherwise (the injection's poles are fp32 always)."""
        if value not in self.parameters:
            return self.values[value] if dtype is None else self.writer.cast(self.values[value], dtype)
        name = self.parameters[value]
        return self.writer.parameter(name, self.tensor(value), "fp32" if name in ISLAND_PARAMETERS else dtype)

    def pair(self, node: Any) -> tuple[Any, Any]:
        """Both operands of a binary operation in the wider of their types; a number takes its partner's."""
        numbers = [isinstance(value, (int, float)) for value in node.args[:2]]
        values = [v if number else self.operand(v) for v, number in zip(node.args[:2], numbers, strict=True)]
        kinds = {self.kind(value) for value, number in zip(values, numbers, strict=True) if not number}
        kind = "fp32" if "fp32" in kinds else "fp16"
        a, b = (
            FLOATS[kind](value) if number else self.writer.cast(value, kind)
            for value, number in zip(values, numbers, strict=True)
        )
        return a, b

    @staticmethod
    def kind(value: Var) -> str:
        return {"fp16": "fp16", "fp32": "fp32"}[value.dtype.__name__]

    def linear(self, node: Any) -> Var:
        weight = node.args[1]
        inputs = {
            "x": self.writer.narrow(self.operand(node.args[0])),
            "weight": self.writer.matrix(self.parameters[weight], self.tensor(weight)),
        }
        if len(node.args) > 2 and node.args[2] is not None:
            inputs["bias"] = self.operand(node.args[2])
        else:  # the builder would store zeros of its own for each product
            rows = inputs["weight"].shape[0]
            inputs["bias"] = self.writer.constant(f"zeros.{rows}", np.zeros(rows, FLOATS[self.writer.compute]))
        return self.writer.op("linear", **inputs)

    def embedding(self, node: Any) -> Var:
        weight, ids = node.args[0], self.operand(node.args[1])
        table = self.writer.matrix(self.parameters[weight], self.tensor(weight))
        return self.writer.op("gather", x=table, indices=ids, axis=0, validate_indices=False)

    def rms_norm(self, node: Any) -> Var:
        weight = node.args[2] if len(node.args) > 2 else None
        epsilon = node.args[3] if len(node.args) > 3 and node.args[3] is not None else torch.finfo(torch.float32).eps
        x, op = self.operand(node.args[0], "fp32"), self.writer.op
        mean = op("reduce_mean", x=op("mul", x=x, y=x), axes=int32(-1), keep_dims=True)
        scale = op("rsqrt", x=op("add", x=mean, y=FLOATS["fp32"](epsilon)), epsilon=FLOATS["fp32"](1e-30))
        y = op("mul", x=x, y=scale)
        if weight is not None:
            y = op("mul", x=y, y=self.operand(weight, "fp32"))
        return self.writer.narrow(y)

    def layer_norm(self, node: Any) -> Var:
        x, gamma, beta = (self.operand(value, "fp32") for value in (node.args[0], node.args[2], node.args[3]))
        epsilon = FLOATS["fp32"](node.args[4])
        y = self.writer.op("layer_norm", x=x, axes=int32(-1), gamma=gamma, beta=beta, epsilon=epsilon)
        return self.writer.narrow(y)

    def view(self, node: Any) -> Var:
        shape = [size if isinstance(size, int) else -1 for size in node.args[1]]
        return self.writer.op("reshape", x=self.operand(node.args[0]), shape=int32(*shape))

    def cached_attention(self, node: Any) -> list[Any]:
        query, key, value = (self.writer.narrow(self.operand(value)) for value in node.args[:3])
        slot, rope = int(self.values[node.args[3]]), node.args[6]
        place = self.first_slot + slot if isinstance(self.first_slot, int) else self.first_slot
        if not isinstance(place, int) and slot:
            place = self.writer.op("add", x=place, y=int32(slot))
        assert self.caches is not None  # a stage with an attention layer has caches
        return [self.caches.attend(query, key, value, place, rotary=rope is not None), None, None]

    def slice(self, node: Any) -> Var:
        x, axis, start, end = node.args
        x = self.operand(x)
        axis %= x.rank
        begins, ends = [0] * x.rank, [0] * x.rank
        begins[axis], ends[axis] = start, min(end, WHOLE)
        others = [index != axis for index in range(x.rank)]
        return self.writer.op(
            "slice_by_index", x=x, begin=int32(*begins), end=int32(*ends), begin_mask=others,
            end_mask=[other or end >= WHOLE for other in others],
        )  # fmt: skip

    def clamp(self, node: Any) -> Var:
        x, low, high = self.operand(node.args[0]), node.args[1], node.args[2]
        number = FLOATS[self.kind(x)]
        return self.writer.op("clip", x=x, alpha=number(low), beta=number(high))

    def chunk(self, node: Any) -> list[Var]:
        return self.writer.op("split", x=self.operand(node.args[0]), num_splits=node.args[1], axis=-1)

    def concatenate(self, node: Any) -> Var:
        axis = node.args[1] if len(node.args) > 1 else 0
        return self.writer.op("concat", values=[self.operand(value) for value in node.args[0]], axis=axis)

    def add(self, node: Any) -> Var:
        """Sums end in the compute type: the injection's goes back to the residual stream, a residual stays there."""
        x, y = self.pair(node)
        return self.writer.narrow(self.writer.op("add", x=x, y=y))

    def square(self, node: Any) -> Var:
        """In fp32, where it stays until the next matrix product."""
        x = self.operand(node.args[0], "fp32")
        return self.writer.op("mul", x=x, y=x)

    def gelu(self, node: Any) -> Var:
        return self.writer.op("gelu", x=self.operand(node.args[0]), mode="EXACT")

    def select(self, node: Any) -> Var:
        return self.writer.op("gather", x=self.operand(node.args[0]), indices=node.args[2], axis=node.args[1])

    def index_select(self, node: Any) -> Var:
        x, indices = self.operand(node.args[0]), self.values[node.args[2]]
        if indices is None:
            return x
        return self.writer.op("gather", x=x, indices=indices, axis=node.args[1], validate_indices=False)

    def alias(self, node: Any) -> Var | None:
        """The same value; a parameter stays one, so that its quantized form is found under its name."""
        if node.args[0] in self.parameters:
            self.parameters[node] = self.parameters[node.args[0]]
            return None
        return self.operand(node.args[0])

    def unsqueeze(self, node: Any) -> Var:
        return self.writer.op("expand_dims", x=self.operand(node.args[0]), axes=int32(node.args[1]))


def _binary(kind: str) -> Callable[[StageLowering, Any], Var]:
    def lower(low: StageLowering, node: Any) -> Var:
        x, y = low.pair(node)
        return low.writer.op(kind, x=x, y=y)

    return lower


def _unary(kind: str) -> Callable[[StageLowering, Any], Var]:
    return lambda low, node: low.writer.op(kind, x=low.operand(node.args[0]))


_HANDLERS: dict[Any, Callable[[StageLowering, Any], Any]] = {
    aten.linear.default: StageLowering.linear,
    aten.embedding.default: StageLowering.embedding,
    aten.rms_norm.default: StageLowering.rms_norm,
    aten.layer_norm.default: StageLowering.layer_norm,
    aten.view.default: StageLowering.view,
    aten.slice.Tensor: StageLowering.slice,
    aten.clamp.default: StageLowering.clamp,
    aten.chunk.default: StageLowering.chunk,
    aten.cat.default: StageLowering.concatenate,
    aten.add.Tensor: StageLowering.add,
    aten.mul.Tensor: _binary("mul"),
    aten.div.Tensor: _binary("real_div"),
    aten.relu.default: _unary("relu"),
    aten.sigmoid.default: _unary("sigmoid"),
    aten.tanh.default: _unary("tanh"),
    aten.silu.default: _unary("silu"),
    aten.gelu.default: StageLowering.gelu,
    aten.square.default: StageLowering.square,
    aten.index_select.default: StageLowering.index_select,
    aten.select.int: StageLowering.select,
    aten.unsqueeze.default: StageLowering.unsqueeze,
    aten.alias.default: StageLowering.alias,
    aten.to.dtype: lambda low, node: low.operand(node.args[0]),
    aten.sym_size.int: lambda low, node: None,
    aten._assert_tensor_metadata.default: lambda low, node: None,
    torch.ops.parcae.cached_attention.default: StageLowering.cached_attention,
    operator.getitem: lambda low, node: low.values[node.args[0]][node.args[1]],
}
