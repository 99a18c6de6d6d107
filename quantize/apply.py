"""A recipe applied to a model: quantized tensors, and an eager model that computes with exactly their values.

    quantized = quantize_model(model, load_recipe("int4"))
    logits = quantized.model(input_ids, loops=8)           # fp32 arithmetic on dequantized weights
    quantized.tensors["transformer.wte.weight"].integers   # what every target stores
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor, nn

from parcae_mobile.model import Parcae

from .recipe import Recipe, Rule, plan
from .rtn import quantize_rtn
from .tensor import QuantizedTensor

Quantizer = Callable[[str, Tensor, Rule, int], QuantizedTensor]
Progress = Callable[[str, int, int], None]


@dataclass
class QuantizedModel:
    """An eager model whose quantized parameters hold dequantized values, and the tensors that they come from.

    `algorithms` says how each tensor was made; `fallbacks` why one was not made by the algorithm that was asked for.
    """

    model: Parcae
    tensors: dict[str, QuantizedTensor]
    recipe: Recipe
    algorithm: str = "rtn"
    notes: list[str] = field(default_factory=list)
    fallbacks: dict[str, str] = field(default_factory=dict)
    algorithms: dict[str, str] = field(default_factory=dict)


def quantize_model(
    model: Parcae,
    recipe: Recipe,
    quantizer: Quantizer | None = None,
    progress: Progress | None = None,
) -> QuantizedModel:
    """Quantize by the recipe; the given model is left alone, and unquantized tensors are shared with it.

    `quantizer(name, weight, rule, group_size)` makes one tensor (round-to-nearest if not given);
    `progress(name, done, total)` is called after each. Raises `RecipeError` as `plan` does.
    """
    chosen = plan(recipe, model)
    tensors: dict[str, QuantizedTensor] = {}
    parameters = dict(model.named_parameters())
    for number, (name, rule) in enumerate(chosen.items(), 1):
        weight = parameters[name]
        group_size = rule.groups_for(name, weight.shape[1])
        tensors[name] = (quantizer or rtn)(name, weight, rule, group_size)
        if progress is not None:
            progress(name, number, len(chosen))
    return QuantizedModel(with_tensors(model, tensors), tensors, recipe)


def rtn(name: str, weight: Tensor, rule: Rule, group_size: int) -> QuantizedTensor:
    """Round-to-nearest for any parameter."""
    return quantize_rtn(weight, rule.bits, group_size, rule.symmetric)


def with_tensors(model: Parcae, tensors: dict[str, QuantizedTensor]) -> Parcae:
    """A model that shares every parameter with `model` except those in `tensors`, which hold dequantized values."""
    replaced = {id(dict(model.named_parameters())[name]): tensor for name, tensor in tensors.items()}
    shared: dict[int, object] = {}
    for parameter in model.parameters():
        tensor = replaced.get(id(parameter))
        shared[id(parameter)] = (
            parameter if tensor is None else nn.Parameter(tensor.dequantize().to(parameter.device), requires_grad=False)
        )
    shared |= {id(buffer): buffer for buffer in model.buffers()}
    return copy.deepcopy(model, shared)
