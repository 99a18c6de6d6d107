"""The compression gate: who passes, who fails, and when nothing can be judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from parcae_mobile import Parcae, load_model
from parcae_mobile.errors import TextError, UsageError
from parcae_mobile.parity import sweep
from parcae_mobile.text import text_ids
from quantize import load_recipe, quantize_with
from quantize.apply import with_tensors
from quantize.compression import HeldOut, budget_at, compression_gate, growth
from quantize.recipe import Budget

WINDOWS = torch.randint(0, 60, (5, 13), generator=torch.Generator().manual_seed(8))


@pytest.fixture(scope="module")
def trained(data: Path) -> tuple[Parcae, torch.Tensor]:
    folder = data / "tiny-trained"
    return load_model(folder), text_ids(folder, "heldout").windows(2, 96)


def test_int8_passes_and_a_spoiled_weight_fails(trained: tuple[Parcae, torch.Tensor]) -> None:
    model, windows = trained
    quantized = quantize_with(model, load_recipe("int8"), "rtn")
    assert compression_gate(model, quantized, windows, real=True, loops=(1, 4)).passed is True
    worse = {"transformer.C.weight": model.transformer["C"].weight * 1.1}
    spoiled = replace(quantized, eager=with_tensors(quantized.model, {}, worse))
    verdict = compression_gate(model, spoiled, windows, real=True, loops=(1, 4))
    assert verdict.passed is False
    assert any(line.startswith("T=4: KL ") for line in verdict.failures)


def test_a_model_that_is_not_finite_fails(trained: tuple[Parcae, torch.Tensor]) -> None:
    model, windows = trained
    quantized = quantize_with(model, load_recipe("int8"), "rtn")
    broken = {"transformer.C.weight": torch.full_like(model.transformer["C"].weight, torch.nan)}
    spoiled = replace(quantized, eager=with_tensors(quantized.model, {}, broken))
    verdict = compression_gate(model, spoiled, windows, True, (1,))
    assert verdict.passed is False and verdict.by_loops[1].kl_mean == torch.inf


def test_seeded_ids_judge_nothing(small: Callable[..., Parcae]) -> None:
    quantized = quantize_with(small(), load_recipe("int4"), "rtn")
    tight = replace(quantized, recipe=replace(quantized.recipe, budget=Budget(0, 1)))
    verdict = compression_gate(small(), tight, WINDOWS, real=False)
    assert verdict.passed is None and not verdict.failures and verdict.to_dict()["real_text"] is False
    assert compression_gate(small(), tight, WINDOWS, real=True).passed is False


def test_few_loops_get_a_third_more() -> None:
    budget = Budget(0.03, 0.91)
    assert budget_at(budget, 4) == budget_at(budget, 16) == budget
    assert budget_at(budget, 2).kl == pytest.approx(0.04) and budget_at(budget, 1).top1 == pytest.approx(0.88)


def test_windows_in_batches_measure_what_one_batch_does(
    small: Callable[..., Parcae], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, quantized = small(), quantize_with(small(), load_recipe("int4"), "rtn")
    whole = compression_gate(model, quantized, WINDOWS, True, (1, 2, 4, 8))
    monkeypatch.setattr("quantize.compression._TOKENS_AT_ONCE", 12)
    parts = compression_gate(model, quantized, WINDOWS, True, (1, 2, 4, 8))
    for loops, distance in whole.by_loops.items():
        assert parts.by_loops[loops].kl_mean == pytest.approx(distance.kl_mean, rel=1e-4)
    states = {loops: state for loops, state, _ in sweep(model, WINDOWS[:, :-1], (2, 8))}
    held_out = HeldOut(model, WINDOWS, (2, 8))
    assert all(torch.allclose(held_out.states[loops], states[loops], atol=1e-5) for loops in (2, 8))


def test_growth_is_the_last_kl_over_that_of_four_loops(small: Callable[..., Parcae]) -> None:
    quantized = quantize_with(small(), load_recipe("int4"), "rtn")
    verdict = compression_gate(small(), quantized, WINDOWS, True, (2, 4, 8))
    assert verdict.growth == pytest.approx(verdict.by_loops[8].kl_mean / verdict.by_loops[4].kl_mean)
    assert growth({8: verdict.by_loops[8]}) is None


def test_windows_and_loops_that_cannot_be_are_refused(small: Callable[..., Parcae]) -> None:
    quantized = quantize_with(small(), load_recipe("int8"), "rtn")
    with pytest.raises(TextError, match="windows of shape"):
        compression_gate(small(), quantized, WINDOWS[:, :1], True)
    with pytest.raises(UsageError, match="loops = 0"):
        compression_gate(small(), quantized, WINDOWS, True, (0, 1))
