"""What is left after rounding, and the fault that it leans towards: by derivatives first, then by trying."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from unittest import mock

import pytest
import torch
from torch import Tensor

from export.gates import directions
from export.gates.directions import LEAST, SIZE, TEXTS, Leaning, matrices, matrix_leanings, shortened, suspected
from export.gates.probes import Probe, expected
from export.gates.suspects import first_look
from parcae_mobile import Parcae
from parcae_mobile.kv_cache import CacheSpec

SPEC = CacheSpec()
LOOPS = 2
INJECTION = "transformer.adapter.B"  # no layer's weight: always tried


@pytest.fixture(scope="module")
def model(small: Callable[..., Parcae]) -> Parcae:
    return small()


@pytest.fixture(scope="module")
def probe(model: Parcae) -> Probe:
    generator = torch.Generator().manual_seed(1)
    return Probe("one piece", torch.randint(0, model.config.vocab_size, (4, 24), generator=generator))


def changed_by(model: Parcae, probe: Probe, fault: str) -> Tensor:
    base = expected(model, probe, LOOPS, SPEC)[0]
    with suspected(model, fault):
        return expected(model, probe, LOOPS, SPEC)[0] - base


def noise(shape: torch.Size, scale: float) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(2)) * scale


@torch.no_grad()
def test_derivatives_give_each_faults_product_and_estimate_its_length(model: Parcae, probe: Probe) -> None:
    left = noise(expected(model, probe, LOOPS, SPEC)[0].shape, 1e-2)
    looks = first_look(model, probe.ids, left, LOOPS, SIZE)
    assert set(matrices(model)) - set(looks) <= {INJECTION}
    compared = 0
    for fault, look in looks.items():
        change = changed_by(model, probe, fault)
        if float(change.norm()) < LEAST * float(left.norm()):
            continue
        along = (left * change).sum((1, 2))
        assert torch.allclose(look.along.float(), along, rtol=0.1, atol=0.05 * float(along.abs().max())), fault
        assert 0.4 < float(look.size.sum() / change.square().sum()) < 2.5, fault
        compared += 1
    assert compared > 5


@torch.no_grad()
@pytest.mark.parametrize(
    "fault", ["transformer.core_block.0.mlp.proj.weight", "lm_head.weight", INJECTION]
)
def test_a_matrix_that_is_larger_is_found_among_all(model: Parcae, probe: Probe, fault: str) -> None:
    if fault not in matrices(model):
        fault = "transformer.wte.weight"
    change = changed_by(model, probe, fault)
    left = change + noise(change.shape, float(change.square().mean().sqrt()))
    base = expected(model, probe, LOOPS, SPEC)[0]
    leanings = [one for one in matrix_leanings(model, probe, LOOPS, SPEC, left, base) if one is not None]
    worst = max((one for one in leanings if one.found), key=lambda one: abs(one.share) / one.error)
    assert worst.fault == fault and worst.share == pytest.approx(1, abs=0.2)


@torch.no_grad()
def test_without_a_fault_few_matrices_are_tried_and_none_is_found(model: Parcae, probe: Probe) -> None:
    base = expected(model, probe, LOOPS, SPEC)[0]
    left, tried = noise(base.shape, 1e-3), []

    @contextlib.contextmanager
    def counting(model: Parcae, fault: str):  # type: ignore[no-untyped-def]
        tried.append(fault)
        with suspected(model, fault):
            yield

    with mock.patch.object(directions, "suspected", counting):
        leanings = matrix_leanings(model, probe, LOOPS, SPEC, left, base)
    assert not any(one.found for one in leanings if one is not None)
    assert len(tried) < len(matrices(model)) / 3


@pytest.mark.parametrize(
    ("count", "length", "wanted"), [(8, 64, (8, 64)), (2, 64, (8, 16)), (3, 10, (9, 3)), (1, 5, (5, 1))]
)
def test_few_texts_are_cut_into_enough_to_know_their_scatter(count: int, length: int, wanted: tuple[int, int]) -> None:
    ids = torch.arange(count * length).view(count, length)
    short = shortened(Probe("one piece", ids))
    assert tuple(short.ids.shape) == wanted and short.ids[1, 0] == (length if count >= TEXTS else wanted[1])


@torch.no_grad()
def test_hooks_and_weights_are_as_before_afterwards(model: Parcae, probe: Probe) -> None:
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    base = expected(model, probe, LOOPS, SPEC)[0]
    matrix_leanings(model, probe, LOOPS, SPEC, noise(base.shape, 1e-3), base)
    assert all(torch.equal(before[name], parameter) for name, parameter in model.named_parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert torch.equal(base, expected(model, probe, LOOPS, SPEC)[0])


def test_a_leaning_is_found_from_half_of_a_fault_and_four_errors_on() -> None:
    assert Leaning("m", 0.6, 0.1).found and Leaning("m", -0.6, 0.1).found
    assert not Leaning("m", 0.4, 0.01).found and not Leaning("m", 0.9, 0.3).found
    assert Leaning("m", 0.0, 0.2).least == pytest.approx(0.8)


@torch.no_grad()
def test_loops_that_are_known_are_not_computed_again(model: Parcae, probe: Probe) -> None:
    whole, states = expected(model, probe, 5, SPEC)
    few = expected(model, probe, 2, SPEC)[1]
    calls = []
    original = Parcae.recur

    def recur(self: Parcae, *given: Tensor) -> Tensor:
        calls.append(1)
        return original(self, *given)

    with mock.patch.object(Parcae, "recur", recur):
        again, more = expected(model, probe, 5, SPEC, few)
    assert torch.equal(whole, again) and len(calls) == 3
    assert all(torch.equal(a, b) for a, b in zip(states, more, strict=True))
