"""Names of what is kept between runs: digests of all that decides a result.

    key = cache_key(weights_sha256, recipe, "gptq", windows, seed=0, settings={})
    key = answer_key("compression gate", model_sha256, {"loops": [1, 8]}, ("export",))

The versions and the very sources of these packages are among it, so that a changed algorithm never meets an old result.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .apply import QuantizedModel
from .recipe import Recipe

PACKAGES = ("parcae_mobile", "quantize")  # whose sources decide tensors


def cache_key(
    weights_sha256: str,
    recipe: Recipe,
    algorithm: str,
    calibration: Tensor | None,
    seed: int,
    settings: Mapping[str, Any],
) -> str:
    """SHA-256 of all that decides quantized tensors; `settings` are the algorithm's own."""
    text = None if calibration is None else ids_sha256(calibration)
    decides = {
        "weights": weights_sha256,
        "recipe": [recipe.name, recipe.sha256],
        "algorithm": algorithm,
        "settings": dict(settings),
        "calibration": [text, None if calibration is None else list(calibration.shape)],
        "seed": seed,
    }
    return _key(decides, PACKAGES)


def answer_key(question: str, model_sha256: str, about: Mapping[str, Any], packages: tuple[str, ...]) -> str:
    """SHA-256 of all that decides an answer: the question, the model, what it is `about`, and the sources in `packages`
    beside those that decide tensors."""
    return _key({"question": question, "model": model_sha256, "about": dict(about)}, (*PACKAGES, *packages))


def ids_sha256(ids: Tensor) -> str:
    """Digest of token ids, whatever their integer type."""
    return hashlib.sha256(ids.contiguous().numpy().astype("<i8").tobytes()).hexdigest()


def tensors_sha256(quantized: QuantizedModel) -> str:
    """Digest of what quantization made: integers, scales, palettes, and floats that are not the model's own."""
    digest = hashlib.sha256(json.dumps(sorted(quantized.halves)).encode())
    parts = dict(quantized.floats)
    for name, tensor in quantized.stored.items():
        parts |= tensor.to_tensors(name)
    for name, part in sorted(parts.items()):
        digest.update(f"{name} {part.dtype} {tuple(part.shape)}\n".encode())
        digest.update(part.detach().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _key(decides: Mapping[str, Any], packages: tuple[str, ...]) -> str:
    """Digest of what is given, and of what decides every result."""
    everywhere = {
        "versions": {name: _version(name) for name in ("parcae-mobile", "torch", "numpy")},
        "processor": [torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()],
        "sources": _sources(packages),
    }
    return hashlib.sha256(json.dumps({**decides, **everywhere}, sort_keys=True).encode()).hexdigest()


@cache
def _sources(packages: tuple[str, ...]) -> str:
    """Digest of the code that computes."""
    digest = hashlib.sha256()
    for package in packages:
        for path in sorted(Path(str(resources.files(package))).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
