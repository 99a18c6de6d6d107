"""Gathers, scatters and slices: against numpy over drawn shapes and positions, and every way out of range."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from export.targets.coreml.mil.errors import ExecutionError

SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=3)


def counted(shape: list[int] | tuple[int, ...]) -> np.ndarray:
    return np.arange(math.prod(shape), dtype=np.int32).reshape(shape)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


@given(data=st.data())
@settings(max_examples=80, deadline=None)
def test_gather_follows_numpy_take(kernel: Any, data: st.DataObject) -> None:
    x = counted(data.draw(SHAPES))
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    shape = data.draw(st.lists(st.integers(1, 3), max_size=2))
    size = x.shape[axis]
    drawn = data.draw(st.lists(st.integers(0, size - 1), min_size=math.prod(shape), max_size=math.prod(shape)))
    indices = np.array(drawn, np.int32).reshape(shape)
    result = kernel("gather", x=x, indices=indices, axis=axis)
    assert np.array_equal(result.numpy(), np.take(x, indices, axis))


@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_gather_with_batch_dims_takes_each_batch_apart(kernel: Any, data: st.DataObject) -> None:
    batch = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=2))
    middle = data.draw(st.lists(st.integers(1, 2), max_size=1))
    size, tail = data.draw(st.integers(1, 4)), data.draw(st.lists(st.integers(1, 2), max_size=1))
    x = counted([*batch, *middle, size, *tail])
    axis, picks = len(batch) + len(middle), data.draw(st.lists(st.integers(1, 3), max_size=2))
    indices = np.random.default_rng(0).integers(0, size, [*batch, *picks]).astype(np.int32)
    result = kernel("gather", x=x, indices=indices, axis=axis, batch_dims=len(batch)).numpy()
    assert result.shape == (*batch, *middle, *picks, *tail)
    for place in np.ndindex(*batch):
        assert np.array_equal(result[place], np.take(x[place], indices[place], axis - len(batch)))


@pytest.mark.parametrize("dtype", [np.float16, np.int8, np.bool_])
def test_gather_keeps_the_dtype(kernel: Any, dtype: Any) -> None:
    x = np.array([[0, 1], [1, 0]], dtype=dtype)
    assert np.array_equal(kernel("gather", x=x, indices=ints(1, 1), axis=0).numpy(), x[[1, 1]])


@pytest.mark.parametrize("index", [4, -1, -5, 2**31 - 1])
def test_an_index_out_of_range_is_an_error_on_ios_17_and_later(kernel: Any, index: int) -> None:
    with pytest.raises(ExecutionError, match=rf"'indices' has {index}, out of range \[0, 4\)"):
        kernel("gather", x=counted([4, 2]), indices=ints(0, index), axis=0)


def test_negative_indices_count_from_the_end_before_ios_17(kernel: Any) -> None:
    assert kernel("gather", x=counted([4]), indices=ints(-1, -4), axis=0, opset=6).tolist() == [3, 0]
    with pytest.raises(ExecutionError, match="out of range"):
        kernel("gather", x=counted([4]), indices=ints(-5), axis=0, opset=6)


def test_gather_refuses_float_indices_and_batches_that_differ(kernel: Any) -> None:
    with pytest.raises(ExecutionError, match="want integers"):
        kernel("gather", x=counted([4]), indices=np.array([0.0], np.float32), axis=0)
    with pytest.raises(ExecutionError, match="batch_dims"):
        kernel("gather", x=counted([2, 4]), indices=counted([3, 1]), axis=1, batch_dims=1)


@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_gather_and_scatter_along_axis_follow_numpy(kernel: Any, data: st.DataObject) -> None:
    x = counted(data.draw(SHAPES))
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    picks = list(x.shape)
    picks[axis] = data.draw(st.integers(1, x.shape[axis]))
    # Distinct per line, so that the order of writes does not matter.
    order = np.random.default_rng(1).random(x.shape).argsort(axis)
    indices = np.take(order, range(picks[axis]), axis).astype(np.int32)
    taken = kernel("gather_along_axis", x=x, indices=indices, axis=axis)
    assert np.array_equal(taken.numpy(), np.take_along_axis(x, indices, axis))
    updates = -1 - counted(picks)
    expected = x.copy()
    np.put_along_axis(expected, indices, updates, axis)
    written = kernel("scatter_along_axis", data=x, indices=indices, updates=updates, axis=axis, mode="update")
    assert np.array_equal(written.numpy(), expected)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("update", [5.0, 2.0, 8.0]),
        ("add", [6.0, 2.0, 12.0]),
        ("sub", [-4.0, 2.0, -4.0]),
        ("mul", [5.0, 2.0, 32.0]),
        ("div", [0.2, 2.0, 0.5]),
        ("max", [5.0, 2.0, 8.0]),
        ("min", [1.0, 2.0, 4.0]),
    ],
)
def test_scatter_modes(kernel: Any, mode: str, expected: list[float]) -> None:
    data, updates = np.array([1, 2, 4], np.float32), np.array([5, 8], np.float32)
    result = kernel("scatter", data=data, indices=ints(0, 2), updates=updates, axis=0, mode=mode)
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-6)


def test_scatter_writes_whole_rows_and_checks(kernel: Any) -> None:
    data = np.array([[1, 2, 3], [4, 5, 6]], np.int32)
    updates = np.array([[5, 6, 7], [8, 9, 10]], np.int32)
    assert kernel("scatter", data=data, indices=ints(1, 0), updates=updates, axis=0).tolist() == [
        [9, 11, 13],
        [9, 11, 13],
    ]
    with pytest.raises(ExecutionError, match="out of range"):
        kernel("scatter", data=data, indices=ints(2, 0), updates=updates, axis=0)
    with pytest.raises(ExecutionError, match="updates"):
        kernel("scatter", data=data, indices=ints(1), updates=updates, axis=0)
    with pytest.raises(ExecutionError, match="unknown mode"):
        kernel("scatter", data=data, indices=ints(1, 0), updates=updates, axis=0, mode="xor")


def test_gather_nd_and_scatter_nd(kernel: Any) -> None:
    x = counted([2, 3, 4])
    indices = np.array([[0, 1], [1, 2]], np.int32)
    assert np.array_equal(kernel("gather_nd", x=x, indices=indices).numpy(), x[[0, 1], [1, 2]])
    batched = kernel("gather_nd", x=x, indices=np.array([[[2]], [[0]]], np.int32), batch_dims=1)
    assert np.array_equal(batched.numpy(), np.stack([x[0, [2]], x[1, [0]]]))
    expected = x.copy()
    expected[[0, 1], [1, 2]] = -7
    updates = np.full((2, 4), -7, np.int32)
    assert np.array_equal(
        kernel("scatter_nd", data=x, indices=indices, updates=updates, mode="update").numpy(), expected
    )
    for bad in (np.array([[0, 3]], np.int32), np.array([[-1, 0]], np.int32)):
        with pytest.raises(ExecutionError, match="out of range"):
            kernel("gather_nd", x=x, indices=bad)
    with pytest.raises(ExecutionError, match="depth"):
        kernel("gather_nd", x=x, indices=np.zeros((1, 4), np.int32))


@st.composite
def slices(draw: st.DrawFn) -> tuple[np.ndarray, dict[str, Any], tuple[Any, ...]]:
    """x, MIL's parameters of a valid slice, and numpy's index that means the same."""
    shape = draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    options: dict[str, list[Any]] = {
        name: [] for name in ("begin", "end", "stride", "begin_mask", "end_mask", "squeeze_mask")
    }
    index: list[Any] = []
    for size in shape:
        step = draw(st.sampled_from([1, 1, 2, 3, -1, -2]))
        first = draw(st.integers(0, size - 1))
        last = draw(st.integers(first, size) if step > 0 else st.integers(0, first))
        no_begin, no_end, squeeze = (draw(st.booleans()) for _ in range(3))
        negative = draw(st.booleans())
        options["begin"].append(first - size if negative else first)
        options["end"].append(last - size if negative and last < size else last)
        options["stride"].append(1 if squeeze else step)
        options["begin_mask"].append(no_begin and not squeeze)
        options["end_mask"].append(no_end)
        options["squeeze_mask"].append(squeeze)
        index.append(first if squeeze else slice(None if no_begin else first, None if no_end else last, step))
    return (
        counted(shape),
        {key: np.array(value, bool if "mask" in key else np.int32) for key, value in options.items()},
        tuple(index),
    )


@given(case=slices())
@settings(max_examples=150, deadline=None)
def test_slice_by_index_follows_numpy(kernel: Any, case: tuple[np.ndarray, dict[str, Any], tuple[Any, ...]]) -> None:
    x, options, index = case
    assert np.array_equal(kernel("slice_by_index", x=x, **options).numpy(), x[index])


@given(case=slices())
@settings(max_examples=150, deadline=None)
def test_slice_update_writes_exactly_the_slice(
    kernel: Any, case: tuple[np.ndarray, dict[str, Any], tuple[Any, ...]]
) -> None:
    x, options, index = case
    expected = x.copy()
    update = -1 - counted(x[index].shape)
    expected[index] = update
    before = x.copy()
    result = kernel("slice_update", x=x, update=update, **options)
    assert np.array_equal(result.numpy(), expected) and np.array_equal(x, before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"begin": ints(0), "end": ints(6)}, "'end' 6 is out of range for axis 0 of size 5"),
        ({"begin": ints(0), "end": ints(2**31 - 1)}, "'end' 2147483647 is out of range"),
        ({"begin": ints(6), "end": ints(6)}, "'begin' 6"),
        ({"begin": ints(-6), "end": ints(2)}, "'begin' -6"),
        ({"begin": ints(0), "end": ints(-6)}, "'end' -6"),
        ({"begin": ints(3), "end": ints(2)}, "runs from 3 to 2"),
        ({"begin": ints(1), "end": ints(3), "stride": ints(-1)}, "runs from 1 to 3"),
        ({"begin": ints(5), "end": ints(0), "stride": ints(-1)}, "'begin' 5"),
        ({"begin": ints(0), "end": ints(3), "stride": ints(0)}, "stride 0"),
        ({"begin": ints(5), "end": ints(0), "squeeze_mask": np.array([True])}, "'begin' 5"),
        ({"begin": ints(0, 0), "end": ints(1, 1)}, "2 entries for rank 1"),
        ({"begin": ints(0), "end": ints(1), "end_mask": np.array([True, False])}, "2 entries for rank 1"),
    ],
)
def test_slices_out_of_range_are_errors(kernel: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ExecutionError, match=message):
        kernel("slice_by_index", x=counted([5]), **options)
    with pytest.raises(ExecutionError, match=message):
        kernel("slice_update", x=counted([5]), update=ints(1), **options)


def test_slice_update_wants_the_shape_of_the_slice(kernel: Any) -> None:
    with pytest.raises(ExecutionError, match=r"update \[1\], the slice is \[2\]"):
        kernel("slice_update", x=counted([5]), update=ints(1), begin=ints(1), end=ints(3))


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_slice_by_size(kernel: Any, data: st.DataObject) -> None:
    x = counted(data.draw(SHAPES))
    begin = [data.draw(st.integers(0, size - 1)) for size in x.shape]
    size = [data.draw(st.sampled_from([-1, *range(1, n - b + 1)])) for n, b in zip(x.shape, begin, strict=True)]
    expected = x[tuple(slice(b, None if s == -1 else b + s) for b, s in zip(begin, size, strict=True))]
    signed = [b - n if data.draw(st.booleans()) else b for n, b in zip(x.shape, begin, strict=True)]
    assert np.array_equal(kernel("slice_by_size", x=x, begin=ints(*signed), size=ints(*size)).numpy(), expected)


@pytest.mark.parametrize(("begin", "size"), [(2, 4), (6, -1), (-6, 1), (0, -2)])
def test_sizes_out_of_range_are_errors(kernel: Any, begin: int, size: int) -> None:
    with pytest.raises(ExecutionError, match="out of range"):
        kernel("slice_by_size", x=counted([5]), begin=ints(begin), size=ints(size))


def test_slices_of_half_precision_are_exact(kernel: Any) -> None:
    x = torch.randn(4, 4).half()
    assert torch.equal(kernel("slice_by_index", x=x, begin=ints(1, 0), end=ints(3, 4)), x[1:3])
