"""GPTQ on hand-made Hessians."""

from __future__ import annotations

import pytest
import torch

from quantize.gptq import HessianError, damp, inverse_factor, quantize_gptq
from quantize.refine import descend, refit_scales
from quantize.rtn import quantize_rtn

GENERATOR = torch.Generator().manual_seed(11)
COLUMNS = 96
WEIGHT = torch.randn(40, COLUMNS, generator=GENERATOR)
MIXING = torch.randn(COLUMNS, 12, generator=GENERATOR)
INPUTS = torch.randn(600, 12, generator=GENERATOR) @ MIXING.T + 0.1 * torch.randn(600, COLUMNS, generator=GENERATOR)
CORRELATED = INPUTS.T @ INPUTS


def output_error(weight: torch.Tensor) -> float:
    return float((INPUTS @ (weight - WEIGHT).T).square().sum())


@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_gptq_beats_rounding_where_inputs_are_correlated(bits: int, symmetric: bool) -> None:
    rounded = quantize_rtn(WEIGHT, bits, 32, symmetric)
    fitted = quantize_gptq(WEIGHT, CORRELATED, bits, 32, symmetric)
    assert output_error(fitted.dequantize()) < 0.5 * output_error(rounded.dequantize())
    assert (fitted.bits, fitted.group_size, fitted.symmetric) == (bits, 32, symmetric)


def test_independent_inputs_of_equal_size_leave_nothing_to_gain() -> None:
    fitted = quantize_gptq(WEIGHT, torch.eye(COLUMNS), 8, 32)
    rounded = quantize_rtn(WEIGHT, 8, 32)
    assert torch.equal(fitted.integers, rounded.integers) and torch.equal(fitted.scales, rounded.scales)


def test_the_order_of_columns_does_not_decide_the_result() -> None:
    order = torch.randperm(COLUMNS, generator=torch.Generator().manual_seed(2))
    plain = quantize_gptq(WEIGHT, CORRELATED, 8, COLUMNS)
    moved = quantize_gptq(WEIGHT[:, order], CORRELATED[order][:, order], 8, COLUMNS)
    assert torch.equal(moved.integers, plain.integers[:, order])


def test_rows_in_several_chunks_give_the_same_integers(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = quantize_gptq(WEIGHT, CORRELATED, 4, 32)
    monkeypatch.setattr("quantize.gptq._ROWS_AT_ONCE", 7)
    assert torch.equal(quantize_gptq(WEIGHT, CORRELATED, 4, 32).integers, whole.integers)


def test_errors_spread_over_blocks_as_over_single_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = quantize_gptq(WEIGHT, CORRELATED, 8, 32)
    monkeypatch.setattr("quantize.gptq.BLOCK", 5)
    split = quantize_gptq(WEIGHT, CORRELATED, 8, 32)
    assert float((split.integers == whole.integers).float().mean()) > 0.999


def test_a_column_that_is_never_used_is_rounded_by_itself() -> None:
    hessian = CORRELATED.clone()
    hessian[7], hessian[:, 7] = 0, 0
    fitted = quantize_gptq(WEIGHT, hessian, 8, COLUMNS).dequantize()
    assert float((fitted[:, 7] - WEIGHT[:, 7]).abs().max()) < 0.02


@pytest.mark.parametrize(
    ("hessian", "message"),
    [
        (torch.zeros(8, 8), "zero or not finite"),
        (torch.full((8, 8), torch.nan), "zero or not finite"),
        (torch.ones(8, 8) * 5 - 4 * torch.eye(8) - 30 * torch.eye(8)[[1, 0, *range(2, 8)]], "not positive definite"),
    ],
)
def test_moments_that_say_nothing_are_refused(hessian: torch.Tensor, message: str) -> None:
    with pytest.raises(HessianError, match=message):
        quantize_gptq(WEIGHT[:, :8], hessian, 4, 8)


def test_the_factor_is_that_of_the_damped_inverse() -> None:
    damped = damp(CORRELATED, 0.01)
    assert torch.allclose(damped - CORRELATED, 0.01 * CORRELATED.diagonal().mean() * torch.eye(COLUMNS).double())
    factor = inverse_factor(damped).double()
    assert torch.allclose(factor.T @ factor @ damped, torch.eye(COLUMNS).double(), atol=1e-3)


def test_each_refinement_lowers_the_error_of_outputs() -> None:
    rounded = quantize_rtn(WEIGHT, 4, 32)
    zeros = torch.zeros_like(rounded.scales)
    integers = rounded.integers.float()
    errors = [output_error(rounded.dequantize())]
    integers = descend(integers, zeros, rounded.scales, WEIGHT, CORRELATED, -8, 7)
    errors.append(output_error((integers.view(40, 3, 32) * rounded.scales[..., None]).view(40, 96)))
    scales = refit_scales(integers, rounded.scales, WEIGHT, CORRELATED)
    errors.append(output_error((integers.view(40, 3, 32) * scales[..., None]).view(40, 96)))
    assert errors[2] < errors[1] < 0.7 * errors[0]
    assert float(integers.min()) >= -8 and float(integers.max()) <= 7
