"""Quantized tensors in a file: what is written comes back, and what is not such a file is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from parcae_mobile import Parcae
from parcae_mobile.errors import CheckpointError, TensorShapeError, TensorValueError, UnexpectedTensorError
from quantize import load_recipe, quantize_with
from quantize.apply import QuantizedModel, with_tensors
from quantize.storage import load_quantized, save_quantized


@pytest.mark.parametrize("preset", ["fp16", "int8", "int4", "int4-palette", "int4-small"])
def test_a_model_comes_back_with_everything_that_is_known_of_it(
    small: Callable[..., Parcae], tmp_path: Path, preset: str
) -> None:
    model = small()
    quantized = quantize_with(model, load_recipe(preset), "rtn")
    quantized.fallbacks, quantized.notes = {"transformer.C.weight": "why"}, ["a note"]
    norms = {"transformer.ln_f.weight": torch.full((32,), 0.5)}
    quantized = replace(quantized, eager=with_tensors(quantized.model, {}, norms))
    save_quantized(quantized, tmp_path / "q.safetensors", model)
    again = load_quantized(model, tmp_path / "q.safetensors", quantized.recipe)
    for (name, one), (_, other) in zip(quantized.model.named_parameters(), again.model.named_parameters(), strict=True):
        assert torch.equal(one, other), name
    assert list(again.tensors) == list(quantized.tensors)
    for field in ("algorithm", "algorithms", "fallbacks", "notes", "halves"):
        assert getattr(again, field) == getattr(quantized, field)


def test_writing_twice_gives_the_same_bytes(small: Callable[..., Parcae], tmp_path: Path) -> None:
    quantized = quantize_with(small(), load_recipe("int4"), "rtn")
    save_quantized(quantized, tmp_path / "a")
    save_quantized(quantized, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def saved(small: Callable[..., Parcae], tmp_path: Path) -> tuple[QuantizedModel, Path]:
    quantized = quantize_with(small(), load_recipe("int8"), "rtn")
    save_quantized(quantized, tmp_path / "q")
    return quantized, tmp_path / "q"


def test_a_file_for_another_model_is_refused(small: Callable[..., Parcae], tmp_path: Path) -> None:
    quantized, path = saved(small, tmp_path)
    with pytest.raises(TensorShapeError, match=r"weight has shape \(\d+, 32\), the model's is \(\d+, 64\)"):
        load_quantized(small(n_embd=64, recurrent_embedding_dimension=64), path, quantized.recipe)
    deep = quantize_with(small(n_layers_in_coda=2), quantized.recipe, "rtn")
    save_quantized(deep, path)
    with pytest.raises(UnexpectedTensorError, match="the model has no transformer.coda.1"):
        load_quantized(small(), path, quantized.recipe)


def test_other_files_are_refused(small: Callable[..., Parcae], tmp_path: Path) -> None:
    recipe = load_recipe("int8")
    (tmp_path / "text").write_text("no tensors")
    save_file({"a": torch.ones(1)}, tmp_path / "plain")
    for name in ("text", "plain", "missing"):
        with pytest.raises(CheckpointError, match=f"{name}: not (a file of quantized tensors|a readable|readable)"):
            load_quantized(small(), tmp_path / name, recipe)


def test_a_part_that_was_cut_out_is_missed(small: Callable[..., Parcae], tmp_path: Path) -> None:
    quantized, path = saved(small, tmp_path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    parts = load_file(path)
    del parts["transformer.C.weight.scales"]
    save_file(parts, path, metadata)
    with pytest.raises(TensorValueError, match="transformer.C.weight: incomplete"):
        load_quantized(small(), path, quantized.recipe)
