"""Compressed constants: against coremltools' own decompression, bit for bit, and against the formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from export.targets.coreml.mil.dtypes import BY_NAME
from export.targets.coreml.mil.errors import ExecutionError
from export.targets.coreml.mil.registry import Value


def stored(name: str, array: np.ndarray) -> Value:
    """What the blob reader gives for a constant of type `name`."""
    return Value(torch.from_numpy(array.astype(np.int64)).to(BY_NAME[name].carrier), BY_NAME[name], constant=True)


def operation(mil: Any, name: str) -> Any:
    from coremltools.converters.mil.mil.ops.defs.iOS18 import compression

    assert mil is not None
    return getattr(compression, name)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_blockwise_shift_scale_is_bit_equal_to_coremltools(mil: Any, kernel: Any, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["int4", "uint4", "int8", "uint8"]))
    grid = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    block = data.draw(st.lists(st.integers(1, 4), min_size=len(grid), max_size=len(grid)))
    with_offset = data.draw(st.booleans())
    floats = data.draw(st.sampled_from([np.float16, np.float32]))
    rng, dtype = np.random.default_rng(data.draw(st.integers(0, 99))), BY_NAME[name]
    shape = np.multiply(grid, block)
    integers = rng.integers(dtype.low, dtype.high, shape, endpoint=True)
    scale = (rng.random(grid) * 0.1).astype(floats)
    offset = rng.integers(dtype.low, dtype.high, grid, endpoint=True) if with_offset else None
    options = {} if offset is None else {"offset": stored(name, offset)}
    result = kernel("constexpr_blockwise_shift_scale", data=stored(name, integers), scale=scale, **options)
    expected = operation(mil, "constexpr_blockwise_shift_scale").decompress(integers, scale, offset)
    assert result.numpy().dtype == floats
    assert np.array_equal(result.numpy(), expected.astype(floats))


def test_blocks_must_divide_the_data(kernel: Any) -> None:
    data = stored("int4", np.zeros((2, 6)))
    for grid in [(2, 4), (2,), (3, 2)]:
        with pytest.raises(ExecutionError, match="does not divide"):
            kernel("constexpr_blockwise_shift_scale", data=data, scale=np.ones(grid, np.float16))
    with pytest.raises(ExecutionError, match="differ"):
        kernel(
            "constexpr_blockwise_shift_scale",
            data=data, scale=np.ones((2, 2), np.float16), offset=stored("int4", np.zeros((1, 2))),
        )  # fmt: skip


@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_palettes_are_equal_to_coremltools(mil: Any, kernel: Any, data: st.DataObject) -> None:
    bits = data.draw(st.sampled_from([1, 2, 3, 4, 6, 8]))
    width = data.draw(st.integers(1, 3))
    grid = data.draw(st.lists(st.integers(1, 2), min_size=1, max_size=3))
    block = data.draw(st.lists(st.integers(1, 3), min_size=len(grid), max_size=len(grid)))
    axis = data.draw(st.integers(0, len(grid) - 1)) if width > 1 or data.draw(st.booleans()) else None
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    indices = rng.integers(0, 2**bits, np.multiply(grid, block))
    lut = rng.standard_normal([*grid, 2**bits, width]).astype(np.float16)
    options = {} if axis is None else {"vector_axis": axis}
    result = kernel("constexpr_lut_to_dense", indices=stored(f"uint{bits}", indices), lut=lut, **options)
    expected = operation(mil, "constexpr_lut_to_dense").decompress(indices.astype(np.uint8), lut, axis)
    assert np.array_equal(result.numpy(), expected)


def test_the_palette_example_of_the_reference(kernel: Any) -> None:
    indices = np.array([2, 3, 3, 0, 1, 0, 3, 0, 2, 1, 0, 3]).reshape(6, 2)
    lut = np.array([1, 5, 9, 13, 2, 10, 18, 26], np.float16).reshape(2, 1, 4, 1)
    result = kernel("constexpr_lut_to_dense", indices=stored("uint2", indices), lut=lut)
    assert result.tolist() == [[9, 13], [13, 1], [5, 1], [26, 2], [18, 10], [2, 26]]


def test_the_ios_16_palette_has_packed_indices(kernel: Any) -> None:
    # 0, 3, 2, 1, 3 in two bits each, least significant first.
    packed = np.array([0b01_10_11_00, 0b11], np.uint8)
    lut = np.array([10, 20, 30, 40], np.float16)
    shape = Value(torch.tensor([5]), BY_NAME["uint32"])
    result = kernel("constexpr_lut_to_dense", opset=6, indices=packed, lut=lut, shape=shape)
    assert result.tolist() == [10, 40, 30, 20, 40]
    with pytest.raises(ExecutionError, match="has 1 bytes, want 2"):
        kernel("constexpr_lut_to_dense", opset=6, indices=packed[:1], lut=lut, shape=shape)


def test_an_index_beyond_the_palette_is_an_error(kernel: Any) -> None:
    with pytest.raises(ExecutionError, match="index 3 into a palette of 2"):
        lut = np.zeros((1, 2, 1), np.float16)
        kernel("constexpr_lut_to_dense", indices=stored("uint2", np.array([3])), lut=lut)


@pytest.mark.parametrize("per_axis", [False, True])
def test_affine_dequantize(kernel: Any, per_axis: bool) -> None:
    data = np.array([[1, -2, 3], [4, 5, -6]], np.int8)
    scale = np.array([0.5, 0.25], np.float32) if per_axis else np.float32(0.5)
    zero = np.array([1, -1], np.int8) if per_axis else np.int8(1)
    result = kernel("constexpr_affine_dequantize", quantized_data=data, scale=scale, zero_point=zero, axis=0)
    columns = (np.reshape(zero, (-1, 1)), np.reshape(scale, (-1, 1)))
    assert np.array_equal(result.numpy(), (data.astype(np.float32) - columns[0]) * columns[1])


def test_sparse_constants_in_both_forms(kernel: Any) -> None:
    values = np.array([1, 2, 3], np.float16)
    mask = stored("uint1", np.array([[0, 1, 1], [1, 0, 0]]))
    dense = [[0, 1, 2], [3, 0, 0]]
    assert kernel("constexpr_sparse_to_dense", nonzero_data=values, mask=mask).tolist() == dense
    packed = np.array([0b001110], np.uint8)
    shape = Value(torch.tensor([2, 3]), BY_NAME["uint32"])
    assert kernel("constexpr_sparse_to_dense", nonzero_data=values, mask=packed, shape=shape).tolist() == dense
    with pytest.raises(ExecutionError, match="2 set bits|set bits"):
        kernel("constexpr_sparse_to_dense", nonzero_data=values[:2], mask=mask)


def test_sparse_palettes_and_blocks_match_coremltools(mil: Any, kernel: Any) -> None:
    rng = np.random.default_rng(0)
    mask = (rng.random((4, 6)) < 0.5).astype(np.uint8)
    count = int(mask.sum())
    indices, lut = rng.integers(0, 2, count).astype(np.uint8), rng.standard_normal((1, 1, 2, 2)).astype(np.float16)
    got = kernel(
        "constexpr_lut_to_sparse",
        indices_mask=stored("uint1", mask), indices_nonzero_data=stored("uint1", indices), lut=lut, vector_axis=0,
    )  # fmt: skip
    want = operation(mil, "constexpr_lut_to_sparse").decompress(mask, indices, lut, 0)
    assert all(np.array_equal(a.numpy(), b) for a, b in zip(got, want, strict=True))
    integers, scale = rng.integers(-8, 8, count).astype(np.int8), rng.random((1, 6)).astype(np.float16)
    got = kernel(
        "constexpr_sparse_blockwise_shift_scale",
        data_mask=stored("uint1", mask), nonzero_data=stored("int4", integers), scale=scale,
    )  # fmt: skip
    want = operation(mil, "constexpr_sparse_blockwise_shift_scale").decompress(mask, integers, scale, None)
    assert all(np.array_equal(a.numpy(), b) for a, b in zip(got, want, strict=True))


def test_constexpr_cast(kernel: Any) -> None:
    result = kernel("constexpr_cast", source_val=np.array([1.5], np.float16), output_dtype="fp32")
    assert result.dtype is torch.float32 and result.tolist() == [1.5]


def test_runtime_quantize_and_dequantize(kernel: Any) -> None:
    x = np.array([[-1.0, 0.25, 0.75, 100.0]], np.float32)
    q = kernel("quantize", input=x, scale=np.float32(0.5), zero_point=np.int8(1), output_dtype="int8")
    assert q.tolist() == [[-1, 1, 3, 127]] and q.dtype is torch.int8
    back = kernel("dequantize", input=q.numpy(), scale=np.float32(0.5), zero_point=np.int8(1))
    assert back.tolist() == [[-1.0, 0.0, 1.0, 63.0]]
