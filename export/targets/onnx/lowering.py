"""A traced stage to ONNX nodes: one small function for each operator that the stages contain.

Quantized parameters become `MatMulNBits` and `GatherBlockQuantized` (com.microsoft), float matrices `FusedMatMul` on
the matrix as the checkpoint stores it, and cached attention `GroupQueryAttention`, whose cache may be updated in place.
An operator that is not in the table is an error that names it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from onnx import NodeProto, TensorProto, helper
from torch import fx

from export.stages import Stage
from export.targets.onnx.attention import MS, cached_attention
from export.targets.onnx.joined import Branch, join, joinable, joined_name, query_key_pairs
from export.targets.onnx.rows import rows_first
from export.targets.onnx.weights import WeightFile, as_numpy, block_size, exact_in_fp16, pack
from parcae_mobile.errors import ToolMissingError
from quantize.apply import QuantizedModel
from quantize.tensor import QuantizedTensor

MACHINE_EPSILON = torch.finfo(torch.float32).eps
HALF = ".half"  # suffix of initializers that are stored in fp16
aten = torch.ops.aten


class StageLowering:
    """Lowers one stage into `nodes`; initializers go to a dictionary that the stages of one graph share.

    Values of the stage are named `prefix` + name, its inputs and outputs as `names` maps them (themselves otherwise).
    Where queries and keys are quantized alike, one product gives both (`joined.py`), if the class `joins`.
    """

    joins = True
    pads_heads = True  # to what GroupQueryAttention takes

    def __init__(
        self,
        stage: Stage,
        quantized: QuantizedModel,
        weights: WeightFile,
        initializers: dict[str, TensorProto],
        accuracy_level: int,
        prefix: str = "",
        names: dict[str, str] | None = None,
        kv_scales: list[tuple[float, float]] | None = None,
    ) -> None:
        self.stage, self.quantized, self.weights, self.initializers = stage, quantized, weights, initializers
        self.accuracy_level, self.prefix, self.names = accuracy_level, prefix, names or {}
        self.nodes: list[NodeProto] = []
        self.values: dict[fx.Node, Any] = {}
        self.parameters: dict[fx.Node, str] = {}
        self.total_less_one: str | None = None
        self.flat: set[str] = set()  # values (1, S, width) that attention takes as they are
        self._early = False  # whether rows are chosen before the stage's last nodes, see rows.py
        self.kv_scales = iter(kv_scales) if kv_scales is not None else None

    def run(self) -> list[NodeProto]:
        """The stage's nodes in order."""
        signature = self.stage.program.graph_signature
        targets = {spec.arg.name: spec.target for spec in signature.input_specs if spec.target is not None}
        user_inputs = iter(self.stage.inputs)
        graph = self.stage.program.graph
        for node in graph.find_nodes(op="placeholder"):
            if node.name in targets:
                self.parameters[node] = targets[node.name].removeprefix("model.")
            else:
                name = next(user_inputs)
                self.values[node] = self.names.get(name, name)
        pairs = {attention: pair for attention, *pair in query_key_pairs(graph) if self._joinable(*pair)}
        joined = {node for pair in pairs.values() for branch in pair for node in branch.nodes}
        rows = rows_first(graph) if self.joins else None
        chosen = "" if rows is None else self.values[rows.positions]
        self._early = bool(chosen)
        for node in graph.nodes:
            if rows is not None and chosen and node is rows.inside[0]:
                self.values |= {n: self.emit("Gather", [self.values[n], chosen], axis=1) for n in rows.inputs}
            if node.op == "output":
                self._outputs(node)
            elif node.op == "call_function" and node not in joined:
                if node in pairs:
                    self._query_and_key(*pairs[node])
                self._call(node)
        return self.nodes

    def _joinable(self, query: Branch, key: Branch) -> bool:
        names = [self.parameters.get(branch.linear.args[1], "") for branch in (query, key)]
        return self.joins and joinable([self.quantized.tensors.get(name) for name in names])

    def _query_and_key(self, query: Branch, key: Branch) -> None:
        """Normalised queries and keys, (1, S, width) each, from one product and one norm."""
        names = [self.parameters[branch.linear.args[1]] for branch in (query, key)]
        tensors = [self.quantized.tensors[name] for name in names]
        rows, size = [tensor.shape[0] for tensor in tensors], query.norm.args[1][-1]
        both = self._product(self.operand(query.linear.args[0]), joined_name(*names), join(tensors))
        heads = self._norm(self.reshape(both, [1, -1, sum(rows) // size, size]), size)
        split = [self.reshape(heads, [1, -1, sum(rows)]), self.constant(np.array(rows, np.int64))]
        self.values[query.norm], self.values[key.norm] = flat = self.emit("Split", split, outputs=2, axis=-1)
        self.flat.update(flat)

    def emit(self, op: str, inputs: list[str], outputs: int = 1, domain: str = "", **attributes: Any) -> Any:
        """Add a node; returns its output's name, or the list of names."""
        label = f"{self.prefix}{op}_{len(self.nodes)}"
        names = [label] if outputs == 1 else [f"{label}.{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, names, name=label, domain=domain, **attributes))
        return names[0] if outputs == 1 else names

    def constant(self, value: np.ndarray, name: str | None = None) -> str:
        """An initializer, shared by value for small constants and by name for named ones."""
        if name is None:
            name = f"const.{value.dtype.name}.{'x'.join(map(str, value.shape))}.{value.tobytes().hex()}"
        if name not in self.initializers:
            self.initializers[name] = self.weights.initializer(name, value)
        return name

    def weight(self, node: Any, transform: Callable[[np.ndarray], np.ndarray] | None = None, tag: str = "") -> str:
        """A float parameter or buffer, in fp32: an initializer, or what `half_casts` makes of one that fp16 holds."""
        return self.stored(node, transform, tag).removesuffix(HALF)

    def stored(self, node: Any, transform: Callable[[np.ndarray], np.ndarray] | None = None, tag: str = "") -> str:
        """A float parameter or buffer as an initializer, in fp16 (its name says so) where the recipe rounded it."""
        name = self._canonical(self.parameters[node])
        label = name + tag + (HALF if name in self.quantized.halves else "")
        if label in self.initializers:
            return label
        array = as_numpy(self._tensor(node))
        array = array if transform is None else transform(array)
        return self.constant(array.astype(np.float16) if label.endswith(HALF) else array, label)

    def _tensor(self, node: Any) -> torch.Tensor:
        program, name = self.stage.program, "model." + self.parameters[node]
        return program.state_dict[name] if name in program.state_dict else program.constants[name]

    def _canonical(self, name: str) -> str:
        tied = self.quantized.model.config.tie_embeddings
        return "transformer.wte.weight" if tied and name == "lm_head.weight" else name

    def _call(self, node: Any) -> None:
        handler = _HANDLERS.get(node.target)
        if handler is None:
            raise ToolMissingError(f"ONNX: no lowering for {node.target}; this model cannot be exported to ONNX yet")
        self.values[node] = handler(self, node)

    def _outputs(self, node: Any) -> None:
        for name, value in zip(self.stage.outputs, node.args[0], strict=True):
            target = self.names.get(name, name)
            source = self.values[value]
            producer = next((n for n in self.nodes if source in n.output), None)
            if producer is None:
                self.nodes.append(helper.make_node("Identity", [source], [target], name=f"{self.prefix}{target}"))
                continue
            for other in self.nodes:
                for names in (other.output, other.input):
                    for index, present in enumerate(names):
                        if present == source:
                            names[index] = target
            self.values[value] = target

    def operand(self, value: Any, like: str = "float32") -> str:
        """A value of the graph, a parameter, or a Python number as an initializer."""
        if isinstance(value, fx.Node):
            return self.weight(value) if value in self.parameters else self.values[value]
        return self.constant(np.array(value, like))

    def linear(self, node: Any) -> str:
        x, weight = self.operand(node.args[0]), node.args[1]
        assert isinstance(weight, fx.Node)
        tensor = self.quantized.tensors.get(self._canonical(self.parameters[weight]))
        if tensor is None:
            out = self.emit("FusedMatMul", [x, self.weight(weight)], domain=MS, transB=1)
        else:
            out = self._product(x, self._canonical(self.parameters[weight]), tensor)
        bias = node.args[2] if len(node.args) > 2 else None
        return out if bias is None else self.emit("Add", [out, self.operand(bias)])

    def _product(self, x: str, name: str, tensor: QuantizedTensor) -> str:
        """`x` times a quantized matrix, whose initializers are named after `name`."""
        packed, scales, zeros = self._packed(name, tensor)
        rows, columns = tensor.shape
        return self.emit(
            "MatMulNBits",
            [x, packed, scales, *([zeros] if zeros else [])],
            domain=MS,
            N=rows,
            K=columns,
            bits=tensor.bits,
            block_size=block_size(tensor, _gathered(name)),
            accuracy_level=self.accuracy_level,
        )

    def embedding(self, node: Any) -> str:
        weight, ids = node.args[0], self.operand(node.args[1])
        assert isinstance(weight, fx.Node)
        name = self._canonical(self.parameters[weight])
        tensor = self.quantized.tensors.get(name)
        if tensor is None:
            return self.gather(self.stored(weight), ids)
        packed, scales, zeros = self._packed(name, tensor, flat=True)
        rows = self.emit(
            "GatherBlockQuantized",
            [packed, ids, scales, *([zeros] if zeros else [])],
            domain=MS,
            bits=tensor.bits,
            block_size=block_size(tensor, gathered=True),
            gather_axis=0,
            quantize_axis=1,
        )
        columns, block = tensor.shape[1], block_size(tensor, gathered=True)
        if columns % block:
            rows = self.cut(rows, 2, columns)
        return self.emit("Cast", [rows], to=TensorProto.FLOAT) if self._scales_in_halves(name, tensor) else rows

    def _scales_in_halves(self, name: str, tensor: QuantizedTensor) -> bool:
        """A table's, where fp16 is exact. `MatMulNBits` wants scales of its input's type, so the head's stay fp32."""
        return exact_in_fp16(tensor) and self._canonical("lm_head.weight") != name

    def gather(self, table: str, ids: str, axis: int = 0) -> str:
        """Rows (or columns) of a float table, in fp32."""
        taken = self.emit("Gather", [table, ids], axis=axis)
        return self.emit("Cast", [taken], to=TensorProto.FLOAT) if table.endswith(HALF) else taken

    def _packed(self, name: str, tensor: QuantizedTensor, flat: bool = False) -> tuple[str, str, str | None]:
        """Initializers of a quantized matrix, in the shape for MatMulNBits or (flat) for GatherBlockQuantized."""
        suffix = ".rows" if flat else ".blocks"
        if name + ".integers" + suffix not in self.initializers:
            packed, scales, zeros = pack(tensor, _gathered(name))
            if flat and self._scales_in_halves(name, tensor):
                scales = scales.astype(np.float16)
            parts = {"integers": packed.reshape(len(packed), -1) if flat else packed, "scales": scales, "zeros": zeros}
            for part, array in parts.items():
                if array is not None:
                    label = f"{name}.{part}"
                    self.initializers[label + suffix] = self.weights.initializer(label + suffix, array, key=label)
        has_zeros = name + ".zeros" + suffix in self.initializers
        labels = [f"{name}.{part}{suffix}" for part in ("integers", "scales", "zeros")]
        return labels[0], labels[1], labels[2] if has_zeros else None

    def rms_norm(self, node: Any) -> str:
        width = node.args[1][-1]
        weight = node.args[2] if len(node.args) > 2 else None
        epsilon = node.args[3] if len(node.args) > 3 and node.args[3] is not None else MACHINE_EPSILON
        x = self.operand(node.args[0])
        return self._norm(x, width, None if weight is None else self.operand(weight), epsilon)

    def _norm(self, x: str, width: int, scale: str | None = None, epsilon: float = MACHINE_EPSILON) -> str:
        scale = scale or self.constant(np.ones(width, np.float32), f"ones.{width}")
        return self.emit("RMSNormalization", [x, scale], axis=-1, epsilon=epsilon)

    def layer_norm(self, node: Any) -> str:
        inputs = [self.operand(value) for value in (node.args[0], node.args[2], node.args[3])]
        return self.emit("LayerNormalization", inputs, axis=-1, epsilon=node.args[4])

    def view(self, node: Any) -> str:
        source = node.args[0]
        users = [user.target for user in node.users]
        if self.joins and users == [torch.ops.parcae.cached_attention.default] and source.meta["val"].dim() == 3:
            self.flat.add(self.operand(source))
            return self.operand(source)  # attention would undo it
        shape = [size if isinstance(size, int) else -1 for size in node.args[1]]
        return self.reshape(self.operand(node.args[0]), shape)

    def reshape(self, value: str, shape: list[int]) -> str:
        return self.emit("Reshape", [value, self.constant(np.array(shape, np.int64))])

    def cut(self, value: str, axis: int, size: int) -> str:
        """The first `size` entries along an axis."""
        bounds = [self.constant(np.array([number], np.int64)) for number in (0, size, axis)]
        return self.emit("Slice", [value, *bounds])

    def concatenate(self, node: Any) -> str:
        axis = node.args[1] if len(node.args) > 1 else 0
        return self.emit("Concat", [self.operand(value) for value in node.args[0]], axis=axis)

    def slice(self, node: Any) -> str:
        x, axis, start, end = node.args
        bounds = [self.constant(np.array([value], np.int64)) for value in (start, min(end, 2**62), axis)]
        return self.emit("Slice", [self.operand(x), *bounds])

    def clamp(self, node: Any) -> str:
        return self.emit("Clip", [self.operand(value) for value in node.args])

    def chunk(self, node: Any) -> list[str]:
        return self.emit("Split", [self.operand(node.args[0])], outputs=node.args[1], axis=-1, num_outputs=node.args[1])


def _gathered(name: str) -> bool:
    """Whether rows of a matrix are looked up, so that its blocks have to fit them."""
    return name == "transformer.wte.weight" or name.startswith("value_embeds.")


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


def _binary(op: str) -> Callable[[StageLowering, Any], str]:
    return lambda low, node: low.emit(op, [low.operand(node.args[0]), low.operand(node.args[1])])


def _unary(op: str) -> Callable[[StageLowering, Any], str]:
    return lambda low, node: low.emit(op, [low.operand(node.args[0])])


def _twice(low: StageLowering, node: Any) -> str:
    x = low.operand(node.args[0])
    return low.emit("Mul", [x, x])


def _alias(low: StageLowering, node: Any) -> Any:
    source = node.args[0]
    if source in low.parameters:
        low.parameters[node] = low.parameters[source]
        return None
    return low.operand(source)


def _silu(low: StageLowering, node: Any) -> str:
    x = low.operand(node.args[0])
    return low.emit("Mul", [x, low.emit("Sigmoid", [x])])


def _index_select(low: StageLowering, node: Any) -> str:
    x, indices = low.operand(node.args[0]), low.operand(node.args[2])
    taken = low._early or not indices  # chosen before, or mapped to "": take all
    return x if taken else low.emit("Gather", [x, indices], axis=node.args[1])


def _select(low: StageLowering, node: fx.Node) -> str:
    index = low.constant(np.array(node.args[2], np.int64))
    return low.emit("Gather", [low.operand(node.args[0]), index], axis=node.args[1])


def _unsqueeze(low: StageLowering, node: Any) -> str:
    return low.emit("Unsqueeze", [low.operand(node.args[0]), low.constant(np.array([node.args[1]], np.int64))])


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
    aten.add.Tensor: _binary("Add"),
    aten.mul.Tensor: _binary("Mul"),
    aten.div.Tensor: _binary("Div"),
    aten.relu.default: _unary("Relu"),
    aten.sigmoid.default: _unary("Sigmoid"),
    aten.tanh.default: _unary("Tanh"),
    aten.gelu.default: _unary("Gelu"),
    aten.silu.default: _silu,
    aten.square.default: _twice,
    aten.index_select.default: _index_select,
    aten.select.int: _select,
    aten.unsqueeze.default: _unsqueeze,
    aten.alias.default: _alias,
    aten.to.dtype: lambda low, node: low.operand(node.args[0]),
    aten.sym_size.int: lambda low, node: None,
    aten._assert_tensor_metadata.default: lambda low, node: None,
    torch.ops.parcae.cached_attention.default: cached_attention,
    operator.getitem: lambda low, node: low.values[node.args[0]][node.args[1]],
}
