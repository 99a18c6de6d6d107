"""Quantization that knows about loops: one set of integers, made before any target, with the injection left alone."""

from .algorithms import quantize_with
from .apply import QuantizedModel, quantize_model
from .recipe import Recipe, load_recipe
from .tensor import QuantizedTensor

__all__ = ["QuantizedModel", "QuantizedTensor", "Recipe", "load_recipe", "quantize_model", "quantize_with"]
