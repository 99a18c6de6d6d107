"""Muon against hand-made numbers, the loop counts' distribution and the schedule's shape."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from training.loops import draw_loops
from training.muon import MARGIN, POLAR_EXPRESS, Muon, orthogonalise
from training.schedule import COOL_DOWN, WARM_UP_STEPS, optimisers, set_rates, trapezoid
from training.shape import new_model, small_config


def polynomial(value: float) -> float:
    """What the five steps make of one singular value, as plain numbers."""
    for a, b, c in POLAR_EXPRESS:
        value = a * value + b * value**3 + c * value**5
    return value


@pytest.mark.parametrize("shape", [(24, 24), (48, 12), (12, 48)])
def test_orthogonalised_matrix_is_near_the_polar_factor(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    result = orthogonalise(matrix[None])[0]
    expected = torch.tensor([polynomial(float(v / (values.norm() * MARGIN))) for v in values])
    assert torch.allclose(result, left @ torch.diag(expected) @ right, atol=1e-4)
    assert (expected - 1).abs().max() < 0.15


def test_one_step_moves_along_the_polar_factor_of_the_gradient() -> None:
    # A multiple of a rotation: both singular values are 1 / sqrt(2) of the norm, so the step is along the rotation.
    rotation = torch.tensor([[0.6, -0.8], [0.8, 0.6]])
    weight = nn.Parameter(torch.ones(2, 2))
    weight.grad = 3.0 * rotation
    Muon([weight], lr=0.1, weight_decay=0.5).step()
    length = polynomial(0.5**0.5 / MARGIN)
    assert torch.allclose(weight.detach(), 1 - 0.1 * 0.5 - 0.1 * length * rotation, atol=1e-5)


def test_a_tall_matrix_steps_further_by_the_root_of_its_aspect() -> None:
    weight = nn.Parameter(torch.zeros(4, 1))
    weight.grad = torch.tensor([[1.0], [0.0], [0.0], [0.0]])
    Muon([weight], lr=0.1).step()
    assert weight[0].item() == pytest.approx(-0.1 * 2 * polynomial(1 / MARGIN), abs=1e-3)
    assert weight[1:].abs().max() == 0


def test_momentum_is_nesterovs() -> None:
    weight = nn.Parameter(torch.zeros(1, 1))
    optimiser = Muon([weight], lr=0.1, momentum=0.5)
    weight.grad = torch.ones(1, 1)
    optimiser.step()
    assert optimiser.state[weight]["momentum"].item() == 0.5
    weight.grad = -torch.ones(1, 1)
    optimiser.step()
    assert optimiser.state[weight]["momentum"].item() == -0.25
    assert abs(weight.item()) < 1e-2  # one step down, one step up


def test_the_schedule_is_a_trapezoid() -> None:
    assert trapezoid(0, 0.0) == 1 / WARM_UP_STEPS
    assert trapezoid(WARM_UP_STEPS, 1 - COOL_DOWN) == 1
    assert trapezoid(1000, 1 - COOL_DOWN / 2) == pytest.approx(0.5)
    assert trapezoid(1000, 1.0) == 0


def test_every_parameter_has_one_optimiser_and_the_schedule_reaches_all() -> None:
    model = new_model(small_config(32, 64), seed=0)
    both = optimisers(model, 0.01, 0.004)
    owned = [p for o in both for group in o.param_groups for p in group["params"]]
    assert len(owned) == len({id(p) for p in owned}) == len(list(model.parameters()))
    assert all(p.dim() == 2 for group in both[0].param_groups for p in group["params"])
    set_rates(both, 1000, 1 - COOL_DOWN / 4)
    assert [group["lr"] for o in both for group in o.param_groups] == pytest.approx([0.0025, 0.001, 0.0005])


def test_loop_counts_are_descending_and_follow_the_mean() -> None:
    counts = draw_loops(4000, 6, torch.Generator().manual_seed(0))
    assert (counts[:-1] >= counts[1:]).all() and counts.min() >= 1 and counts.max() <= 24
    assert counts.float().mean().item() == pytest.approx(6, abs=0.15)
    assert counts.float().var().item() == pytest.approx(6, abs=0.6)
