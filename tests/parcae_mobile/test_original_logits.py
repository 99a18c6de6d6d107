"""The eager model computes what the original code computes: its golden logits, at every loop count, cached or not."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from parcae_mobile import KVCache, Parcae, load_model
from parcae_mobile.parity import perplexity, sweep

PREFILL = 20


@cache
def opened(folder: Path) -> tuple[Parcae, dict[str, torch.Tensor]]:
    with np.load(folder / "golden.npz") as file:
        return load_model(folder), {name: torch.from_numpy(file[name]) for name in file.files}


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_logits_equal_the_originals_at_every_loop_count(golden_folder: Path) -> None:
    model, golden = opened(golden_folder)
    assert len(golden["loops"]) >= 3
    for loops in golden["loops"].tolist():
        close(model(golden["input_ids"], loops, golden["initial_state"]), golden[f"logits_{loops}"])


@torch.no_grad()
def test_cached_prefill_and_decode_equal_the_originals_full_forward(golden_folder: Path) -> None:
    model, golden = opened(golden_folder)
    ids, state = golden["input_ids"], golden["initial_state"]
    for loops in golden["loops"].tolist():
        cache_ = KVCache(model.config, loops, batch=len(ids))
        pieces = [model(ids[:, :PREFILL], loops, state[:, :PREFILL], cache_)]
        for at in range(PREFILL, ids.shape[1]):
            pieces.append(model(ids[:, at : at + 1], loops, state[:, at : at + 1], cache_))
        close(torch.cat(pieces, 1), golden[f"logits_{loops}"])


@torch.no_grad()
def test_the_first_state_is_zero_unless_one_is_given(data: Path) -> None:
    model, golden = opened(data / "diagonal-2-2-2")
    ids = golden["input_ids"]
    assert torch.equal(model(ids, 2), model(ids, 2, torch.zeros_like(golden["initial_state"])))
    assert not torch.allclose(model(ids, 2), golden["logits_2"], atol=1e-3)


@torch.no_grad()
def test_the_golden_check_can_fail(data: Path) -> None:
    model, golden = opened(data / "diagonal-2-2-2")
    with pytest.raises(AssertionError):
        close(model(golden["input_ids"], 3, golden["initial_state"]), golden["logits_4"])


def test_perplexity_of_the_trained_model_is_the_published_one(data: Path) -> None:
    model = load_model(data / "tiny-trained")
    held_out = np.load(data / "tiny-trained" / "heldout_tokens.npy").astype(np.int64)
    windows = torch.from_numpy(held_out[: 16 * 257].reshape(16, 257))
    measured = {
        loops: perplexity(logits, windows[:, 1:]) for loops, _, logits in sweep(model, windows[:, :-1], (1, 2, 4, 8))
    }
    expected = {1: 25.0802, 2: 22.4593, 4: 22.0923, 8: 22.1183}
    assert measured == pytest.approx(expected, abs=0.01)


@torch.no_grad()
def test_positions_choose_the_logits_that_are_computed(data: Path) -> None:
    model, golden = opened(data / "untied-softcap")
    ids = golden["input_ids"]
    whole = model(ids, 2)
    close(model(ids, 2, positions=torch.tensor([0, 32, 7])), whole[:, [0, 32, 7]])
