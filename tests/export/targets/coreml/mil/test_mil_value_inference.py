"""The same operators by coremltools' own value inference, where it has one: a second reading of the MIL reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

RNG = np.random.default_rng(0)
F = RNG.standard_normal((2, 3, 4)).astype(np.float32)
P = np.abs(F) + 0.25
U = (F / (np.abs(F).max() + 0.1)).astype(np.float32)
I = RNG.integers(1, 9, (2, 3, 4)).astype(np.int32)  # noqa: E741
B = F > 0
Y = P[:, :1, :]

UNARY: list[tuple[str, dict[str, Any]]] = [
    *((name, {"x": F}) for name in ("abs", "ceil", "cos", "erf", "exp", "exp2", "floor", "relu", "relu6", "round",
                                    "sigmoid", "sign", "sin", "softplus", "softsign", "square", "tanh", "tan", "atan")),
    *((name, {"x": U}) for name in ("acos", "asin", "atanh", "cosh", "sinh")),
    ("sqrt", {"x": P}),
    ("rsqrt", {"x": P, "epsilon": np.float32(1e-3)}),
    ("inverse", {"x": P, "epsilon": np.float32(1e-3)}),
    ("log", {"x": P, "epsilon": np.float32(1e-3)}),
    ("logical_not", {"x": B}),
    ("clip", {"x": F, "alpha": np.float32(-0.5), "beta": np.float32(0.5)}),
    ("threshold", {"x": F, "alpha": np.float32(0.1)}),
    ("gelu", {"x": F}),
    ("gelu", {"x": F, "mode": "TANH_APPROXIMATION"}),
    ("gelu", {"x": F, "mode": "SIGMOID_APPROXIMATION"}),
    ("leaky_relu", {"x": F, "alpha": np.float32(0.1)}),
    ("elu", {"x": F, "alpha": np.float32(0.5)}),
    ("linear_activation", {"x": F, "alpha": np.float32(2), "beta": np.float32(1)}),
    ("sigmoid_hard", {"x": F, "alpha": np.float32(0.5), "beta": np.float32(0.2)}),
    ("scaled_tanh", {"x": F, "alpha": np.float32(0.5), "beta": np.float32(0.2)}),
    ("cast", {"x": F * 3, "dtype": "int32"}),
    ("cast", {"x": I, "dtype": "fp16"}),
    ("cast", {"x": F, "dtype": "bool"}),
    ("identity", {"x": F}),
    ("softmax", {"x": F, "axis": 1}),
]  # fmt: skip
FLOAT_BINARY = ("add", "sub", "mul", "real_div", "pow", "maximum", "minimum", "mod", "floor_div")
INTEGER_BINARY = ("add", "sub", "mul", "maximum", "minimum", "mod", "floor_div")
COMPARISONS = ("equal", "not_equal", "greater", "greater_equal", "less", "less_equal")
BINARY: list[tuple[str, dict[str, Any]]] = [
    *((name, {"x": P, "y": Y}) for name in FLOAT_BINARY),
    *((name, {"x": I, "y": I[:, :1, ::-1].copy()}) for name in INTEGER_BINARY),
    *((name, {"x": I, "y": I[:, :1, :]}) for name in COMPARISONS),
    *((name, {"x": B, "y": B[:1]}) for name in ("logical_and", "logical_or", "logical_xor")),
    ("select", {"cond": B, "a": F, "b": P}),
    ("matmul", {"x": F, "y": F, "transpose_y": True}),
    ("linear", {"x": F, "weight": F[0], "bias": F[0, :, 0].copy()}),
    ("scaled_dot_product_attention", {"query": F, "key": P, "value": F}),
    ("scaled_dot_product_attention", {"query": F, "key": P, "value": F, "attn_mask": np.tril(np.ones((3, 3), bool))}),
    ("layer_norm", {"x": F, "axes": [-1], "gamma": F[0, 0], "beta": F[0, 1], "epsilon": np.float32(1e-3)}),
]  # fmt: skip
REDUCE: list[tuple[str, dict[str, Any]]] = [
    (f"reduce_{name}", {"x": x, "axes": axes, "keep_dims": keep})
    for name in ("sum", "mean", "max", "min", "prod", "sum_square", "l1_norm", "l2_norm", "log_sum")
    for x, axes, keep in ((P, [1], False), (P, [-1, 0], True))
] + [
    ("reduce_log_sum_exp", {"x": P, "axes": [1], "keep_dims": True}),
    ("reduce_argmax", {"x": F, "axis": 1, "keep_dims": True}),
    ("reduce_argmin", {"x": F, "axis": -1, "keep_dims": False}),
    ("topk", {"x": F, "k": 2, "axis": 2}),
    ("cumsum", {"x": F, "axis": 1}),
]
SHAPES: list[tuple[str, dict[str, Any]]] = [
    ("reshape", {"x": F, "shape": [4, -1, 2]}),
    ("reshape", {"x": F, "shape": [0, 1, -1, 0]}),
    ("transpose", {"x": F, "perm": [2, 0, -2]}),
    ("expand_dims", {"x": F, "axes": [0, -1]}),
    ("squeeze", {"x": F[:, :1], "axes": [1]}),
    ("concat", {"values": (F, P), "axis": 1}),
    ("stack", {"values": (F, P), "axis": -1}),
    ("split", {"x": F, "num_splits": 2, "axis": 2}),
    ("split", {"x": F, "split_sizes": [1, 2], "axis": 1}),
    ("tile", {"x": F, "reps": [2, 1, 3]}),
    ("fill", {"shape": [2, 3], "value": np.float32(1.5)}),
    ("fill_like", {"ref_tensor": F, "value": np.float32(1.5)}),
    ("range_1d", {"start": 1, "end": 12, "step": 3}),
    ("shape", {"x": F}),
    ("reverse", {"x": F, "axes": [1]}),
    ("band_part", {"x": F, "lower": 1, "upper": 0}),
    ("pad", {"x": F, "pad": [1, 0, 2, 1], "mode": "constant", "constant_val": np.float32(2)}),
    ("pad", {"x": F, "pad": [1, 0, 2, 1], "mode": "reflect"}),
    ("pad", {"x": F, "pad": [0, 2, 1, 1], "mode": "replicate"}),
    ("gather", {"x": F, "indices": np.array([[2, 0], [1, 1]], np.int32), "axis": 1}),
    ("gather", {"x": F, "indices": np.array([[2], [0]], np.int32), "axis": 1, "batch_dims": 1}),
    ("gather_along_axis", {"x": F, "indices": np.zeros((2, 1, 4), np.int32), "axis": 1}),
    ("slice_by_index", {"x": F, "begin": [0, 1, 0], "end": [2, 3, 3], "stride": [1, 1, 2]}),
    ("slice_by_index", {"x": F, "begin": [0, -2, 0], "end": [2, -1, 0], "end_mask": [False, False, True]}),
    ("slice_by_index", {"x": F, "begin": [1, 0, 0], "end": [0, 3, 0], "squeeze_mask": [True, False, True]}),
    ("slice_by_size", {"x": F, "begin": [0, 1, -2], "size": [2, -1, 1]}),
    ("slice_update", {"x": F, "update": P[:1, 1:, :2].copy(), "begin": [1, 1, 0], "end": [2, 3, 2]}),
]


@pytest.mark.parametrize(("name", "inputs"), UNARY + BINARY + REDUCE + SHAPES)
def test_equal_to_coremltools_value_inference(inferred: Any, kernel: Any, name: str, inputs: dict[str, Any]) -> None:
    expected = inferred(name, **inputs)
    assert expected is not None, "coremltools inferred nothing: the comparison would be empty"
    result = kernel(name, **inputs)
    pairs = zip(result, expected, strict=True) if isinstance(expected, tuple) else [(result, expected)]
    for ours, theirs in pairs:
        assert list(ours.shape) == list(np.shape(theirs))
        if not ours.dtype.is_floating_point:
            assert np.array_equal(ours.numpy(), theirs)
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=2e-5, atol=2e-6)


def test_reshape_like_has_the_shape_that_coremltools_declares(mil: Any, kernel: Any) -> None:
    references = (np.zeros((2, 3), np.float32), np.zeros((1, 4), np.float32))
    options = {"begins": (0, 1), "ends": (2, 0), "end_masks": (False, True)}
    with mil.Function({}, opset_version=mil.ct.target.iOS18):
        declared = mil.mb.reshape_like(x=F.reshape(6, 4), ref_tensors=references, **options)
    assert kernel("reshape_like", x=F.reshape(6, 4), ref_tensors=references, **options).shape == declared.shape
