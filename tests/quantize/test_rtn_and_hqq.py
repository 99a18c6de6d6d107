"""Algorithms that look at weights alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quantize.hqq import NORM, quantize_hqq
from quantize.rtn import quantize_rtn
from quantize.tensor import QuantizedTensor, integer_range, on_scale_grid

GENERATOR = torch.Generator().manual_seed(5)
WEIGHT = torch.randn(64, 128, generator=GENERATOR) * 0.05


def squared(tensor: QuantizedTensor, weight: torch.Tensor = WEIGHT) -> float:
    return float((tensor.dequantize() - weight).square().sum())


def test_searched_scales_beat_the_largest_magnitude() -> None:
    groups = WEIGHT.view(64, 4, 32)
    scale = on_scale_grid(groups.abs().amax(-1, keepdim=True) / 7)
    plain = (groups / scale).round().clamp(-8, 7) * scale
    assert squared(quantize_rtn(WEIGHT, 4, 32)) < 0.9 * float((plain - groups).square().sum())


@pytest.mark.parametrize("quantize", [quantize_rtn, quantize_hqq])
def test_zero_points_help_weights_that_lie_to_one_side(quantize: object) -> None:
    shifted = WEIGHT.abs()
    assert squared(quantize(shifted, 4, 32, False), shifted) < 0.5 * squared(quantize(shifted, 4, 32), shifted)  # type: ignore


@pytest.mark.parametrize("quantize", [quantize_rtn, quantize_hqq])
@given(st.integers(1, 4), st.sampled_from([(4, 4), (12, 4), (64, 32)]), st.sampled_from([2, 3, 4, 8]), st.booleans())
def test_every_shape_and_width_gives_valid_integers(
    quantize: object, rows: int, layout: tuple[int, int], bits: int, symmetric: bool
) -> None:
    columns, group = layout
    weight = WEIGHT.flatten()[: rows * columns].view(rows, columns)
    tensor = quantize(weight, bits, group, symmetric)  # type: ignore[operator]
    low, high = integer_range(bits, symmetric)
    assert tensor.shape == (rows, columns) and tensor.symmetric == symmetric
    assert int(tensor.integers.min()) >= low and int(tensor.integers.max()) <= high
    assert torch.isfinite(tensor.dequantize()).all()


@pytest.mark.parametrize("quantize", [quantize_rtn, quantize_hqq])
@pytest.mark.parametrize("symmetric", [True, False])
def test_a_row_of_zeros_stays_zero(quantize: object, symmetric: bool) -> None:
    tensor = quantize(torch.zeros(2, 32), 4, 32, symmetric)  # type: ignore[operator]
    assert not tensor.dequantize().any()


def test_rows_in_several_chunks_give_the_same_integers(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [quantize_rtn(WEIGHT, 4, 32), quantize_hqq(WEIGHT, 4, 32)]
    monkeypatch.setattr("quantize.rtn._ROWS_AT_ONCE", 300)
    monkeypatch.setattr("quantize.hqq._WEIGHTS_AT_ONCE", 300)
    parts = [quantize_rtn(WEIGHT, 4, 32), quantize_hqq(WEIGHT, 4, 32)]
    for one, other in zip(whole, parts, strict=True):
        assert torch.equal(one.integers, other.integers) and torch.equal(one.scales, other.scales)


def test_hqq_has_the_smaller_error_in_the_norm_that_it_minimises() -> None:
    heavy = WEIGHT / torch.rand(64, 128, generator=GENERATOR).clamp_min(0.05)
    error = lambda tensor: float((tensor.dequantize() - heavy).abs().pow(NORM).sum())  # noqa: E731
    assert error(quantize_hqq(heavy, 4, 32)) < 0.99 * error(quantize_rtn(heavy, 4, 32))
    assert squared(quantize_hqq(heavy, 4, 32), heavy) > squared(quantize_rtn(heavy, 4, 32), heavy)
