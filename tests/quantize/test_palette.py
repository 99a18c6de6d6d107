"""Palettes: values that are free, rows that share them, and what a recipe with them means."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from parcae_mobile import Parcae
from parcae_mobile.errors import TensorValueError
from quantize import load_recipe, quantize_model, quantize_with
from quantize.hessians import collect_hessians
from quantize.learning_run import Learning
from quantize.palette import PaletteTensor, palette_bytes, quantize_palette
from quantize.palette_gptq import quantize_palette_gptq
from quantize.recipe import RecipeError, parse_recipe
from quantize.rtn import quantize_rtn


def gaussian(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


@given(st.integers(1, 6), st.integers(1, 40), st.sampled_from([1, 2, 3]), st.integers(0, 99))
def test_each_weight_becomes_the_nearest_value_of_its_own_palette(
    palettes: int, columns: int, each: int, seed: int
) -> None:
    weight = gaussian(palettes * each, columns, seed)
    tensor = quantize_palette(weight, 4, each)
    assert tensor.values.shape == (palettes, 16) and tensor.rows_per_palette == each and tensor.shape == weight.shape
    values = tensor.values.repeat_interleave(each, 0)[:, None]  # (rows, 1, 16)
    best = (weight[..., None] - values).abs().amin(-1)
    assert torch.equal((weight - tensor.dequantize()).abs(), best)
    assert tensor.nbytes == palette_bytes(*weight.shape, 4, each) == (weight.numel() * 4 + 7) // 8 + palettes * 32


def test_sixteen_distinct_values_are_kept() -> None:
    values = torch.linspace(-3, 5, 16).half().float()
    weight = values[torch.randint(0, 16, (32, 40), generator=torch.Generator().manual_seed(1))]
    assert torch.equal(quantize_palette(weight, 4, 32).dequantize(), weight)


def test_free_values_fit_a_bell_better_than_equal_steps() -> None:
    """Max 1960, "Quantizing for minimum distortion": 16 levels on a normal variable give an error of 0.0095."""
    weight = gaussian(64, 1024)
    error = float((quantize_palette(weight, 4, 64).dequantize() - weight).square().mean())
    assert error == pytest.approx(0.0095, rel=0.03)
    assert error < 0.85 * float((quantize_rtn(weight, 4, 1024).dequantize() - weight).square().mean())


def test_important_columns_are_fitted_more_closely() -> None:
    weight, importance = gaussian(16, 64), torch.ones(64)
    weight[:, :4] *= 0.1
    importance[:4] = 1000
    plain, weighted = (quantize_palette(weight, 4, 16, given).dequantize() - weight for given in (None, importance))
    assert weighted[:, :4].square().mean() < 0.5 * plain[:, :4].square().mean()


def test_gptq_lowers_the_error_of_the_products() -> None:
    weight, mix = gaussian(32, 48), gaussian(48, 48, 2)
    inputs = gaussian(4000, 48, 3) @ mix
    hessian = inputs.T @ inputs
    errors = [
        float(((tensor.dequantize() - weight) @ inputs.T).square().mean())
        for tensor in (quantize_palette(weight, 4, 16), quantize_palette_gptq(weight, hessian, 4, 16))
    ]
    assert errors[1] < 0.6 * errors[0], errors


@pytest.mark.parametrize(
    ("indices", "values", "message"),
    [
        (torch.zeros(6, 2, dtype=torch.uint8), torch.zeros(4, 16), "4 palettes do not divide 6 rows"),
        (torch.zeros(4, 2, dtype=torch.uint8), torch.zeros(4, 5), "2, 4, 8 or 16 values"),
        (torch.full((4, 2), 16, dtype=torch.uint8), torch.zeros(4, 16), "index 16 into a palette of 16"),
        (torch.zeros(4, 2, dtype=torch.uint8), torch.full((4, 16), 0.1), "exact in fp16"),
        (torch.zeros(4, 2, dtype=torch.uint8), torch.full((4, 16), torch.inf), "finite"),
    ],
)
def test_parts_that_contradict_each_other_are_refused(
    indices: torch.Tensor, values: torch.Tensor, message: str
) -> None:
    with pytest.raises(TensorValueError, match=message):
        PaletteTensor(indices, values)


def test_parts_come_back_from_their_names() -> None:
    tensor = quantize_palette(gaussian(8, 4), 4, 2)
    again = PaletteTensor.from_tensors("w", tensor.to_tensors("w"))
    assert torch.equal(again.indices, tensor.indices) and torch.equal(again.values, tensor.values)
    with pytest.raises(TensorValueError, match="w: incomplete palette"):
        PaletteTensor.from_tensors("w", {})


def test_the_preset_has_palettes_where_int4_has_four_bits(small: Callable[..., Parcae]) -> None:
    model = small()
    palette, linear = (quantize_model(model, load_recipe(name)) for name in ("int4-palette", "int4"))
    assert set(palette.palettes) == {name for name, tensor in linear.tensors.items() if tensor.bits == 4}
    assert set(palette.tensors) == {name for name, tensor in linear.tensors.items() if tensor.bits == 8}
    parameters = dict(palette.model.named_parameters())
    for name, tensor in palette.palettes.items():
        assert torch.equal(parameters[name], tensor.dequantize())


def test_gptq_makes_the_palettes_of_what_multiplies_and_learning_leaves_them(small: Callable[..., Parcae]) -> None:
    model = small()
    windows = torch.randint(0, 60, (32, 24), generator=torch.Generator().manual_seed(1))
    recipe = load_recipe("int4-palette")
    made = quantize_with(model, recipe, "gptq", windows)
    assert {made.algorithms[name] for name in made.palettes if "value_embeds" not in name} == {"gptq"}
    hessians = collect_hessians(model, windows, made.palettes)
    name = "transformer.core_block.0.mlp.fc.weight"
    alone = quantize_palette_gptq(dict(model.named_parameters())[name], hessians[name], 4, 16)
    assert torch.equal(made.palettes[name].indices, alone.indices)
    learned = quantize_with(model, recipe, "learned", windows, learning=Learning(steps=1))
    weights = dict(learned.model.named_parameters())
    assert all(torch.equal(weights[key], tensor.dequantize()) for key, tensor in learned.palettes.items())


def test_rows_that_a_palette_does_not_divide_are_named(small: Callable[..., Parcae]) -> None:
    rule = '[[rules]]\nmatch = "transformer.C.weight"\nbits = 4\npalette_rows = 5\n'
    recipe = parse_recipe("budget = { kl = 1.0, top1 = 0.0 }\n" + rule, "mine")
    with pytest.raises(RecipeError, match="transformer.C.weight: 5 rows to a palette do not divide its 32 rows"):
        quantize_model(small(), recipe)
