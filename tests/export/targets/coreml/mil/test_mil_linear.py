"""Products, attention, normalization and reductions against torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from export.targets.coreml.mil.dtypes import FP16
from export.targets.coreml.mil.errors import DeclarationError, ExecutionError
from export.targets.coreml.mil.ops.linear import REDUCTIONS
from export.targets.coreml.mil.registry import Value

torch.manual_seed(0)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4)])
def test_linear(kernel: Any, bias: bool, shape: tuple[int, ...]) -> None:
    x, weight, b = torch.randn(shape), torch.randn(5, 4), torch.randn(5)
    options = {"bias": b} if bias else {}
    expected = F.linear(x, weight, b if bias else None)
    torch.testing.assert_close(kernel("linear", x=x, weight=weight, **options), expected)


def test_half_precision_linear_accumulates_in_single_precision(kernel: Any) -> None:
    # In fp16 a running sum of 4096 ones would stop at 2048.
    ones = torch.ones(1, 4096, dtype=torch.float16)
    assert kernel("linear", x=ones, weight=ones).item() == 4096


def test_linear_weight_of_another_dtype_follows_x(kernel: Any) -> None:
    x, weight = torch.randn(2, 4), torch.randn(5, 4).half()
    torch.testing.assert_close(kernel("linear", x=x, weight=weight), F.linear(x, weight.float()))


def test_linear_with_the_wrong_width_is_named(kernel: Any) -> None:
    with pytest.raises(ExecutionError, match="3 features, weight wants 4"):
        kernel("linear", x=torch.randn(2, 3), weight=torch.randn(5, 4))


@pytest.mark.parametrize("transpose_x", [False, True])
@pytest.mark.parametrize("transpose_y", [False, True])
def test_matmul_transposes_either_side(kernel: Any, transpose_x: bool, transpose_y: bool) -> None:
    x, y = torch.randn(2, 1, 3, 4), torch.randn(5, 4, 6)
    result = kernel(
        "matmul",
        x=x.transpose(-1, -2) if transpose_x else x,
        y=y.transpose(-1, -2) if transpose_y else y,
        transpose_x=transpose_x,
        transpose_y=transpose_y,
    )
    torch.testing.assert_close(result, x @ y)


@pytest.mark.parametrize(("left", "right"), [((4,), (4, 3)), ((2, 4), (4,)), ((4,), (4,)), ((2, 3, 4), (4, 2))])
def test_matmul_of_vectors_follows_numpy(kernel: Any, left: tuple[int, ...], right: tuple[int, ...]) -> None:
    x, y = torch.randn(left), torch.randn(right)
    torch.testing.assert_close(kernel("matmul", x=x, y=y), torch.matmul(x, y))


def test_matmul_operands_share_a_dtype_unless_one_is_constant(kernel: Any) -> None:
    x, y = torch.randn(2, 4), torch.randn(4, 3).half()
    with pytest.raises(DeclarationError, match="share one dtype"):
        kernel("matmul", x=x, y=y)
    constant = Value(y, FP16, constant=True)
    torch.testing.assert_close(kernel("matmul", x=x, y=constant), x @ y.float())
    with pytest.raises(DeclarationError):
        kernel("matmul", x=x, y=constant, opset=6)


def test_einsum(kernel: Any) -> None:
    x, y = torch.randn(2, 3, 4, 5), torch.randn(2, 5, 4, 6)
    equation = "nchw,nwhu->nchu"
    torch.testing.assert_close(kernel("einsum", values=[x, y], equation=equation), torch.einsum(equation, x, y))


@pytest.mark.parametrize("mask", ["none", "bool", "float"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_attention_equals_torch(kernel: Any, mask: str, dtype: torch.dtype) -> None:
    q, k, v = (torch.randn(2, 3, size, 8).to(dtype) for size in (5, 7, 7))
    allowed = torch.ones(5, 7, dtype=torch.bool).tril(2)
    added = torch.where(allowed, 0.0, -30000.0).to(dtype)
    chosen = {"none": None, "bool": allowed, "float": added}[mask]
    options = {} if chosen is None else {"attn_mask": chosen}
    expected = F.scaled_dot_product_attention(
        q.float(), k.float(), v.float(), chosen.float() if mask == "float" and chosen is not None else chosen
    ).to(dtype)
    result = kernel("scaled_dot_product_attention", query=q, key=k, value=v, **options)
    torch.testing.assert_close(result, expected, atol=1e-3 if dtype is torch.float16 else 1e-6, rtol=1e-3)


def test_attention_does_not_broadcast_heads(kernel: Any) -> None:
    q, k = torch.randn(1, 4, 3, 8), torch.randn(1, 2, 3, 8)
    with pytest.raises(ExecutionError, match="batch shapes differ"):
        kernel("scaled_dot_product_attention", query=q, key=k, value=k)


@pytest.mark.parametrize("axes", [[-1], [1, 2], [0], None])
def test_layer_norm(kernel: Any, axes: list[int] | None) -> None:
    x = torch.randn(2, 3, 4) * 3 + 1
    dims = axes or [0, 1, 2]
    shape = [x.shape[d] for d in dims]
    gamma, beta = torch.randn(shape), torch.randn(shape)
    full = [x.shape[i] if i in [d % 3 for d in dims] else 1 for i in range(3)]
    mean, var = x.mean(dims, keepdim=True), x.var(dims, unbiased=False, keepdim=True)
    expected = (x - mean) / torch.sqrt(var + 1e-3) * gamma.reshape(full) + beta.reshape(full)
    options = {"axes": np.array(axes, np.int32)} if axes else {}
    torch.testing.assert_close(kernel("layer_norm", x=x, gamma=gamma, beta=beta, epsilon=1e-3, **options), expected)
    plain = (x - mean) / torch.sqrt(var + 1e-5)
    torch.testing.assert_close(kernel("layer_norm", x=x, **options), plain)


def test_l2_norm_works_on_the_last_three_axes(kernel: Any) -> None:
    x = torch.randn(2, 3, 4, 5)
    expected = x / torch.sqrt(x.square().sum((1, 2, 3), keepdim=True) + 1e-6)
    torch.testing.assert_close(kernel("l2_norm", x=x), expected)


NUMPY_REDUCTIONS: dict[str, Any] = {
    "reduce_sum": np.sum,
    "reduce_mean": np.mean,
    "reduce_max": np.max,
    "reduce_min": np.min,
    "reduce_prod": np.prod,
    "reduce_sum_square": lambda x, **o: np.sum(x * x, **o),
    "reduce_l1_norm": lambda x, **o: np.sum(np.abs(x), **o),
    "reduce_l2_norm": lambda x, **o: np.sqrt(np.sum(x * x, **o)),
    "reduce_log_sum": lambda x, **o: np.log(np.sum(x, **o)),
    "reduce_log_sum_exp": lambda x, **o: np.log(np.sum(np.exp(x), **o)),
}


def test_every_reduction_is_tested_below() -> None:
    assert set(NUMPY_REDUCTIONS) == set(REDUCTIONS)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_reductions_follow_numpy(kernel: Any, data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 4))
    shape = data.draw(st.lists(st.integers(1, 4), min_size=rank, max_size=rank))
    axes = data.draw(st.none() | st.sets(st.integers(0, rank - 1), min_size=1))
    keep = data.draw(st.booleans())
    signs = [axis - rank if data.draw(st.booleans()) else axis for axis in sorted(axes or ())]
    x = np.random.default_rng(0).random(shape).astype(np.float32) + 0.5
    options: dict[str, Any] = {"axes": np.array(signs, np.int32)} if axes else {}
    for name, function in NUMPY_REDUCTIONS.items():
        expected = function(x, axis=tuple(axes) if axes else None, keepdims=keep)
        result = kernel(name, x=x, keep_dims=keep, **options).numpy()
        assert result.shape == np.shape(expected)
        np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_integer_reductions_keep_their_type_and_refuse_to_overflow(kernel: Any) -> None:
    assert kernel("reduce_sum", x=np.array([1, 2, 3], np.int32)).dtype is torch.int32
    with pytest.raises(ValueError, match="do not fit int32"):
        kernel("reduce_sum", x=np.array([2**31 - 1, 1], np.int32))


@pytest.mark.parametrize("keep", [False, True])
def test_arg_reductions(kernel: Any, keep: bool) -> None:
    x = torch.randn(3, 5)
    for name in ("argmax", "argmin"):
        result = kernel(f"reduce_{name}", x=x, axis=-1, keep_dims=keep)
        assert torch.equal(result.long(), getattr(torch, name)(x, -1, keepdim=keep)) and result.dtype is torch.int32


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [1, 3, 6]),
        ({"exclusive": True}, [0, 1, 3]),
        ({"reverse": True}, [6, 5, 3]),
        ({"reverse": True, "exclusive": True}, [5, 3, 0]),
    ],
)
def test_cumsum(kernel: Any, options: dict[str, bool], expected: list[float]) -> None:
    assert kernel("cumsum", x=np.array([1, 2, 3], np.float32), axis=0, **options).tolist() == expected


def test_topk(kernel: Any) -> None:
    x = np.array([[1, 9, 3], [7, 5, 6]], np.float32)
    values, indices = kernel("topk", x=x, k=2)
    assert values.tolist() == [[9, 3], [7, 6]] and indices.tolist() == [[1, 2], [0, 2]]
    (values,) = kernel("topk", x=x, k=-1, axis=0, ascending=True, return_indices=False)
    assert values.tolist() == [[1, 5, 3], [7, 9, 6]]
    with pytest.raises(ExecutionError, match="k = 4 of 3"):
        kernel("topk", x=x, k=4)


@pytest.mark.parametrize("pad_type", ["valid", "custom", "same", "same_lower"])
@pytest.mark.parametrize("stride", [1, 2])
def test_conv(kernel: Any, pad_type: str, stride: int) -> None:
    x, weight, bias = torch.randn(2, 4, 7, 6), torch.randn(6, 2, 3, 2), torch.randn(6)
    options: dict[str, Any] = {"pad": np.array([1, 0, 2, 1], np.int32)} if pad_type == "custom" else {}
    result = kernel(
        "conv", x=x, weight=weight, bias=bias, strides=np.array([stride] * 2, np.int32), pad_type=pad_type,
        dilations=np.array([1, 1], np.int32), groups=2, **options,
    )  # fmt: skip
    # torch's order of padding is left, right, top, bottom.
    padding = {"valid": [0, 0, 0, 0], "custom": [2, 1, 1, 0]}.get(pad_type)
    if padding is None:
        totals = [max(0, (-(-size // stride) - 1) * stride + k - size) for size, k in ((6, 2), (7, 3))]
        small = [(total // 2, total - total // 2) for total in totals]
        padding = [side for pair in small for side in (pair if pad_type == "same" else pair[::-1])]
    torch.testing.assert_close(result, F.conv2d(F.pad(x, padding), weight, bias, stride, groups=2))
