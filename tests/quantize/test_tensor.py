"""`QuantizedTensor`: what it means, what it refuses, and that it survives being written."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from parcae_mobile.errors import TensorValueError
from quantize.rtn import quantize_rtn
from quantize.tensor import QuantizedTensor, integer_range, on_scale_grid

SHAPES = st.tuples(st.integers(1, 5), st.integers(1, 4), st.sampled_from([1, 2, 8, 32]))


def random_weight(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def test_dequantize_is_integer_minus_zero_point_times_scale() -> None:
    integers = torch.tensor([[1, -8, 7, 0]], dtype=torch.int8)
    tensor = QuantizedTensor(integers, torch.tensor([[0.5, 2.0]]), 4, 2, torch.tensor([[1, -3]], dtype=torch.int8))
    assert tensor.dequantize().tolist() == [[0.0, -4.5, 20.0, 6.0]]


@given(SHAPES, st.sampled_from([2, 3, 4, 8]), st.booleans(), st.integers(0, 99))
def test_parts_come_back_as_they_were(shape: tuple[int, int, int], bits: int, symmetric: bool, seed: int) -> None:
    rows, groups, size = shape
    tensor = quantize_rtn(random_weight(rows, groups * size, seed), bits, size, symmetric)
    again = QuantizedTensor.from_tensors("w", tensor.to_tensors("w"))
    assert (again.bits, again.group_size, again.symmetric) == (bits, size, symmetric)
    assert torch.equal(again.dequantize(), tensor.dequantize())


@given(st.lists(st.floats(1e-12, 1e9), min_size=1, max_size=20))
def test_scales_on_the_grid_are_exact_in_bf16_and_normal_in_fp16(values: list[float]) -> None:
    scales = on_scale_grid(torch.tensor(values))
    assert torch.equal(scales.bfloat16().float(), scales)
    assert torch.equal(scales.half().float(), scales)
    assert bool((scales >= torch.finfo(torch.float16).tiny).all())


def test_bytes_count_packed_integers_scales_and_zero_points() -> None:
    weight = random_weight(4, 64)
    assert quantize_rtn(weight, 4, 32).nbytes == 4 * 64 // 2 + 8 * 2
    assert quantize_rtn(weight, 4, 32, symmetric=False).nbytes == 4 * 64 // 2 + 8 * 2 + 8 // 2
    assert quantize_rtn(weight, 8, 64).nbytes == 4 * 64 + 4 * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"group_size": 3}, "group size 3 does not divide 4 columns"),
        ({"scales": torch.ones(1, 3)}, "scales"),
        ({"integers": torch.full((1, 4), 8, dtype=torch.int8)}, "integers must be int8 from -8 to 7"),
        ({"scales": torch.tensor([[0.1, 0.1]])}, "exact in bf16"),
        ({"scales": torch.tensor([[1.0, -1.0]])}, "positive"),
        ({"zero_points": torch.zeros(1, 3, dtype=torch.int8)}, "zero points"),
        ({"bits": 5}, "5 bits are not supported"),
    ],
)
def test_parts_that_contradict_each_other_are_refused(change: dict[str, object], message: str) -> None:
    parts: dict[str, object] = {
        "integers": torch.zeros(1, 4, dtype=torch.int8), "scales": torch.ones(1, 2), "bits": 4, "group_size": 2
    }  # fmt: skip
    with pytest.raises(TensorValueError, match=message):
        QuantizedTensor(**(parts | change))  # type: ignore[arg-type]


def test_a_missing_part_is_named() -> None:
    parts = quantize_rtn(random_weight(2, 4), 4, 4).to_tensors("w")
    del parts["w.scales"]
    with pytest.raises(TensorValueError, match=r"w: incomplete quantized tensor \('w.scales'\)"):
        QuantizedTensor.from_tensors("w", parts)


def test_integer_ranges() -> None:
    assert (integer_range(8), integer_range(4), integer_range(2, False)) == ((-127, 127), (-8, 7), (-2, 1))
