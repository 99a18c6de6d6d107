"""A small model whose matrices all divide into groups of 32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from parcae_mobile import Parcae, ParcaeConfig
from parcae_mobile.random_weights import random_model


@pytest.fixture(scope="session")
def small(small_values: dict[str, Any]) -> Callable[..., Parcae]:
    """As the suite's `small`, with MLPs of 64."""
    wide = {"intermediate_size": 64, "recurrent_intermediation_embedding_dimension": 64}

    def make(seed: int = 0, **changes: Any) -> Parcae:
        return random_model(ParcaeConfig.from_dict({**small_values, **wide, **changes}), seed)

    return make
