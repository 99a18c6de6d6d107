"""The checkpoints that other tests rely on have the loop that they are said to have."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from parcae_mobile import load_model
from parcae_mobile.text import text_ids
from training.measure import decay_range, state_changes
from training.slow_loop import LEAST_DECAY, MOST_DECAY

DATA = Path(__file__).parents[1] / "data"


def test_the_slow_loop_still_moves_at_eight_loops_and_the_floors_does_not() -> None:
    changes = {}
    for name in ("slow-loop", "tiny-trained"):
        ids = text_ids(DATA / name, "heldout").windows(4, 128)
        changes[name] = state_changes(load_model(DATA / name), ids, 8)[-1]
    assert changes["slow-loop"] > 0.05 > 5 * changes["tiny-trained"]


def test_the_slow_loops_decays_are_near_one() -> None:
    model = load_model(DATA / "slow-loop")
    least, _, most = decay_range(model)
    assert (least, most) == (pytest.approx(LEAST_DECAY, abs=1e-6), pytest.approx(MOST_DECAY, abs=1e-6))
    assert torch.isfinite(model(torch.arange(64)[None], 16)).all()
