"""The portable ONNX flavour: standard operators only, for runtimes without onnxruntime's contrib operators.

    PortableLowering(stage, quantized, weights, initializers, accuracy_level=0).run()

Matrices are stored transposed (columns x rows), as standard `MatMul` takes them; quantized ones are int4 or int8
initializers behind `DequantizeLinear` (blockwise since opset 21), which onnxruntime turns into its packed kernel where
the result has one consumer. Attention is spelled out (`attention.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from onnx import TensorProto

from export.targets.onnx.lowering import StageLowering
from export.targets.onnx.portable.attention import PortableAttention
from parcae_mobile.errors import ToolMissingError
from quantize.tensor import QuantizedTensor

aten = torch.ops.aten
COLUMNS = ".columns"  # suffix of matrices that are stored transposed
TABLE = "transformer.wte.weight"


class PortableLowering(StageLowering):
    """Lowers a stage to standard operators.

    With `growing` caches a present is its past with the chunk appended, as stock clients expect of standard operators;
    otherwise the chunk is scattered into the past. With `chunks_only` as well a present is the chunk alone, and whoever
    composes the graph appends it. `private` prefixes the names of quantized matrices, which lie in the body of a Scan.
    """

    joins = False
    pads_heads = False

    def __init__(
        self, *stage: Any, growing: bool = False, chunks_only: bool = False, private: str = "", **options: Any
    ) -> None:
        if options.get("kv_scales") is not None:
            raise ToolMissingError(
                "--portable has no int8 cache: standard attention cannot read it; use --kv-dtype fp32"
            )
        super().__init__(*stage, **options)
        self.private, self.portable_attention = private, PortableAttention(self, growing, chunks_only)

    def _call(self, node: Any) -> None:
        handler = _PORTABLE.get(node.target)
        if handler is None:
            super()._call(node)
        else:
            self.values[node] = handler(self, node)

    def linear(self, node: Any) -> str:
        x, weight = self.operand(node.args[0]), node.args[1]
        name = self.canonical(self.parameters[weight])
        tensor = self.quantized.tensors.get(name)
        if tensor is None:
            out = self.emit("MatMul", [x, self.weight(weight, transposed, COLUMNS)])
        else:
            check_portable(name, tensor)
            parts = [self._integers(name, tensor), self._scales(name, tensor)]
            layout: dict[str, Any] = {"axis": 1} if _whole_row(tensor) else {"axis": 0, "block_size": tensor.group_size}
            out = self.emit("MatMul", [x, self.emit("DequantizeLinear", parts, **layout)])
        bias = node.args[2] if len(node.args) > 2 else None
        return out if bias is None else self.emit("Add", [out, self.operand(bias)])

    def embedding(self, node: Any) -> str:
        """Rows of a table. The tied table is read by columns of the head's matrix, so that it is stored once."""
        weight, ids = node.args[0], self.reshape(self.operand(node.args[1]), [-1])
        name = self.canonical(self.parameters[weight])
        tied = self.quantized.config.tie_embeddings and name == TABLE
        tensor = self.quantized.tensors.get(name)
        if tensor is None:
            table = self.stored(weight, transposed, COLUMNS) if tied else self.stored(weight)
            rows = self._by_column(table, ids) if tied else self.gather(table, ids)
        else:
            check_portable(name, tensor)
            rows = self._quantized_rows(name, tensor, ids, tied)
        return self.reshape(rows, [1, -1, self.tensor(weight).shape[1]])

    def _quantized_rows(self, name: str, tensor: QuantizedTensor, ids: str, tied: bool) -> str:
        """(ids, groups, group size) fp32.

        The tied table's initializers have names of their own, so that the head's `DequantizeLinear` stays the only
        consumer of its weights.
        """
        take = self._by_column if tied else self.gather
        if tensor.bits == 4:
            values = self._nibbles(name, tensor, ids, tied)
        else:
            part, table, key = ("table", tensor.integers.T, "columns") if tied else ("rows", tensor.integers, None)
            values = self.emit("Cast", [take(self._stored(name, part, table.numpy(), key), ids)], to=TensorProto.FLOAT)
        if tied:
            take = self.gather if _whole_row(tensor) else take
            scales = self._scales(name, tensor, "table")
        else:
            scales = self._stored(name, "scales.rows", tensor.scales.numpy())
        groups = tensor.scales.shape[1]
        grouped = self.reshape(values, [-1, groups, tensor.group_size])
        return self.emit("Mul", [grouped, self.reshape(take(scales, ids), [-1, groups, 1])])

    def _nibbles(self, name: str, tensor: QuantizedTensor, ids: str, tied: bool) -> str:
        """int4 rows as floats, taken from bytes because `Gather` has no int4: (n xor 8) - 8 is the signed value."""
        four, mask, sign = (self.constant(np.array(value, np.uint8)) for value in (4, 15, 8))
        if tied:  # two rows share a byte
            packed = self._stored(name, "table", pack_nibbles(tensor.integers.T), "columns")
            two = self.constant(np.array(2, np.int64))
            both = self._by_column(packed, self.emit("Div", [ids, two]))
            odd = self.emit("Cast", [self.emit("Mod", [ids, two])], to=TensorProto.UINT8)
            shift = self.reshape(self.emit("Mul", [odd, four]), [-1, 1])
            shifted = self.emit("BitShift", [both, shift], direction="RIGHT")
            unsigned = self.emit("BitwiseAnd", [shifted, mask])
        else:  # two columns share a byte
            both = self.gather(self._stored(name, "rows", pack_nibbles(tensor.integers)), ids)
            last = self.constant(np.array([-1], np.int64))
            low = self.emit("Unsqueeze", [self.emit("BitwiseAnd", [both, mask]), last])
            high = self.emit("Unsqueeze", [self.emit("BitShift", [both, four], direction="RIGHT"), last])
            unsigned = self.emit("Concat", [low, high], axis=-1)
        values = self.emit("Cast", [self.emit("BitwiseXor", [unsigned, sign])], to=TensorProto.FLOAT)
        return self.emit("Sub", [values, self.constant(np.array(8, np.float32))])

    def _by_column(self, matrix: str, ids: str) -> str:
        return self.emit("Transpose", [self.gather(matrix, ids, axis=1)], perm=[1, 0])

    def _integers(self, name: str, tensor: QuantizedTensor) -> str:
        """A quantized matrix (columns, rows): int8, or int4 with the low nibble first."""
        columns = tensor.integers.T
        if tensor.bits == 8:
            return self._stored(name, "columns", columns.numpy())
        label = self._stored(name, "columns", pack_nibbles(columns))
        stored = self.initializers[label]
        stored.data_type = TensorProto.INT4
        del stored.dims[:]
        stored.dims.extend(columns.shape)
        return label

    def _scales(self, name: str, tensor: QuantizedTensor, part: str = "columns") -> str:
        """(groups, rows), or (rows) where a row has one scale."""
        scales = tensor.scales.numpy()
        array = scales[:, 0] if _whole_row(tensor) else scales.T
        return self._stored(name, f"scales.{part}", array, "scales.columns")

    def _stored(self, name: str, part: str, array: np.ndarray, key: str | None = None) -> str:
        label = f"{self.private}{name}.{part}"
        if label not in self.initializers:
            self.initializers[label] = self.weights.initializer(label, array, key=f"{name}.{key or part}")
        return label

    def rms_norm(self, node: Any) -> str:
        """x / sqrt(mean(x^2) + epsilon) * weight."""
        x, weight = self.operand(node.args[0]), node.args[2] if len(node.args) > 2 else None
        epsilon = node.args[3] if len(node.args) > 3 and node.args[3] is not None else torch.finfo(torch.float32).eps
        square = self.emit("Pow", [x, self.constant(np.array(2, np.float32))])
        mean = self.emit("ReduceMean", [square, self.constant(np.array([-1], np.int64))], keepdims=1)
        root = self.emit("Sqrt", [self.emit("Add", [mean, self.constant(np.array(epsilon, np.float32))])])
        normed = self.emit("Div", [x, root])
        return normed if weight is None else self.emit("Mul", [normed, self.operand(weight)])


