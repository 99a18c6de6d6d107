"""Integers moved for the logits: the objective falls, exact cases come out exactly, the model is left as it was."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

from parcae_mobile import Parcae
from quantize import quantize_with
from quantize.compression import HeldOut
from quantize.fisher import collect_gradients, descend_both, refine_by_fisher
from quantize.gptq import DAMPING, damp
from quantize.recipe import parse_recipe
from quantize.rtn import quantize_rtn
from quantize.tensor import QuantizedTensor, integer_range

IDS = torch.randint(0, 60, (12, 24), generator=torch.Generator().manual_seed(3))
LOW = parse_recipe(
    'budget={kl=1,top1=0}\n[[rules]]\nmatch="transformer.adapter.*"\nbits=32\n'
    '[[rules]]\nmatch="transformer.wte.weight"\nbits=8\n[[rules]]\nmatch="*.weight"\nbits=3\ngroup_size=16',
    "low",
)


def moments(size: int, seed: int) -> torch.Tensor:
    x = torch.randn(3 * size, size, generator=torch.Generator().manual_seed(seed))
    return x.T @ x


def objective(tensor: QuantizedTensor, weight: torch.Tensor, h: torch.Tensor, g: torch.Tensor) -> float:
    error = (weight - tensor.dequantize()).double()
    return float(torch.trace(damp(g, 0.1) @ error @ damp(h, DAMPING) @ error.T))


@pytest.mark.parametrize("symmetric", [True, False])
def test_the_two_sided_objective_falls_and_integers_stay_in_range(symmetric: bool) -> None:
    weight = torch.randn(48, 32, generator=torch.Generator().manual_seed(1))
    h, g = moments(32, 2), moments(48, 3)
    start = quantize_rtn(weight, 3, 16, symmetric)
    moved = descend_both(start, weight, h, g)
    low, high = integer_range(3, symmetric)
    assert objective(moved, weight, h, g) < 0.8 * objective(start, weight, h, g)
    assert low <= int(moved.integers.min()) and int(moved.integers.max()) <= high
    assert torch.equal(moved.scales, start.scales)


def test_without_correlations_the_nearest_integers_come_back() -> None:
    weight = torch.randn(24, 32, generator=torch.Generator().manual_seed(1)) * 0.1
    nearest = quantize_rtn(weight, 4, 32)
    away = (nearest.integers + (torch.arange(24 * 32).view(24, 32) % 5 == 0)).clamp(-8, 7).to(torch.int8)
    wrong = QuantizedTensor(away, nearest.scales, 4, 32)
    assert torch.equal(descend_both(wrong, weight, torch.eye(32), torch.eye(24)).integers, nearest.integers)


def test_gradients_are_those_at_a_matrix_output(small: Callable[..., Parcae]) -> None:
    model = small()
    name = "transformer.coda.0.mlp.proj.weight"
    ids = IDS[:4]
    found = collect_gradients(model, ids, [name], seed=5)[name]
    x = model.transformer["C"](list(model.states(ids, 2))[-1])
    block, slot = model.transformer["coda"][0], model.slots("coda", ids)[0]
    x = x + block.attn(block.norm_1(x), model.value_embeddings("coda", ids)[0], slot)
    output = block.mlp(block.norm_2(x)).requires_grad_(True)
    likelihoods = F.log_softmax(model.head(x + output)[..., :60], -1).flatten(0, 1)
    drawn = torch.multinomial(likelihoods.detach().exp(), 1, generator=torch.Generator().manual_seed(5))
    (gradient,) = torch.autograd.grad(likelihoods.gather(1, drawn).sum(), output)
    flat = gradient.flatten(0, 1)
    torch.testing.assert_close(found, flat.T @ flat, rtol=1e-3, atol=1e-6)
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())


def test_the_model_comes_nearer_than_by_gptq_alone(small: Callable[..., Parcae]) -> None:
    model = small()
    held_out = HeldOut(model, IDS, (4,))
    fitted = quantize_with(model, LOW, "gptq", IDS)
    moved = refine_by_fisher(model, fitted, IDS)
    before, after = (held_out.measure(q.model)[0][4].kl_mean for q in (fitted, moved))
    assert after < 0.95 * before
    weights = dict(moved.model.named_parameters())
    assert all(torch.equal(weights[name], tensor.dequantize()) for name, tensor in moved.tensors.items())
    eight = "transformer.wte.weight"
    assert torch.equal(moved.tensors[eight].integers, fitted.tensors[eight].integers)
