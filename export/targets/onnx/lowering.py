"""A traced stage to ONNX nodes: matrices, tables, norms and attention as onnxruntime's own operators.

Quantized parameters become `MatMulNBits` and `GatherBlockQuantized` (com.microsoft), float matrices `FusedMatMul` on
the matrix as the checkpoint stores it, and cached attention `GroupQueryAttention`, whose cache may be updated in place.
Everything else is a plain operator (`operators.py`); one that is in no table is an error that names it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from onnx import NodeProto, TensorProto, helper
from torch import fx

from export.stages import Stage
from export.targets.onnx.attention import FusedAttention
from export.targets.onnx.graph import MS
from export.targets.onnx.nodes import StageNodes
from export.targets.onnx.operators import PLAIN
from export.targets.onnx.rewrites.joined import Branch, join, joinable, joined_name, query_key_pairs
from export.targets.onnx.rewrites.rows import rows_first
from export.targets.onnx.weights import WeightFile, block_size, exact_in_fp16, pack
from parcae_mobile.errors import ToolMissingError
from quantize.apply import QuantizedModel
from quantize.tensor import QuantizedTensor

MACHINE_EPSILON = torch.finfo(torch.float32).eps
aten = torch.ops.aten


class StageLowering(StageNodes):
    """Lowers one stage into `nodes`. `kv_scales` are an int8 cache's, of each layer's keys and values.

    Where queries and keys are quantized alike, one product gives both (`joined.py`), if the class `joins`. `in_place`
    says that a past is a buffer with room for the chunk.
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
        *,
        prefix: str = "",
        names: dict[str, str] | None = None,
        kv_scales: list[tuple[float, float]] | None = None,
        all_positions: bool = False,
        in_place: bool = True,
    ) -> None:
        super().__init__(stage, quantized, weights, initializers, prefix, names, all_positions)
        self.accuracy_level = accuracy_level
        self.attention = FusedAttention(self, kv_scales, in_place)

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
        rows = rows_first(graph) if self.joins and not self.rows_settled else None
        for node in graph.nodes:
            if rows is not None and node is rows.inside[0]:
                chosen = self.values[rows.positions]
                self.values |= {n: self.emit("Gather", [self.values[n], chosen], axis=1) for n in rows.inputs}
                self.rows_settled = True
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
        self.attention.flat.update(flat)

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

    def linear(self, node: Any) -> str:
        x, weight = self.operand(node.args[0]), node.args[1]
        assert isinstance(weight, fx.Node)
        tensor = self.quantized.tensors.get(self.canonical(self.parameters[weight]))
        if tensor is None:
            out = self.emit("FusedMatMul", [x, self.weight(weight)], domain=MS, transB=1)
        else:
            out = self._product(x, self.canonical(self.parameters[weight]), tensor)
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
        name = self.canonical(self.parameters[weight])
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
        if tensor.shape[1] % block_size(tensor, gathered=True):
            rows = self.cut(rows, 2, tensor.shape[1])
        return self.emit("Cast", [rows], to=TensorProto.FLOAT) if self._scales_in_halves(name, tensor) else rows

    def _scales_in_halves(self, name: str, tensor: QuantizedTensor) -> bool:
        """A table's, where fp16 is exact. `MatMulNBits` wants scales of its input's type, so the head's stay fp32."""
        return exact_in_fp16(tensor) and self.canonical("lm_head.weight") != name

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

    def view(self, node: Any) -> str:
        source = node.args[0]
        users = [user.target for user in node.users]
        if self.joins and users == [torch.ops.parcae.cached_attention.default] and source.meta["val"].dim() == 3:
            self.attention.flat.add(self.operand(source))
            return self.operand(source)  # attention would undo it
        shape = [size if isinstance(size, int) else -1 for size in node.args[1]]
        return self.reshape(self.operand(node.args[0]), shape)


def _gathered(name: str) -> bool:
    """Whether rows of a matrix are looked up, so that its blocks have to fit them."""
    return name == "transformer.wte.weight" or name.startswith("value_embeds.")


_HANDLERS: dict[Any, Callable[[StageLowering, Any], Any]] = {
    **PLAIN,
    aten.linear.default: StageLowering.linear,
    aten.embedding.default: StageLowering.embedding,
    aten.rms_norm.default: StageLowering.rms_norm,
    aten.view.default: StageLowering.view,
    torch.ops.parcae.cached_attention.default: lambda low, node: low.attention.lower(node),
}
