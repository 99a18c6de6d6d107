"""The ONNX weights file: every tensor stored once, on a page boundary, and referred to by all graphs beside it.

Graphs that need one matrix in two shapes (the token table for `GatherBlockQuantized`, the tied head for `MatMulNBits`)
get two initializers with the same place in the file, so neither the file nor a memory map holds it twice.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper
from torch import Tensor

from export.targets.onnx.shapes import block_columns
from quantize.tensor import QuantizedTensor

PAGE = 4096
INLINE_BYTES = 1024
FP16_MAX = float(np.finfo(np.float16).max)


class WeightFile:
    """Writes tensors to `path` in the order in which they are first asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("wb")
        self._places: dict[str, tuple[int, int]] = {}

    def initializer(self, name: str, array: np.ndarray, key: str | None = None) -> TensorProto:
        """An initializer with the array's data; arrays with equal `key` (the name if not given) share their bytes."""
        array = np.ascontiguousarray(array)
        proto = TensorProto(name=name, data_type=helper.np_dtype_to_tensor_dtype(array.dtype), dims=array.shape)
        if array.nbytes < INLINE_BYTES:
            proto.raw_data = array.tobytes()
            return proto
        offset, length = self._store(key or name, array)
        proto.data_location = TensorProto.EXTERNAL
        for field, value in (("location", self.path.name), ("offset", str(offset)), ("length", str(length))):
            proto.external_data.add(key=field, value=value)
        return proto

    def close(self) -> None:
        self._file.close()

    def _store(self, key: str, array: np.ndarray) -> tuple[int, int]:
        if key not in self._places:
            self._file.write(b"\0" * (-self._file.tell() % PAGE))
            self._places[key] = (self._file.tell(), array.nbytes)
            self._file.write(array.tobytes())
        offset, length = self._places[key]
        if length != array.nbytes:
            raise ValueError(f"{key} is stored with {length} bytes, not {array.nbytes}")
        return offset, length


def block_size(tensor: QuantizedTensor, gathered: bool = False) -> int:
    """Columns per block of the kernels (shapes.py): several blocks have one scale where a group is wider."""
    return block_columns(tensor.shape[1], tensor.group_size, gathered)


def pack(tensor: QuantizedTensor, gathered: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """MatMulNBits layout: bytes (rows, blocks, block * bits / 8), fp32 scales and packed zero points (rows, blocks).

    Integers are shifted to unsigned (symmetric ones get the implicit zero point 2^(bits - 1)), low nibble first; the
    last block is padded with that zero point.
    """
    rows, columns = tensor.shape
    block = block_size(tensor, gathered)
    blocks = -(-columns // block)
    middle = 2 ** (tensor.bits - 1)
    unsigned = np.full((rows, blocks * block), middle, np.uint8)
    unsigned[:, :columns] = (tensor.integers.numpy().astype(np.int16) + middle).astype(np.uint8)
    packed: np.ndarray = unsigned.reshape(rows, blocks, block)
    if tensor.bits == 4:
        packed = packed[..., 0::2] | (packed[..., 1::2] << 4)
    repeat = blocks // tensor.scales.shape[1]
    scales = np.repeat(tensor.scales.numpy(), repeat, axis=1)
    zeros: np.ndarray | None = None
    if tensor.zero_points is not None:
        zeros = np.repeat((tensor.zero_points.numpy().astype(np.int16) + middle).astype(np.uint8), repeat, axis=1)
        if tensor.bits == 4:
            zeros = np.pad(zeros, ((0, 0), (0, zeros.shape[1] % 2)))
            zeros = zeros[:, 0::2] | (zeros[:, 1::2] << 4)
    return packed, scales, zeros


def exact_in_fp16(tensor: QuantizedTensor) -> bool:
    """Whether fp16 holds every integer times its scale: 3 bits and a power of two times 8 bits, of the 11 that it has.

    (Scales are normal in fp16 and exact in bf16.)
    """
    return tensor.symmetric and tensor.bits <= 4 and float(tensor.scales.max()) * 8 <= FP16_MAX


def unpack(packed: np.ndarray, bits: int, columns: int) -> np.ndarray:
    """The inverse of `pack` for the integers: bytes (rows, ...) -> int8 (rows, columns)."""
    flat = packed.reshape(packed.shape[0], -1)
    if bits == 4:
        flat = np.stack([flat & 15, flat >> 4], axis=-1).reshape(packed.shape[0], -1)
    return (flat[:, :columns].astype(np.int16) - 2 ** (bits - 1)).astype(np.int8)


def as_numpy(tensor: Tensor) -> np.ndarray:
    """A detached fp32 array."""
    return tensor.detach().float().numpy()
