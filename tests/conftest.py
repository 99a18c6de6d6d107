"""What all tests share: one thread, the checkpoints of `tests/data`, and small checkpoints made to order."""

from __future__ import annotations

import atexit
import gc
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings
from safetensors.torch import save_file

from parcae_mobile import Parcae, ParcaeConfig
from parcae_mobile.random_weights import random_model

torch.set_num_threads(1)
logging.getLogger("torch.__trace").setLevel(logging.WARNING)  # thousands of lines for each trace
settings.register_profile(
    "suite",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("suite")

# No test reads or writes the user's cache of quantized tensors.
os.environ["PARCAE_CACHE"] = tempfile.mkdtemp(prefix="parcae-cache-")
atexit.register(shutil.rmtree, os.environ["PARCAE_CACHE"], ignore_errors=True)


def pytest_collection_finish() -> None:
    """What imports made lives as long as the tests: the garbage collector need not walk through it again and again."""
    gc.collect()
    gc.freeze()


DATA = Path(__file__).parent / "data"
GOLDEN = (  # by name: a folder that is gone is a test that fails, not one fewer
    "additive-injection",
    "diagonal-1-2-1",
    "diagonal-2-2-2",
    "diagonal-wide-state",
    "gated-gelu-layernorm-bias",
    "linear-injection",
    "qkbias-clip-rope10k",
    "takase-scales",
    "untied-softcap",
)

SMALL: dict[str, Any] = {
    "name": "small",
    "block_size": 96,
    "n_embd": 32,
    "intermediate_size": 48,
    "num_attention_heads": 2,
    "vocab_size": 60,
    "padding_multiple": 32,
    "norm_class_name": "RMSNorm",
    "nonlin_name": "ReLU2",
    "qk_norm": True,
    "init_strategy": "scaled-zero",
    "n_layers_in_prelude": 1,
    "n_layers_in_recurrent_block": 1,
    "n_layers_in_coda": 1,
    "recurrent_embedding_dimension": 32,
    "recurrent_intermediation_embedding_dimension": 48,
    "prelude_norm": True,
    "mean_recurrence": 4,
    "mean_backprop_depth": 2,
    "tie_embeddings": True,
}


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of the checkpoints that the original code wrote."""
    return DATA


@pytest.fixture(scope="session", params=GOLDEN)
def golden_folder(request: pytest.FixtureRequest) -> Path:
    """Each random reference checkpoint in turn."""
    return DATA / request.param


@pytest.fixture(scope="session")
def small() -> Callable[..., Parcae]:
    """A random model of one layer per stage: `small(n_embd=64, bias=True)`."""

    def make(seed: int = 0, **changes: Any) -> Parcae:
        return random_model(ParcaeConfig.from_dict({**SMALL, **changes}), seed)

    return make


@pytest.fixture(scope="session")
def small_values() -> dict[str, Any]:
    """The saved configuration of the small model."""
    return dict(SMALL)


@pytest.fixture(scope="session")
def save_small(small: Callable[..., Parcae]) -> Callable[..., Path]:
    """Write a small checkpoint into a folder: `save_small(folder, n_embd=64)`; returns the folder."""

    def save(folder: Path, **changes: Any) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps({**SMALL, **changes}), encoding="utf-8")
        model = small(**changes)
        save_file({name: tensor.clone() for name, tensor in model.named_parameters()}, folder / "model.safetensors")
        return folder

    return save
