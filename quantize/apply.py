"""A recipe applied to a model: quantized tensors, and an eager model that computes with exactly their values.

quantized = quantize_model(model, load_recipe("int4"))
logits = quantized.model(input_ids, loops=8)           # fp32 arithmetic on dequantized weights, made when asked for
quantized.tensors["transformer.wte.weight"].integers   # what every target stores
quantized.palettes["..."].indices                      # what Core ML stores where the recipe asks for palettes
quantized.outline()                                    # for tracing: stand-ins in the place of quantized matrices

An fp32 model of the largest released shape takes 5.4 GB. So dequantized weights are not held while a target writes,
and once nothing reads the model that was quantized, `release` gives back the memory of its matrices.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from parcae_mobile.config import ParcaeConfig
from parcae_mobile.model import Parcae

from .palette import PaletteTensor, quantize_palette
from .recipe import Recipe, RecipeError, Rule, assign_rules, half_matrices
from .rtn import quantize_rtn
from .tensor import QuantizedTensor

Stored = QuantizedTensor | PaletteTensor
Quantizer = Callable[[str, Tensor, Rule, int], Stored]
Progress = Callable[[str, int, int], None]


@dataclass
class QuantizedModel:
    """Quantized tensors, and the `original` model, of which the parameters that were not quantized are read.

    `floats` are values of such parameters that are not the original's. `algorithms` says how each tensor was made;
    `fallbacks` why one was not made by the algorithm that was asked for; `halves` names the unquantized matrices whose
    values fp16 holds exactly. Matrices stored as palettes are in `palettes` and not in `tensors`, so that a target
    without palettes sees them as float ones. `eager` is the model that computes with them, where there is one now.
    """

    original: Parcae
    tensors: dict[str, QuantizedTensor]
    recipe: Recipe
    algorithm: str = "rtn"
    notes: list[str] = field(default_factory=list)
    fallbacks: dict[str, str] = field(default_factory=dict)
    algorithms: dict[str, str] = field(default_factory=dict)
    halves: frozenset[str] = frozenset()
    palettes: dict[str, PaletteTensor] = field(default_factory=dict)
    floats: Mapping[str, Tensor] = field(default_factory=dict)
    eager: Parcae | None = field(default=None, repr=False)

    @property
    def model(self) -> Parcae:
        """An eager model whose quantized parameters hold dequantized values; kept until `forget`."""
        if self.eager is None:
            self.eager = with_tensors(self.original, self.stored, self.floats)
        return self.eager

    @property
    def config(self) -> ParcaeConfig:
        """The eager model's configuration."""
        return (self.original if self.eager is None else self.eager).config

    def forget(self) -> None:
        """Let go of the eager model; it is made anew when it is asked for again."""
        self.eager = None

    def outline(self) -> Parcae:
        """The eager model with a stand-in for each matrix in `tensors`: of its shape, without memory, and all NaN."""
        base = with_tensors(self.original, self.palettes, self.floats) if self.eager is None else self.eager
        sizes = {name: parameter.shape for name, parameter in base.named_parameters() if name in self.tensors}
        return with_tensors(base, {}, {name: torch.full((), torch.nan).expand(size) for name, size in sizes.items()})

    @property
    def stored(self) -> dict[str, Stored]:
        """All quantized matrices."""
        return {**self.tensors, **self.palettes}


def quantize_model(
    model: Parcae,
    recipe: Recipe,
    quantizer: Quantizer | None = None,
    progress: Progress | None = None,
) -> QuantizedModel:
    """Quantize by the recipe; the given model is left alone, and unquantized tensors are shared with it.

    `quantizer(name, weight, rule, group_size)` makes one tensor (nearest values if not given);
    `progress(name, done, total)` is called after each. Raises `RecipeError` as `assign_rules` does.
    """
    chosen, halves = assign_rules(recipe, model), half_matrices(recipe, model)
    tensors: dict[str, QuantizedTensor] = {}
    palettes: dict[str, PaletteTensor] = {}
    parameters = dict(model.named_parameters())
    for number, (name, rule) in enumerate(chosen.items(), 1):
        weight = parameters[name]
        group_size = rule.groups_for(name, weight.shape[1])
        stored = (quantizer or nearest_values)(name, weight, rule, group_size)
        if isinstance(stored, PaletteTensor):
            palettes[name] = stored
        else:
            tensors[name] = stored
        if progress is not None:
            progress(name, number, len(chosen))
    floats = {name: in_half(name, parameters[name]) for name in halves}
    return QuantizedModel(model, tensors, recipe, halves=frozenset(halves), palettes=palettes, floats=floats)


def nearest_values(name: str, weight: Tensor, rule: Rule, group_size: int) -> Stored:
    """Round-to-nearest for any parameter: on a grid of scales, or to a palette's values."""
    if rule.palette_rows is not None:
        return quantize_palette(weight, rule.bits, rule.rows_for(name, weight.shape[0]))
    return rtn(name, weight, rule, group_size)


def rtn(name: str, weight: Tensor, rule: Rule, group_size: int) -> QuantizedTensor:
    """Round-to-nearest integers for any parameter."""
    return quantize_rtn(weight, rule.bits, group_size, rule.symmetric)


def in_half(name: str, weight: Tensor) -> Tensor:
    """fp32 values that fp16 holds exactly. Raises `RecipeError` for one beyond its range."""
    if float(weight.abs().max()) > torch.finfo(torch.float16).max:
        raise RecipeError(f"{name}: holds values beyond fp16's range; give it bits = 32 in the recipe")
    return weight.half().float()


def with_tensors(model: Parcae, tensors: Mapping[str, Stored], floats: Mapping[str, Tensor] | None = None) -> Parcae:
    """A model that shares every parameter with `model` except those in `tensors`, which hold dequantized values, and
    those in `floats`, which hold the given ones. Those of `model` may have been released."""
    parameters = dict(model.named_parameters())
    shared: dict[int, object] = {id(parameter): parameter for parameter in parameters.values()}
    for name, tensor in tensors.items():
        weight = tensor.dequantize().to(model.rope.device)
        shared[id(parameters[name])] = nn.Parameter(weight, requires_grad=False)
    for name, values in (floats or {}).items():
        shared[id(parameters[name])] = nn.Parameter(values, requires_grad=False)
    shared |= {id(buffer): buffer for buffer in model.buffers()}
    return copy.deepcopy(model, shared)


def release(model: Parcae, names: Iterable[str]) -> None:
    """Give back the memory of parameters that nobody reads any more: shapes stay, and computing with them raises."""
    parameters = dict(model.named_parameters())
    without = {id(parameters[name]): nn.Parameter(parameters[name].to("meta"), requires_grad=False) for name in names}
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, without.get(id(parameter), parameter))
