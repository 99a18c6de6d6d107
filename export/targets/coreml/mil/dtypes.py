"""Data types of MIL: their codes in the protobuf and in weight.bin, their width, and the torch dtype that carries them.

Torch has no arithmetic on uint16 and uint32 and no 1 to 6 bit tensors, so those are carried in the next type that holds
every value; `round_to` is where a result is brought back to what the program declared.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, eq=False)  # there is one object of each, and they are compared for every result
class DType:
    """One MIL data type.

    `code` is `CoreML.Specification.MILSpec.DataType`; `blob_code` is the data type field of a blob in weight.bin
    (None where the format has none); `carrier` is the torch dtype of the tensors that hold its values.
    """

    name: str
    code: int
    bits: int
    carrier: torch.dtype
    blob_code: int | None = None
    signed: bool = True

    @property
    def is_float(self) -> bool:
        return self.carrier.is_floating_point

    @property
    def is_integer(self) -> bool:
        return not self.is_float and self.carrier is not torch.bool

    @property
    def low(self) -> int:
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def high(self) -> int:
        return (1 << (self.bits - (1 if self.signed else 0))) - 1

    def __str__(self) -> str:
        return self.name


BOOL = DType("bool", 1, 8, torch.bool, 3, signed=False)
FP16 = DType("fp16", 10, 16, torch.float16, 1)
FP32 = DType("fp32", 11, 32, torch.float32, 2)
FP64 = DType("fp64", 12, 64, torch.float64)
BF16 = DType("bf16", 13, 16, torch.bfloat16, 5)
INT4 = DType("int4", 25, 4, torch.int8, 8)
INT8 = DType("int8", 21, 8, torch.int8, 4)
INT16 = DType("int16", 22, 16, torch.int16, 6)
INT32 = DType("int32", 23, 32, torch.int32, 14)
INT64 = DType("int64", 24, 64, torch.int64)
UINT1 = DType("uint1", 37, 1, torch.uint8, 9, signed=False)
UINT2 = DType("uint2", 36, 2, torch.uint8, 10, signed=False)
UINT3 = DType("uint3", 39, 3, torch.uint8, 12, signed=False)
UINT4 = DType("uint4", 35, 4, torch.uint8, 11, signed=False)
UINT6 = DType("uint6", 38, 6, torch.uint8, 13, signed=False)
UINT8 = DType("uint8", 31, 8, torch.uint8, 3, signed=False)
UINT16 = DType("uint16", 32, 16, torch.int32, 7, signed=False)
UINT32 = DType("uint32", 33, 32, torch.int64, 15, signed=False)

# Strings only occur as scalar options such as cast's dtype; no tensor carries them.
STRING = DType("string", 2, 8, torch.uint8, signed=False)

DTYPES: tuple[DType, ...] = (
    BOOL, FP16, FP32, FP64, BF16, INT4, INT8, INT16, INT32, INT64,
    UINT1, UINT2, UINT3, UINT4, UINT6, UINT8, UINT16, UINT32,
)  # fmt: skip
BY_CODE: dict[int, DType] = {dtype.code: dtype for dtype in DTYPES}
BY_NAME: dict[str, DType] = {dtype.name: dtype for dtype in DTYPES}


def round_to(tensor: torch.Tensor, dtype: DType) -> torch.Tensor:
    """`tensor` in the carrier of `dtype`: floats rounded to nearest even, integers checked for range.

    Raises ValueError where the kinds differ (an integer result for a float type, say) or an integer does not fit.
    """
    if tensor.dtype is torch.bool or dtype is BOOL:
        if tensor.dtype is not torch.bool or dtype is not BOOL:
            raise ValueError(f"the result is {tensor.dtype}, which is no {dtype}")
        return tensor
    if tensor.is_floating_point() != dtype.is_float:
        raise ValueError(f"the result is {tensor.dtype}, which is no {dtype}")
    if dtype.is_integer and (tensor.dtype != dtype.carrier or torch.iinfo(dtype.carrier).max != dtype.high):
        require_range(tensor, dtype)
    return tensor.to(dtype.carrier)


def require_range(tensor: torch.Tensor, dtype: DType) -> None:
    """Raises ValueError where a value of `tensor` (float or integer) lies outside of the integer type `dtype`."""
    if tensor.numel() == 0:
        return
    low, high = tensor.amin().item(), tensor.amax().item()
    # Negated, so that NaN fails too.
    if not (dtype.low <= low and high <= dtype.high):
        raise ValueError(f"values from {low} to {high} do not fit {dtype}")