def transposed(array: np.ndarray) -> np.ndarray:
    """(rows, columns) -> (columns, rows), contiguous."""
    return np.ascontiguousarray(array.T)


def check_portable(name: str, tensor: QuantizedTensor) -> None:
    """Raise `ToolMissingError` for integers that this flavour does not write."""
    odd = tensor.bits == 4 and (tensor.shape[0] % 2 or tensor.shape[1] % 2)
    if tensor.bits not in (4, 8) or not tensor.symmetric or odd:
        kind = f"{'' if tensor.symmetric else 'a'}symmetric, {tensor.bits} bits, {tensor.shape[0]} x {tensor.shape[1]}"
        raise ToolMissingError(f"--portable takes symmetric matrices of 4 (even sizes) or 8 bits; {name} is {kind}")


def pack_nibbles(integers: torch.Tensor) -> np.ndarray:
    """(rows, columns) int4 -> (rows, columns / 2) bytes in two's complement, the low nibble first."""
    nibbles = integers.numpy().astype(np.uint8) & 15
    return nibbles[:, 0::2] | (nibbles[:, 1::2] << 4)


def _whole_row(tensor: QuantizedTensor) -> bool:
    return tensor.group_size == tensor.shape[1]


_PORTABLE: dict[Any, Callable[[PortableLowering, Any], Any]] = {
    aten.linear.default: PortableLowering.linear,
    aten.embedding.default: PortableLowering.embedding,
    aten.rms_norm.default: PortableLowering.rms_norm,
    torch.ops.parcae.cached_attention.default: lambda low, node: low.portable_attention.lower(node),
}
