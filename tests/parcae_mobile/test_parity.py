"""Distances between logits, against values computed by hand; what is not finite can never pass."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from parcae_mobile import Parcae
from parcae_mobile.parity import compare, perplexity, state_changes, state_error, sweep


def logs(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows).log()


def test_kl_top1_flips_and_perplexity_are_their_definitions() -> None:
    reference = logs([0.5, 0.25, 0.25], [0.8, 0.1, 0.1])
    other = logs([0.25, 0.5, 0.25], [0.8, 0.1, 0.1])
    distance = compare(reference, other, torch.tensor([0, 0]))
    first = 0.5 * math.log(2) - 0.25 * math.log(2)
    assert distance.positions == 2
    assert distance.kl_mean == pytest.approx(first / 2, abs=1e-6)
    assert distance.kl_sem == pytest.approx(first / 2, abs=1e-6)  # std of (x, 0) is x / sqrt 2, over sqrt 2
    assert distance.kl_p99 == pytest.approx(first, abs=1e-6)
    assert distance.top1 == 0.5
    assert distance.max_abs == pytest.approx(math.log(2), abs=1e-6)
    assert distance.perplexity_ratio == pytest.approx(math.sqrt(2), abs=1e-6)


def test_a_flip_counts_when_the_margin_exceeds_every_difference() -> None:
    reference = torch.tensor([[3.0, 0.0], [0.5, 0.0]])
    distance = compare(reference, torch.tensor([[3.0, 0.0], [0.2, 0.25]]))  # margin 0.5, differences of 0.3 at most
    assert (distance.top1, distance.flips) == (0.5, 1)
    distance = compare(reference, torch.tensor([[3.0, 0.0], [0.0, 0.6]]))  # a difference of 0.6 explains it
    assert (distance.top1, distance.flips) == (0.5, 0)


def test_equal_logits_have_no_distance() -> None:
    logits = torch.randn(7, 11, generator=torch.Generator().manual_seed(0))
    distance = compare(logits, logits, torch.arange(7))
    assert (distance.kl_mean, distance.max_abs, distance.flips) == (0, 0, 0)
    assert (distance.top1, distance.perplexity_ratio) == (1, 1)
    assert distance.cosine == pytest.approx(1)


def test_a_shift_of_all_logits_is_no_divergence_but_a_difference() -> None:
    logits = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    distance = compare(logits, logits + 3)
    assert distance.kl_mean == pytest.approx(0, abs=1e-9)
    assert distance.max_abs == pytest.approx(3, abs=1e-5)


def test_padding_of_the_vocabulary_can_be_left_out() -> None:
    reference, other = torch.zeros(2, 4), torch.zeros(2, 4)
    other[:, 3] = 50
    assert compare(reference, other, keep=3).max_abs == 0
    assert compare(reference, other).max_abs == 50


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["reference", "other"])
def test_non_finite_logits_are_infinitely_far(bad: float, where: str) -> None:
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    broken = logits.clone()
    broken[1, 2] = bad
    pair = (broken, logits) if where == "reference" else (logits, broken)
    distance = compare(*pair)
    assert distance.max_abs == math.inf
    assert not distance.kl_mean <= 1e6
    assert not distance.cosine >= 0.9999


def test_many_positions_are_compared_in_pieces() -> None:
    generator = torch.Generator().manual_seed(0)
    reference, other = torch.randn(2, 1300, 5, generator=generator).unbind()
    whole = compare(reference, other)
    halves = [compare(reference[part], other[part]) for part in (slice(0, 512), slice(512, 1300))]
    assert whole.kl_mean == pytest.approx((512 * halves[0].kl_mean + 788 * halves[1].kl_mean) / 1300)
    assert whole.max_abs == max(half.max_abs for half in halves)


def test_perplexity_is_the_inverse_geometric_mean_of_probabilities() -> None:
    logits = logs([0.5, 0.5], [0.25, 0.75])
    assert perplexity(logits, torch.tensor([0, 0])) == pytest.approx(math.sqrt(8), abs=1e-5)


def test_state_error_is_relative_and_averaged_over_positions() -> None:
    reference = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    other = torch.tensor([[3.0, 3.0], [0.0, 1.0]])
    assert state_error(reference, other) == pytest.approx((1 / 5 + 1 / 2) / 2)


@torch.no_grad()
def test_a_sweep_equals_separate_runs(small: Callable[..., Parcae]) -> None:
    model, ids = small(), torch.tensor([[3, 1, 4, 1, 5]])
    for loops, state, logits in sweep(model, ids, (1, 3, 4)):
        torch.testing.assert_close(logits, model(ids, loops))
        assert torch.equal(state, list(model.states(ids, loops))[-1])


def test_state_changes_start_at_the_second_loop(small: Callable[..., Parcae]) -> None:
    model, ids = small(), torch.tensor([[3, 1, 4, 1, 5]])
    with torch.no_grad():
        first, second, third = model.states(ids, 3)
    expected = [state_error(second, first), state_error(third, second)]
    assert state_changes(model, ids, 3) == pytest.approx(expected)
