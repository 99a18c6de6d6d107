"""The number of threads where none is asked for."""

from __future__ import annotations

import pytest
import torch

from export.source import torch_threads
from parcae_mobile.config import RELEASED_SHAPES, ParcaeConfig, released_config
from parcae_mobile.text import EMBEDDED_MODEL
from parcae_mobile.threads import default_threads


def test_a_narrow_model_takes_one_thread_and_the_released_ones_all() -> None:
    assert default_threads(ParcaeConfig.from_file(EMBEDDED_MODEL / "config.json").recurrent_embedding_dimension) == 1
    assert {default_threads(released_config(name).recurrent_embedding_dimension) for name in RELEASED_SHAPES} == {0}


@pytest.mark.parametrize(("name", "asked", "used"), [("tiny", 0, 1), ("tiny", 3, 3), ("wide", 0, 5), ("wide", 1, 1)])
def test_torch_has_them_while_it_computes_and_its_own_afterwards(name: str, asked: int, used: int) -> None:
    config = (
        ParcaeConfig.from_file(EMBEDDED_MODEL / "config.json") if name == "tiny" else released_config("parcae-140m")
    )
    before = torch.get_num_threads()
    torch.set_num_threads(5)
    try:
        with torch_threads(asked, config):
            assert torch.get_num_threads() == used
        assert torch.get_num_threads() == 5
    finally:
        torch.set_num_threads(before)
