"""Elementwise operators against torch, in fp32 and fp16, with broadcasting and the awkward inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from export.targets.coreml.mil.errors import DeclarationError, ExecutionError, MilError
from export.targets.coreml.mil.ops.elementwise import ARITHMETIC, COMPARISON, UNARY

GENERATOR = torch.Generator().manual_seed(0)
X = torch.rand(3, 5, generator=GENERATOR) * 1.6 - 0.8  # inside every function's domain
POSITIVE = X.abs() + 0.1

TORCH_UNARY: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "identity": lambda x: x,
    "relu6": torch.nn.functional.relu6,
    "silu": torch.nn.functional.silu,
    "softplus": torch.nn.functional.softplus,
    "softsign": torch.nn.functional.softsign,
}
TORCH_BINARY: dict[str, Callable[..., torch.Tensor]] = {
    "add": torch.add, "sub": torch.sub, "mul": torch.mul, "real_div": torch.true_divide, "pow": torch.pow,
    "floor_div": torch.floor_divide, "mod": torch.remainder, "maximum": torch.maximum, "minimum": torch.minimum,
    "equal": torch.eq, "not_equal": torch.ne, "greater": torch.gt, "greater_equal": torch.ge, "less": torch.lt,
    "less_equal": torch.le,
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(set(UNARY) - {"logical_not"}))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_unary_equals_torch_rounded_once(kernel: Any, name: str, dtype: torch.dtype) -> None:
    reference = TORCH_UNARY.get(name) or getattr(torch, name, None) or getattr(torch.special, name)
    x = (POSITIVE if name == "sqrt" else X).to(dtype)
    result = kernel(name, x=x)
    assert result.dtype is dtype
    torch.testing.assert_close(
        result, reference(x.float()).to(dtype), rtol=1e-3 if dtype is torch.float16 else 1e-6, atol=1e-7
    )


@pytest.mark.parametrize("name", sorted(TORCH_BINARY))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_binary_equals_torch_with_broadcasting(kernel: Any, name: str, dtype: torch.dtype) -> None:
    x, y = POSITIVE.to(dtype), POSITIVE[:1, :].flip(1).to(dtype)
    expected = TORCH_BINARY[name](x.float(), y.float())
    expected = expected if expected.dtype is torch.bool else expected.to(dtype)
    torch.testing.assert_close(kernel(name, x=x, y=y), expected)


def test_every_binary_operator_is_tested_above() -> None:
    assert set(TORCH_BINARY) - {"real_div"} == set(ARITHMETIC) | set(COMPARISON)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_broadcasting_follows_numpy(kernel: Any, data: st.DataObject) -> None:
    shapes = data.draw(hnp.mutually_broadcastable_shapes(num_shapes=3, max_dims=4, max_side=4))
    rng = np.random.default_rng(0)
    x, y = (rng.integers(-9, 9, shape).astype(np.int32) for shape in shapes.input_shapes[:2])
    c = rng.random(shapes.input_shapes[2]) < 0.5
    for name, function in (("add", np.add), ("mul", np.multiply), ("maximum", np.maximum), ("less", np.less)):
        assert np.array_equal(kernel(name, x=x, y=y).numpy(), function(x, y))
    assert np.array_equal(kernel("select", cond=c, a=x, b=y).numpy(), np.where(c, x, y))


def test_shapes_that_do_not_broadcast_are_an_error(kernel: Any) -> None:
    with pytest.raises(RuntimeError, match="must match"):
        kernel("add", x=np.ones((2, 3), np.float32), y=np.ones((2, 4), np.float32))


@given(x=st.integers(-50, 50), y=st.integers(-7, 7).filter(bool))
def test_integer_division_and_remainder_round_down(kernel: Any, x: int, y: int) -> None:
    assert kernel("floor_div", x=x, y=y).item() == x // y
    assert kernel("mod", x=x, y=y).item() == x % y


@pytest.mark.parametrize("name", ["logical_and", "logical_or", "logical_xor"])
def test_logic(kernel: Any, name: str) -> None:
    x, y = np.array([True, True, False, False]), np.array([True, False, True, False])
    assert kernel(name, x=x, y=y).tolist() == getattr(np, name)(x, y).tolist()
    assert kernel("logical_not", x=x).tolist() == [False, False, True, True]


@pytest.mark.parametrize(
    ("name", "options", "reference"),
    [
        ("rsqrt", {"epsilon": 1e-5}, lambda x: 1 / torch.sqrt(x + 1e-5)),
        ("inverse", {"epsilon": 0.5}, lambda x: 1 / (x + 0.5)),
        ("log", {"epsilon": 0.25}, lambda x: torch.log(x + 0.25)),
        ("rsqrt", {}, torch.rsqrt),
        ("clip", {"alpha": 0.2, "beta": 0.6}, lambda x: x.clamp(0.2, 0.6)),
        ("threshold", {"alpha": 0.4}, lambda x: x.clamp(min=0.4)),
        ("linear_activation", {"alpha": 2.0, "beta": -1.0}, lambda x: 2 * x - 1),
        ("sigmoid_hard", {"alpha": 0.7, "beta": 0.3}, lambda x: (0.7 * x + 0.3).clamp(0, 1)),
        ("scaled_tanh", {"alpha": 1.5, "beta": 0.5}, lambda x: 1.5 * torch.tanh(0.5 * x)),
    ],
)
def test_parametric_operators(kernel: Any, name: str, options: dict[str, float], reference: Any) -> None:
    torch.testing.assert_close(kernel(name, x=POSITIVE, **options), reference(POSITIVE))


@pytest.mark.parametrize(
    ("name", "options", "reference"),
    [
        ("leaky_relu", {"alpha": 0.1}, lambda x: torch.nn.functional.leaky_relu(x, 0.1)),
        ("elu", {"alpha": 0.7}, lambda x: torch.nn.functional.elu(x, 0.7)),
        ("gelu", {}, torch.nn.functional.gelu),
        ("gelu", {"mode": "EXACT"}, torch.nn.functional.gelu),
        ("gelu", {"mode": "TANH_APPROXIMATION"}, lambda x: torch.nn.functional.gelu(x, approximate="tanh")),
        ("gelu", {"mode": "SIGMOID_APPROXIMATION"}, lambda x: x * torch.sigmoid(1.702 * x)),
        ("softmax", {}, lambda x: x.softmax(-1)),
        ("softmax", {"axis": 0}, lambda x: x.softmax(0)),
    ],
)
def test_activations(kernel: Any, name: str, options: dict[str, Any], reference: Any) -> None:
    torch.testing.assert_close(kernel(name, x=X, **options), reference(X))


def test_prelu_has_one_slope_per_channel(kernel: Any) -> None:
    x, alpha = torch.randn(2, 3, 4), torch.tensor([0.1, 0.2, 0.3])
    torch.testing.assert_close(kernel("prelu", x=x, alpha=alpha), torch.nn.functional.prelu(x, alpha))


@pytest.mark.parametrize("name", ["gelu", "softplus", "silu", "sigmoid"])
def test_activations_stay_finite_where_their_limit_is(kernel: Any, name: str) -> None:
    result = kernel(name, x=np.array([-1e4, 1e4], np.float32))
    assert torch.isfinite(result).all()


def test_half_precision_is_rounded_after_the_computation(kernel: Any) -> None:
    # 1 + 2^-11 is halfway between fp16 numbers and goes to even; 300^2 is beyond fp16.
    assert kernel("add", x=np.float16(1), y=np.float16(2**-11)).item() == 1.0
    assert kernel("square", x=np.float16(300)).item() == float("inf")
    assert kernel("square", x=np.float16(255)).item() == 65024.0


def test_compute_dtype_can_be_double(kernel: Any) -> None:
    x, y = np.float32(1), np.float32(3)
    assert kernel("real_div", x=x, y=y, compute=torch.float64).item() == np.float32(1 / 3)


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        (np.array([-1.9, 1.9, 0.0], np.float32), "int32", [-1, 1, 0]),
        (np.array([-1.9, 0.0], np.float32), "bool", [True, False]),
        (np.array([True, False]), "fp16", [1.0, 0.0]),
        (np.array([70000, -5], np.int32), "fp32", [70000.0, -5.0]),
        (np.array([255, 0], np.int32), "uint8", [255, 0]),
        (np.array([1e-8, 65519.0, 65520.0], np.float32), "fp16", [0.0, 65504.0, float("inf")]),
        (np.array([65535], np.int32), "uint16", [65535]),
    ],
)
def test_cast(kernel: Any, source: np.ndarray, target: str, expected: list[Any]) -> None:
    assert kernel("cast", x=source, dtype=target).tolist() == expected


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (np.float32(3e9), "int32"),
        (np.float32("nan"), "int32"),
        (np.int32(300), "uint8"),
        (np.int32(-1), "uint16"),
        (np.float32(128), "int8"),
    ],
)
def test_cast_to_an_integer_that_does_not_hold_the_value_is_an_error(kernel: Any, source: Any, target: str) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        kernel("cast", x=source, dtype=target)


def test_what_mil_leaves_undefined_is_refused(kernel: Any) -> None:
    with pytest.raises(ExecutionError, match="no defined rounding"):
        kernel("real_div", x=7, y=2)
    with pytest.raises(MilError, match="unknown mode"):
        kernel("gelu", x=X, mode="QUICK")
    with pytest.raises(MilError, match="no dtype"):
        kernel("cast", x=X, dtype="float32")
    with pytest.raises(DeclarationError, match="share one dtype"):
        kernel("add", x=X, y=X.half())
    with pytest.raises(MilError, match="want bool"):
        kernel("select", cond=X, a=X, b=X)
    with pytest.raises(MilError, match="'y' is missing"):
        kernel("add", x=X)
