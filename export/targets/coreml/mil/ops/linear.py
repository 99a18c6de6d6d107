"""Matrix products, convolution, attention, normalization and reductions."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from export.targets.coreml.mil.dtypes import DType
from export.targets.coreml.mil.registry import Arguments, like, operator

SAME_PADDING = ("same", "same_lower")


@operator("linear", result=like("x"))
def _linear(a: Arguments) -> Tensor:
    """x (..., in) times weight (out, in) plus bias (out). From iOS 17 on, weight and bias may have another dtype."""
    x, weight = a.wide("x"), a.wide("weight")
    if x.shape[-1] != weight.shape[-1]:
        raise a.fail(f"x has {x.shape[-1]} features, weight wants {weight.shape[-1]}")
    a.room(*x.shape[:-1], *weight.shape[:-1], work=x.shape[-1])
    return F.linear(x, weight.to(x.dtype), a.wide("bias").to(x.dtype) if a.has("bias") else None)


def _matmul_result(a: Arguments) -> DType | tuple[DType, ...]:
    """From iOS 17 on one operand may be a constant of another dtype; the result follows the other operand."""
    x, y = a.value("x"), a.value("y")
    if a.opset >= 7 and x.constant != y.constant:
        return y.dtype if x.constant else x.dtype
    return like("x", "y")(a)


@operator("matmul", result=_matmul_result)
def _matmul(a: Arguments) -> Tensor:
    x, y = a.wide("x"), a.wide("y")
    if x.is_floating_point() != y.is_floating_point():
        raise a.fail(f"x is {a.dtype('x')}, y is {a.dtype('y')}")
    if a.flag("transpose_x") and x.dim() > 1:
        x = x.transpose(-1, -2)
    if a.flag("transpose_y") and y.dim() > 1:
        y = y.transpose(-1, -2)
    if x.dim() > 1 and y.dim() > 1:
        batch = torch.broadcast_shapes(x.shape[:-2], y.shape[:-2])
        a.room(*batch, x.shape[-2], y.shape[-1], work=x.shape[-1])
    return torch.matmul(x, y.to(x.dtype))


@operator("einsum", result=like("values"))
def _einsum(a: Arguments) -> Tensor:
    operands = [v.data.to(a.compute) if v.dtype.is_float else v.data for v in a.values("values")]
    equation = a.text("equation")
    named, _, result = equation.replace(" ", "").partition("->")
    terms = zip(named.split(","), operands, strict=False)
    sizes = dict(pair for term, x in terms for pair in zip(term, x.shape, strict=False))
    a.room(*(sizes.get(letter, 1) for letter in result))
    a.room(1, work=math.prod(sizes.values()))
    return torch.einsum(equation, *operands)


@operator("conv", result=like("x"))
def _conv(a: Arguments) -> Tensor:
    """1-D to 3-D convolution, x (batch, in, *spatial), weight (out, in / groups, *kernel)."""
    x, weight = a.wide("x"), a.wide("weight")
    spatial = x.dim() - 2
    strides = a.integers("strides") if a.has("strides") else [1] * spatial
    dilations = a.integers("dilations") if a.has("dilations") else [1] * spatial
    pad_type = a.text("pad_type", "valid")
    pad = [0] * (2 * spatial)
    if pad_type == "custom":
        pad = a.integers("pad")
    elif pad_type in SAME_PADDING:
        for i in range(spatial):
            kernel, size = (weight.shape[2 + i] - 1) * dilations[i] + 1, x.shape[2 + i]
            total = max(0, (math.ceil(size / strides[i]) - 1) * strides[i] + kernel - size)
            small, large = total // 2, total - total // 2
            pad[2 * i : 2 * i + 2] = [large, small] if pad_type == "same_lower" else [small, large]
    elif pad_type != "valid":
        raise a.fail(f"unknown pad_type {pad_type}")
    padded = [x.shape[2 + i] + sum(pad[2 * i : 2 * i + 2]) for i in range(spatial)]
    a.room(*x.shape[:2], *(max(0, size) for size in padded))
    if min((*strides, *dilations), default=1) < 1:
        raise a.fail(f"strides {strides} and dilations {dilations} must be above 0")
    slid = [max(0, size // stride + 1) for size, stride in zip(padded, strides, strict=False)]
    a.room(x.shape[0], weight.shape[0], *slid, work=math.prod(weight.shape[1:]))
    # torch lists padding from the last dimension backward.
    x = F.pad(x, [size for i in reversed(range(spatial)) for size in pad[2 * i : 2 * i + 2]])
    bias = a.wide("bias") if a.has("bias") else None
    convolve = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[spatial]
    return convolve(x, weight, bias, strides, 0, dilations, a.integer("groups", 1))


@operator("scaled_dot_product_attention", result=like("query", "key", "value"))
def _attention(a: Arguments) -> Tensor:
    """softmax(Q K^T / sqrt(E) + mask) V, written out so that it shares nothing with torch's fused kernels."""
    query, key, value = a.wide("query"), a.wide("key"), a.wide("value")
    if not query.shape[:-2] == key.shape[:-2] == value.shape[:-2]:
        raise a.fail(f"batch shapes differ: {list(query.shape)}, {list(key.shape)}, {list(value.shape)}")
    a.room(*query.shape[:-1], key.shape[-2], work=query.shape[-1])
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    if a.has("attn_mask"):
        mask = a.wide("attn_mask")
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype is torch.bool else scores + mask
    return torch.softmax(scores, -1) @ value


