"""A quantized model holds its dequantized weights only while somebody computes with them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from parcae_mobile import Parcae
from quantize import load_recipe, quantize_model
from quantize.apply import release

IDS = torch.tensor([[1, 7, 3, 2]])
TABLE, NORM = "transformer.wte.weight", "transformer.ln_f.weight"


def test_dequantized_weights_are_made_when_asked_for_and_can_be_forgotten(small: Callable[..., Parcae]) -> None:
    quantized = quantize_model(small(), load_recipe("int4"))
    assert quantized.eager is None
    logits = quantized.model(IDS, loops=2)
    assert quantized.model is quantized.eager
    torch.testing.assert_close(quantized.model.get_parameter(TABLE).data, quantized.tensors[TABLE].dequantize())
    quantized.forget()
    assert quantized.eager is None and torch.equal(quantized.model(IDS, loops=2), logits)


def test_the_outline_has_the_shapes_of_quantized_matrices_and_none_of_their_bytes(small: Callable[..., Parcae]) -> None:
    model = small()
    quantized = quantize_model(model, load_recipe("int4"))
    outline = dict(quantized.outline().named_parameters())
    for name, parameter in model.named_parameters():
        assert outline[name].shape == parameter.shape
        if name in quantized.tensors:
            assert outline[name].untyped_storage().nbytes() == 4 and outline[name].isnan().all()
        else:
            assert outline[name] is parameter
    assert quantized.eager is None


def test_the_outline_shows_other_float_values(small: Callable[..., Parcae]) -> None:
    quantized = quantize_model(small(), load_recipe("fp16"))
    assert quantized.floats and not quantized.tensors
    for name, values in quantized.floats.items():
        assert torch.equal(quantized.outline().get_parameter(name), values)
        assert torch.equal(quantized.model.get_parameter(name), values)


def test_a_released_model_keeps_its_shapes_and_computes_no_more(small: Callable[..., Parcae]) -> None:
    model = small(tie_embeddings=True)
    quantized = quantize_model(model, load_recipe("int4"))
    logits = quantized.model(IDS, loops=2)
    quantized.forget()
    sizes = {name: parameter.shape for name, parameter in model.named_parameters()}
    release(model, quantized.tensors)
    assert {name: parameter.shape for name, parameter in model.named_parameters()} == sizes
    assert model.get_parameter(TABLE).is_meta and not model.get_parameter(NORM).is_meta
    assert model.lm_head.weight is model.transformer["wte"].weight
    with pytest.raises((RuntimeError, NotImplementedError)):
        model(IDS, loops=2)
    assert torch.equal(quantized.model(IDS, loops=2), logits)
