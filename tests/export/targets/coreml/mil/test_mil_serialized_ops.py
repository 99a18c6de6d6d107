"""Operators through a saved package: the names and dtypes of serialized parameters, and the rules of older opsets."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from export.targets.coreml.mil.errors import ExecutionError
from export.targets.coreml.mil.executor import CONTROL
from export.targets.coreml.mil.interpreter import run_mlpackage
from export.targets.coreml.mil.registry import OPERATORS

torch.manual_seed(0)
W = torch.randn(5, 4)
IDS = torch.tensor([2, 0, 1], dtype=torch.int32)

# Label, the operator written with the builder on inputs x (3, 4), y (1, 4), i (3) int32, and the same with torch.
# `c` makes a number of the dtype of x.
Case = tuple[str, Callable[..., Any], Callable[..., Any]]
CASES: list[Case] = [
    ("add", lambda mb, x, y, i, c: mb.add(x=x, y=y), lambda x, y, i: x + y),
    ("sub", lambda mb, x, y, i, c: mb.sub(x=x, y=y), lambda x, y, i: x - y),
    ("mul", lambda mb, x, y, i, c: mb.mul(x=x, y=y), lambda x, y, i: x * y),
    ("div", lambda mb, x, y, i, c: mb.real_div(x=x, y=y), lambda x, y, i: x / y),
    ("pow", lambda mb, x, y, i, c: mb.pow(x=x, y=c(2.0)), lambda x, y, i: x**2),
    ("maximum", lambda mb, x, y, i, c: mb.maximum(x=x, y=y), lambda x, y, i: torch.maximum(x, y)),
    ("relu", lambda mb, x, y, i, c: mb.relu(x=x), lambda x, y, i: x.relu()),
    ("silu", lambda mb, x, y, i, c: mb.silu(x=x), lambda x, y, i: F.silu(x)),
    ("gelu", lambda mb, x, y, i, c: mb.gelu(x=x, mode="TANH_APPROXIMATION"),
     lambda x, y, i: F.gelu(x, approximate="tanh")),
    ("sigmoid", lambda mb, x, y, i, c: mb.sigmoid(x=x), lambda x, y, i: x.sigmoid()),
    ("tanh", lambda mb, x, y, i, c: mb.tanh(x=x), lambda x, y, i: x.tanh()),
    ("exp", lambda mb, x, y, i, c: mb.exp(x=x), lambda x, y, i: x.exp()),
    ("erf", lambda mb, x, y, i, c: mb.erf(x=x), lambda x, y, i: x.erf()),
    ("rsqrt", lambda mb, x, y, i, c: mb.rsqrt(x=mb.square(x=x), epsilon=c(0.1)),
     lambda x, y, i: torch.rsqrt(x * x + 0.1)),
    ("sqrt", lambda mb, x, y, i, c: mb.sqrt(x=mb.abs(x=x)), lambda x, y, i: x.abs().sqrt()),
    ("clip", lambda mb, x, y, i, c: mb.clip(x=x, alpha=c(-0.5), beta=c(0.5)),
     lambda x, y, i: x.clamp(-0.5, 0.5)),
    ("softmax", lambda mb, x, y, i, c: mb.softmax(x=x, axis=-1), lambda x, y, i: x.softmax(-1)),
    ("linear", lambda mb, x, y, i, c: mb.linear(x=x, weight=W.numpy().astype(c)),
     lambda x, y, i: F.linear(x, W.to(x.dtype))),
    ("matmul", lambda mb, x, y, i, c: mb.matmul(x=x, y=y, transpose_y=True), lambda x, y, i: x @ y.T),
    ("mean", lambda mb, x, y, i, c: mb.reduce_mean(x=x, axes=[-1], keep_dims=True),
     lambda x, y, i: x.mean(-1, keepdim=True)),
    ("sum", lambda mb, x, y, i, c: mb.reduce_sum(x=x, axes=[0]), lambda x, y, i: x.sum(0)),
    ("max", lambda mb, x, y, i, c: mb.reduce_max(x=x, axes=[1]), lambda x, y, i: x.amax(1)),
    ("argmax", lambda mb, x, y, i, c: mb.reduce_argmax(x=x, axis=1), lambda x, y, i: x.argmax(1).int()),
    ("layer_norm", lambda mb, x, y, i, c: mb.layer_norm(x=x, axes=[-1], epsilon=c(1e-3)),
     lambda x, y, i: F.layer_norm(x, (4,), eps=1e-3)),
    ("attention", lambda mb, x, y, i, c: mb.scaled_dot_product_attention(
        query=mb.expand_dims(x=x, axes=[0]), key=mb.expand_dims(x=x, axes=[0]), value=mb.expand_dims(x=x, axes=[0]),
        attn_mask=np.tril(np.ones((3, 3), bool))),
     lambda x, y, i: F.scaled_dot_product_attention(x[None], x[None], x[None], is_causal=True)),
    ("gather", lambda mb, x, y, i, c: mb.gather(x=x, indices=i, axis=0), lambda x, y, i: x[i.long()]),
    ("gather_along", lambda mb, x, y, i, c: mb.gather_along_axis(x=x, indices=mb.expand_dims(x=i, axes=[1]), axis=1),
     lambda x, y, i: x.gather(1, i.long()[:, None])),
    ("slice_index", lambda mb, x, y, i, c: mb.slice_by_index(
        x=x, begin=[0, 1], end=[2, 0], end_mask=[False, True], squeeze_mask=[True, False]), lambda x, y, i: x[0, 1:]),
    ("slice_size", lambda mb, x, y, i, c: mb.slice_by_size(x=x, begin=[1, 0], size=[-1, 2]), lambda x, y, i: x[1:, :2]),
    ("slice_update", lambda mb, x, y, i, c: mb.slice_update(x=x, update=y, begin=[1, 0], end=[2, 4]),
     lambda x, y, i: torch.cat([x[:1], y, x[2:]])),
    ("concat", lambda mb, x, y, i, c: mb.concat(values=(x, y), axis=0), lambda x, y, i: torch.cat([x, y])),
    ("stack", lambda mb, x, y, i, c: mb.stack(values=(x, x), axis=1), lambda x, y, i: torch.stack([x, x], 1)),
    ("split", lambda mb, x, y, i, c: mb.split(x=x, split_sizes=[1, 3], axis=1)[1], lambda x, y, i: x[:, 1:]),
    ("reshape", lambda mb, x, y, i, c: mb.reshape(x=x, shape=[2, -1]), lambda x, y, i: x.reshape(2, 6)),
    ("reshape_like", lambda mb, x, y, i, c: mb.reshape_like(
        x=x, ref_tensors=(mb.transpose(x=x, perm=[1, 0]),), begins=(0,), ends=(2,), end_masks=(False,)),
     lambda x, y, i: x.reshape(4, 3)),
    ("transpose", lambda mb, x, y, i, c: mb.transpose(x=x, perm=[1, 0]), lambda x, y, i: x.T),
    ("squeeze", lambda mb, x, y, i, c: mb.squeeze(x=y, axes=[0]), lambda x, y, i: y[0]),
    ("tile", lambda mb, x, y, i, c: mb.tile(x=y, reps=[2, 1]), lambda x, y, i: y.repeat(2, 1)),
    ("fill", lambda mb, x, y, i, c: mb.fill(shape=[2, 2], value=c(3.0)),
     lambda x, y, i: torch.full((2, 2), 3.0, dtype=x.dtype)),
    ("fill_like", lambda mb, x, y, i, c: mb.fill_like(ref_tensor=x, value=np.int32(7)),
     lambda x, y, i: torch.full((3, 4), 7, dtype=torch.int32)),
    ("range", lambda mb, x, y, i, c: mb.range_1d(start=1, end=mb.reduce_max(x=i, axes=[0]), step=1),
     lambda x, y, i: torch.arange(1, int(i.max()), dtype=torch.int32)),
    ("shape", lambda mb, x, y, i, c: mb.shape(x=x), lambda x, y, i: torch.tensor([3, 4], dtype=torch.int32)),
    ("cast", lambda mb, x, y, i, c: mb.cast(x=x, dtype="int32"), lambda x, y, i: x.int()),
    ("select", lambda mb, x, y, i, c: mb.select(cond=mb.greater(x=x, y=y), a=x, b=mb.tile(x=y, reps=[3, 1])),
     lambda x, y, i: torch.where(x > y, x, y)),
    ("logic", lambda mb, x, y, i, c: mb.cast(x=mb.logical_and(
        x=mb.less(x=x, y=y), y=mb.logical_not(x=mb.greater_equal(x=x, y=c(0.0)))), dtype="int32"),
     lambda x, y, i: ((x < y) & ~(x >= 0)).int()),
    ("identity", lambda mb, x, y, i, c: mb.identity(x=x), lambda x, y, i: x),
]  # fmt: skip


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_operators_survive_serialization(mil: Any, save: Any, tmp_path: Path, precision: str) -> None:
    mb, dtype = mil.mb, getattr(mil.types, precision)
    number = {"fp32": np.float32, "fp16": np.float16}[precision]

    @mb.program(
        input_specs=[mb.TensorSpec((3, 4), dtype), mb.TensorSpec((1, 4), dtype), mb.TensorSpec((3,), mil.types.int32)],
        opset_version=mil.ct.target.iOS18,
    )
    def program(x: Any, y: Any, i: Any) -> Any:
        return tuple(mb.identity(x=case(mb, x, y, i, number), name=f"out_{label}") for label, case, _ in CASES)

    path = save(program, tmp_path / "ops.mlpackage")
    x, y = (torch.from_numpy(torch.randn(rows, 4).numpy().astype(number)) for rows in (3, 1))
    outputs = run_mlpackage(path, {"x": x, "y": y, "i": IDS})
    for label, _, reference in CASES:
        wide: Tensor = reference(x.float(), y.float(), IDS)
        expected = wide.to(x.dtype) if wide.is_floating_point() else wide
        torch.testing.assert_close(
            outputs[f"out_{label}"], expected, rtol=4e-3 if precision == "fp16" else 1e-5,
            atol=4e-3 if precision == "fp16" else 1e-6, msg=f"{label} differs from torch",
        )  # fmt: skip


@pytest.mark.parametrize(("target", "negative_ok"), [("iOS15", True), ("iOS16", True), ("iOS17", False)])
def test_older_opsets_run_with_their_own_rules(
    mil: Any, save: Any, tmp_path: Path, target: str, negative_ok: bool
) -> None:
    mb = mil.mb

    @mb.program(
        input_specs=[mb.TensorSpec((3, 4), mil.types.fp32), mb.TensorSpec((2,), mil.types.int32)],
        opset_version=getattr(mil.ct.target, target),
    )
    def program(x: Any, i: Any) -> Any:
        return mb.gather(x=mb.reshape(x=x, shape=[0, 0]), indices=i, axis=0, name="out")

    path = save(program, tmp_path / "old.mlpackage", target)
    x = torch.randn(3, 4)
    assert torch.equal(run_mlpackage(path, {"x": x, "i": [2, 0]})["out"], x[[2, 0]])
    if negative_ok:
        assert torch.equal(run_mlpackage(path, {"x": x, "i": [-1, 0]})["out"], x[[2, 0]])
    else:
        with pytest.raises(ExecutionError, match="gather 'out': 'indices' has -1"):
            run_mlpackage(path, {"x": x, "i": [-1, 0]})


def test_the_documentation_lists_exactly_the_operators_there_are() -> None:
    page = (Path(__file__).parents[5] / "docs" / "mil-interpreter.md").read_text(encoding="utf-8")
    table = page.split("## Operators")[1].split("Data types:")[0]
    assert set(re.findall(r"`(\w+)`", table)) == set(OPERATORS) | CONTROL | {"batch_dims"}
