"""Operators that move values: against numpy and torch, over drawn shapes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from export.targets.coreml.mil.errors import DeclarationError, ExecutionError

SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=4)


def counted(shape: list[int] | tuple[int, ...]) -> np.ndarray:
    return np.arange(math.prod(shape), dtype=np.int32).reshape(shape)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


@given(data=st.data())
@settings(max_examples=80, deadline=None)
def test_reshape_keeps_row_major_order(kernel: Any, data: st.DataObject) -> None:
    target = data.draw(SHAPES)
    x = counted(target).reshape(data.draw(st.permutations(target)))
    asked = list(target)
    if data.draw(st.booleans()):
        asked[data.draw(st.integers(0, len(target) - 1))] = -1
    result = kernel("reshape", x=x, shape=ints(*asked))
    assert np.array_equal(result.numpy(), x.reshape(target))


@pytest.mark.parametrize(
    ("opset", "source", "asked", "expected"),
    [
        (5, [2, 3, 4], [0, -1, 4], [2, 3, 4]),
        (5, [2, 50], [0, -1], [2, 50]),
        (7, [2, 50], [1, 0, -1, 0], [1, 1, 2, 50]),
        (8, [4, 3, 2], [0, 6], None),
        (8, [4, 6], [-1, 2, 0], [2, 2, 6]),
        (8, [4, 6], [0, 0, 0], [1, 4, 6]),
    ],
)
def test_zeros_in_a_reshape_depend_on_the_opset(
    kernel: Any, opset: int, source: list[int], asked: list[int], expected: list[int] | None
) -> None:
    if expected is None:
        with pytest.raises(ExecutionError, match="cannot reshape"):
            kernel("reshape", x=counted(source), shape=ints(*asked), opset=opset)
    else:
        assert list(kernel("reshape", x=counted(source), shape=ints(*asked), opset=opset).shape) == expected


@pytest.mark.parametrize(
    ("asked", "opset", "message"),
    [([5], 8, "cannot reshape"), ([-1, -1], 8, "not a shape"), ([-2, 3], 8, "not a shape"), ([0], 5, "another rank")],
)
def test_reshapes_that_cannot_be_are_refused(kernel: Any, asked: list[int], opset: int, message: str) -> None:
    with pytest.raises(ExecutionError, match=message):
        kernel("reshape", x=counted([2, 3]), shape=ints(*asked), opset=opset)


def test_reshape_like_takes_ranges_of_shapes(kernel: Any) -> None:
    references = [np.zeros((2, 3, 4), np.float32), np.zeros((1, 5, 6), np.float32)]
    options = {"ref_tensors": references, "begins": [0, 1], "ends": [2, 0], "end_masks": [False, True]}
    assert kernel("reshape_like", x=counted([6, 30]), **options).shape == (2, 3, 5, 6)
    with pytest.raises(ExecutionError, match="cannot reshape"):
        kernel("reshape_like", x=counted([7]), **options)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_transpose_expand_squeeze_follow_numpy(kernel: Any, data: st.DataObject) -> None:
    shape = data.draw(SHAPES)
    x, rank = counted(shape), len(shape)
    perm = data.draw(st.permutations(range(rank)))
    signed = [axis - rank if data.draw(st.booleans()) else axis for axis in perm]
    assert np.array_equal(kernel("transpose", x=x, perm=ints(*signed)).numpy(), x.transpose(perm))
    axes = sorted(data.draw(st.sets(st.integers(0, rank), min_size=1, max_size=2)))
    if max(axes) < rank + len(axes):
        wide = kernel("expand_dims", x=x, axes=ints(*axes))
        assert np.array_equal(wide.numpy(), np.expand_dims(x, tuple(axes)))
        assert np.array_equal(kernel("squeeze", x=wide, axes=ints(*axes)).numpy(), x)
    assert kernel("squeeze", x=x).shape == x.squeeze().shape


def test_squeeze_leaves_axes_of_other_sizes(kernel: Any) -> None:
    assert kernel("squeeze", x=counted([2, 1, 3]), axes=ints(0, 1)).shape == (2, 3)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_split_concat_and_stack_are_inverse(kernel: Any, data: st.DataObject) -> None:
    shape = data.draw(SHAPES)
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    sizes = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    shape[axis] = sum(sizes)
    x = counted(shape)
    parts = kernel("split", x=x, split_sizes=ints(*sizes), axis=axis)
    assert [part.shape[axis] for part in parts] == sizes
    assert np.array_equal(kernel("concat", values=list(parts), axis=axis).numpy(), x)
    equal = kernel("split", x=np.concatenate([x, x], axis), num_splits=2, axis=axis)
    stacked = kernel("stack", values=list(equal), axis=axis)
    assert np.array_equal(stacked.numpy(), np.stack([x, x], axis))


def test_split_must_add_up(kernel: Any) -> None:
    with pytest.raises(ExecutionError, match="do not add up to 6"):
        kernel("split", x=counted([6]), split_sizes=ints(2, 3), axis=0)
    with pytest.raises(ExecutionError, match="do not split into 4"):
        kernel("split", x=counted([6]), num_splits=4, axis=0)


def test_concat_joins_scalars_and_interleaves(kernel: Any) -> None:
    assert kernel("concat", values=[np.int32(4), np.int32(5)], axis=0).tolist() == [4, 5]
    pair = [counted([3, 2]), counted([3, 2]) + 10]
    woven = kernel("concat", values=pair, axis=0, interleave=True)
    assert woven.tolist() == [[0, 1], [10, 11], [2, 3], [12, 13], [4, 5], [14, 15]]
    with pytest.raises(DeclarationError, match="share one dtype"):
        kernel("concat", values=[np.int32(4), np.float32(5)], axis=0)
    with pytest.raises(ExecutionError, match="rank"):
        kernel("concat", values=[counted([2]), counted([2, 1])], axis=0)


@given(shape=SHAPES, data=st.data())
@settings(max_examples=40, deadline=None)
def test_tile_follows_numpy(kernel: Any, shape: list[int], data: st.DataObject) -> None:
    reps = data.draw(st.lists(st.integers(1, 3), min_size=len(shape), max_size=len(shape)))
    assert np.array_equal(kernel("tile", x=counted(shape), reps=ints(*reps)).numpy(), np.tile(counted(shape), reps))


def test_fill_and_fill_like(kernel: Any) -> None:
    filled = kernel("fill", shape=ints(2, 3), value=np.float16(1.5))
    assert filled.dtype is torch.float16 and filled.tolist() == [[1.5] * 3] * 2
    assert kernel("fill", shape=ints(2)).tolist() == [0.0, 0.0]
    assert kernel("fill_like", ref_tensor=counted([2, 2]), value=True).tolist() == [[True] * 2] * 2
    with pytest.raises(ExecutionError, match="negative"):
        kernel("fill", shape=ints(-1, 2))


@given(start=st.integers(-20, 20), end=st.integers(-20, 20), step=st.integers(-5, 5).filter(bool))
def test_integer_ranges_are_pythons(kernel: Any, start: int, end: int, step: int) -> None:
    assert kernel("range_1d", start=start, end=end, step=step).tolist() == list(range(start, end, step))


def test_float_ranges(kernel: Any) -> None:
    result = kernel("range_1d", start=np.float16(0), end=np.float16(1), step=np.float16(0.25))
    assert result.dtype is torch.float16 and result.tolist() == [0.0, 0.25, 0.5, 0.75]
    with pytest.raises(ExecutionError, match="step is 0"):
        kernel("range_1d", start=0, end=3, step=0)


def test_shape_is_an_int32_vector(kernel: Any) -> None:
    result = kernel("shape", x=counted([4, 1, 2]))
    assert result.tolist() == [4, 1, 2] and result.dtype is torch.int32


def test_reverse_and_band_part(kernel: Any) -> None:
    x = counted([2, 3, 3])
    assert np.array_equal(kernel("reverse", x=x).numpy(), np.flip(x))
    assert np.array_equal(kernel("reverse", x=x, axes=ints(-1)).numpy(), np.flip(x, -1))
    assert np.array_equal(kernel("band_part", x=x, lower=-1, upper=0).numpy(), np.tril(x))
    assert np.array_equal(kernel("band_part", x=x, lower=0, upper=-1).numpy(), np.triu(x))
    assert np.array_equal(kernel("band_part", x=x, lower=1, upper=0).numpy(), np.tril(np.triu(x, -1)))


@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_pad_follows_numpy(kernel: Any, data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(2, 4), min_size=1, max_size=3))
    padded = data.draw(st.integers(1, len(shape)))
    pads = data.draw(st.lists(st.integers(0, 1), min_size=2 * padded, max_size=2 * padded))
    mode = data.draw(st.sampled_from(["constant", "reflect", "replicate"]))
    x = counted(shape).astype(np.float32)
    width = [(0, 0)] * (len(shape) - padded) + [(pads[i], pads[i + 1]) for i in range(0, len(pads), 2)]
    options: dict[str, Any] = {"constant_values": 7} if mode == "constant" else {}
    expected = np.pad(x, width, {"replicate": "edge"}.get(mode, mode), **options)  # type: ignore[call-overload]
    result = kernel("pad", x=x, pad=ints(*pads), mode=mode, constant_val=7.0)
    assert np.array_equal(result.numpy(), expected)


@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_one_hot(kernel: Any, axis: int) -> None:
    result = kernel("one_hot", indices=ints(2, 0), one_hot_vector_size=3, axis=axis, on_value=5.0, off_value=1.0)
    expected = np.where(np.eye(3)[[2, 0]] > 0, 5.0, 1.0)
    assert result.tolist() == (expected.T if axis == 0 else expected).tolist()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("transpose", {"perm": ints(0, 0)}, "no permutation"),
        ("transpose", {"perm": ints(0, 2)}, "out of range"),
        ("expand_dims", {"axes": ints(4)}, "out of range"),
        ("expand_dims", {"axes": ints(0, 0)}, "twice"),
        ("squeeze", {"axes": ints(5)}, "out of range"),
        ("tile", {"reps": ints(2)}, "reps"),
        ("reverse", {"axes": ints(2)}, "out of range"),
    ],
)
def test_axes_are_checked(kernel: Any, name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ExecutionError, match=message):
        kernel(name, x=counted([2, 3]), **options)