@operator("layer_norm", result=like("x"))
def _layer_norm(a: Arguments) -> Tensor:
    x = a.wide("x")
    axes = [a.axis(axis, x.dim(), "axes") for axis in a.integers("axes")] if a.has("axes") else list(range(x.dim()))
    shape = [size if axis in axes else 1 for axis, size in enumerate(x.shape)]
    centered = x - x.mean(axes, keepdim=True)
    y = centered * torch.rsqrt(centered.square().mean(axes, keepdim=True) + a.number("epsilon", 1e-5))
    if a.has("gamma"):
        y = y * a.wide("gamma").reshape(shape)
    return y + a.wide("beta").reshape(shape) if a.has("beta") else y


@operator("l2_norm", result=like("x"))
def _l2_norm(a: Arguments) -> Tensor:
    x = a.wide("x")
    if x.dim() < 3:
        raise a.fail(f"x has rank {x.dim()}, want at least 3")
    return x * torch.rsqrt(x.square().sum((-3, -2, -1), keepdim=True) + a.number("epsilon", 1e-6))


def _product(x: Tensor, axes: list[int], keepdim: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keepdim=keepdim)
    return x


Reduction = Callable[[Tensor, list[int], bool], Tensor]
REDUCTIONS: dict[str, Reduction] = {
    "reduce_sum": lambda x, axes, keep: x.sum(axes, keepdim=keep),
    "reduce_mean": lambda x, axes, keep: x.mean(axes, keepdim=keep),
    "reduce_max": lambda x, axes, keep: x.amax(axes, keepdim=keep),
    "reduce_min": lambda x, axes, keep: x.amin(axes, keepdim=keep),
    "reduce_prod": _product,
    "reduce_sum_square": lambda x, axes, keep: x.square().sum(axes, keepdim=keep),
    "reduce_l1_norm": lambda x, axes, keep: x.abs().sum(axes, keepdim=keep),
    "reduce_l2_norm": lambda x, axes, keep: x.square().sum(axes, keepdim=keep).sqrt(),
    "reduce_log_sum": lambda x, axes, keep: x.sum(axes, keepdim=keep).log(),
    "reduce_log_sum_exp": lambda x, axes, keep: x.logsumexp(axes, keepdim=keep),
}


def _register_reduction(name: str, function: Reduction) -> None:
    @operator(name, result=like("x"))
    def _(a: Arguments) -> Tensor:
        x = a.wide("x")
        axes = [a.axis(axis, x.dim(), "axes") for axis in a.integers("axes")] if a.has("axes") else list(range(x.dim()))
        return function(x, axes, a.flag("keep_dims"))


for _name, _function in REDUCTIONS.items():
    _register_reduction(_name, _function)


def _index_dtype(a: Arguments) -> DType:
    return a.named_dtype("output_dtype", "int32")


def _register_arg(name: str, function: Callable[..., Tensor]) -> None:
    @operator(name, result=_index_dtype)
    def _(a: Arguments) -> Tensor:
        x = a.raw("x")
        return function(x, a.axis(a.integer("axis", -1), x.dim()), keepdim=a.flag("keep_dims"))


_register_arg("reduce_argmax", torch.argmax)
_register_arg("reduce_argmin", torch.argmin)


@operator("cumsum", result=like("x"))
def _cumsum(a: Arguments) -> Tensor:
    x = a.wide("x")
    axis = a.axis(a.integer("axis", 0), x.dim())
    reverse = a.flag("reverse")
    x = x.flip(axis) if reverse else x
    y = x.cumsum(axis)
    if a.flag("exclusive"):
        y = torch.cat([torch.zeros_like(y.narrow(axis, 0, 1)), y.narrow(axis, 0, y.shape[axis] - 1)], axis)
    return y.flip(axis) if reverse else y


def _topk_result(a: Arguments) -> tuple[DType, ...]:
    values = (a.dtype("x"),)
    return values + (a.named_dtype("output_indices_dtype", "int32"),) if a.flag("return_indices", True) else values


@operator("topk", result=_topk_result)
def _topk(a: Arguments) -> tuple[Tensor, ...]:
    """Ties come in order of their index; Core ML promises no order among them."""
    x = a.raw("x")
    axis = a.axis(a.integer("axis", -1), x.dim())
    k = a.integer("k", 1)
    k = x.shape[axis] if k == -1 else k
    if not 0 < k <= x.shape[axis]:
        raise a.fail(f"k = {k} of {x.shape[axis]} elements")
    values, indices = x.sort(dim=axis, descending=not a.flag("ascending"), stable=True)
    values, indices = values.narrow(axis, 0, k), indices.narrow(axis, 0, k)
    return (values, indices) if a.flag("return_indices", True) else (values,)
