"""Elementwise operators: arithmetic, comparison, logic, activations, cast, select.

Formulas and defaults are those of the MIL operator reference (coremltools, `mil/ops/defs/iOS15` to `iOS18`).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from export.targets.coreml.mil.dtypes import BOOL, DType, require_range
from export.targets.coreml.mil.registry import Arguments, like, operator

UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "abs": torch.abs,
    "acos": torch.acos,
    "asin": torch.asin,
    "atan": torch.atan,
    "atanh": torch.atanh,
    "ceil": torch.ceil,
    "cos": torch.cos,
    "cosh": torch.cosh,
    "erf": torch.erf,
    "exp": torch.exp,
    "exp2": torch.exp2,
    "floor": torch.floor,
    "identity": lambda x: x,
    "logical_not": torch.logical_not,
    "relu": torch.relu,
    "relu6": lambda x: x.clamp(0, 6),
    "round": torch.round,
    "sigmoid": torch.sigmoid,
    "sign": torch.sign,
    "silu": lambda x: x * torch.sigmoid(x),
    "sin": torch.sin,
    "sinh": torch.sinh,
    # Without torch's switch to the identity above a threshold.
    "softplus": lambda x: torch.log1p(torch.exp(-x.abs())) + x.clamp(min=0),
    "softsign": lambda x: x / (1 + x.abs()),
    "sqrt": torch.sqrt,
    "square": torch.square,
    "tan": torch.tan,
    "tanh": torch.tanh,
}

ARITHMETIC: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "floor_div": lambda x, y: torch.div(x, y, rounding_mode="floor"),
    "mod": torch.remainder,
    "pow": torch.pow,
}

COMPARISON: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "equal": torch.eq,
    "not_equal": torch.ne,
    "greater": torch.gt,
    "greater_equal": torch.ge,
    "less": torch.lt,
    "less_equal": torch.le,
}

LOGIC: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "logical_and": torch.logical_and,
    "logical_or": torch.logical_or,
    "logical_xor": torch.logical_xor,
}


def _register_unary(name: str, function: Callable[[Tensor], Tensor]) -> None:
    @operator(name, result=like("x"))
    def _(a: Arguments) -> Tensor:
        return function(a.wide("x"))


def _register_binary(name: str, function: Callable[[Tensor, Tensor], Tensor], compares: bool) -> None:
    same = like("x", "y")

    def result(a: Arguments) -> DType:
        dtype = same(a)
        return BOOL if compares else dtype

    @operator(name, result=result)
    def _(a: Arguments) -> Tensor:
        a.room_for("x", "y")
        return function(a.wide("x"), a.wide("y"))


for _name, _unary in UNARY.items():
    _register_unary(_name, _unary)
for _name, _binary in (ARITHMETIC | LOGIC).items():
    _register_binary(_name, _binary, compares=False)
for _name, _binary in COMPARISON.items():
    _register_binary(_name, _binary, compares=True)


@operator("real_div", result=like("x", "y"))
def _real_div(a: Arguments) -> Tensor:
    if a.dtype("x").is_integer:
        raise a.fail("real_div of integers has no defined rounding; divide floats or use floor_div")
    a.room_for("x", "y")
    return a.wide("x") / a.wide("y")


@operator("rsqrt", result=like("x"))
def _rsqrt(a: Arguments) -> Tensor:
    return torch.rsqrt(a.wide("x") + a.number("epsilon", 1e-12))


@operator("inverse", result=like("x"))
def _inverse(a: Arguments) -> Tensor:
    return torch.reciprocal(a.wide("x") + a.number("epsilon", 1e-4))


@operator("log", result=like("x"))
def _log(a: Arguments) -> Tensor:
    return torch.log(a.wide("x") + a.number("epsilon", 1e-45))


@operator("clip", result=like("x", "alpha", "beta"))
def _clip(a: Arguments) -> Tensor:
    return a.wide("x").clamp(a.number("alpha", -math.inf), a.number("beta", math.inf))


@operator("threshold", result=like("x", "alpha"))
def _threshold(a: Arguments) -> Tensor:
    a.room_for("x", "alpha")
    return torch.maximum(a.wide("x"), a.wide("alpha"))


@operator("gelu", result=like("x"))
def _gelu(a: Arguments) -> Tensor:
    x, mode = a.wide("x"), a.text("mode", "EXACT")
    if mode == "EXACT":
        return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))
    if mode == "TANH_APPROXIMATION":
        return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    if mode == "SIGMOID_APPROXIMATION":
        return x * torch.sigmoid(1.702 * x)
    raise a.fail(f"unknown mode {mode}")


@operator("leaky_relu", result=like("x"))
def _leaky_relu(a: Arguments) -> Tensor:
    a.room_for("x", "alpha")
    x = a.wide("x")
    return torch.where(x < 0, x * a.wide("alpha"), x)


@operator("prelu", result=like("x"))
def _prelu(a: Arguments) -> Tensor:
    x = a.wide("x")
    a.room(x.numel(), max(1, a.raw("alpha").numel()) if a.raw("alpha").numel() not in x.shape[1:2] else 1)
    alpha = a.wide("alpha").reshape(-1, *[1] * (x.dim() - 2))
    return torch.where(x < 0, x * alpha, x)


@operator("elu", result=like("x"))
def _elu(a: Arguments) -> Tensor:
    a.room_for("x", "alpha")
    x = a.wide("x")
    return torch.where(x < 0, a.wide("alpha") * torch.expm1(x), x)


@operator("linear_activation", result=like("x"))
def _linear_activation(a: Arguments) -> Tensor:
    a.room_for("x", "alpha", "beta")
    return a.wide("x") * a.wide("alpha") + a.wide("beta")


@operator("sigmoid_hard", result=like("x"))
def _sigmoid_hard(a: Arguments) -> Tensor:
    a.room_for("x", "alpha", "beta")
    return (a.wide("x") * a.wide("alpha") + a.wide("beta")).clamp(0, 1)


@operator("scaled_tanh", result=like("x"))
def _scaled_tanh(a: Arguments) -> Tensor:
    a.room_for("x", "alpha", "beta")
    return a.wide("alpha") * torch.tanh(a.wide("x") * a.wide("beta"))


@operator("softmax", result=like("x"))
def _softmax(a: Arguments) -> Tensor:
    x = a.wide("x")
    return F.softmax(x, a.axis(a.integer("axis", -1), x.dim()))


@operator("select", result=like("a", "b"))
def _select(a: Arguments) -> Tensor:
    if a.dtype("cond") is not BOOL:
        raise a.fail(f"'cond' is {a.dtype('cond')}, want bool")
    a.room_for("cond", "a", "b")
    return torch.where(a.raw("cond"), a.raw("a"), a.raw("b"))


def _target(a: Arguments) -> DType:
    return a.named_dtype("dtype")


@operator("cast", result=_target)
def _cast(a: Arguments) -> Tensor:
    """To integers, floats truncate toward zero, and a value that does not fit is an error: devices differ there."""
    x, target = a.raw("x"), _target(a)
    if target is BOOL:
        return x != 0
    if target.is_integer and x.dtype is not torch.bool:
        require_range(x.trunc(), target)
    return x.to(a.compute if target.is_float else target.carrier)
