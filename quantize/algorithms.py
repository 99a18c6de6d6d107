"""The algorithms by name.

    quantized = quantize_with(model, recipe, "auto", calibration=windows)
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from parcae_mobile.errors import UsageError
from parcae_mobile.model import Parcae

from .apply import QuantizedModel, quantize_model
from .recipe import Recipe

ALGORITHMS = ("auto", "rtn")
Progress = Callable[[str, int, int], None]


def quantize_with(
    model: Parcae,
    recipe: Recipe,
    algorithm: str = "auto",
    calibration: Tensor | None = None,
    max_fallbacks: int = 0,
    progress: Progress | None = None,
    seed: int = 0,
) -> QuantizedModel:
    """Quantize `model` by `recipe` with a named algorithm. Raises `UsageError` for an unknown one."""
    if algorithm not in ALGORITHMS:
        raise UsageError(f"--algorithm {algorithm}: choose one of {', '.join(ALGORITHMS)}")
    return quantize_model(model, recipe, None, progress)
