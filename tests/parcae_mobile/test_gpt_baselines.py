"""The original's plain GPT baselines load by the same code and compute what the original computes."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from parcae_mobile import KVCache, Parcae, ParcaeConfig, convert, load_model
from parcae_mobile.checkpoint import read_checkpoint
from parcae_mobile.errors import ConfigError, MissingTensorError, TensorShapeError, UsageError

GPT = Path(__file__).parents[1] / "data" / "gpt"
NAMES = sorted(folder.name for folder in GPT.iterdir())


@cache
def opened(name: str) -> tuple[Parcae, torch.Tensor, torch.Tensor]:
    with np.load(GPT / name / "golden.npz") as file:
        return load_model(GPT / name), torch.from_numpy(file["input_ids"]), torch.from_numpy(file["logits"])


def copied(name: str, folder: Path, **changes: Any) -> Path:
    shutil.copytree(GPT / name, folder)
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(values | changes), encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_logits_equal_the_originals(name: str) -> None:
    model, ids, expected = opened(name)
    torch.testing.assert_close(model(ids, 1), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_cached_decoding_equals_the_originals_full_forward(name: str) -> None:
    model, ids, expected = opened(name)
    kept = KVCache(model.config, 1, batch=len(ids))
    pieces = [model(ids[:, :30], 1, cache=kept), *(model(ids[:, i : i + 1], 1, cache=kept) for i in range(30, 40))]
    torch.testing.assert_close(torch.cat(pieces, 1), expected, atol=1e-5, rtol=1e-5)


def test_nothing_is_computed_that_a_gpt_does_not_have() -> None:
    for name, layers in (("tied", 4), ("untied-softcap", 3), ("gqa-clip", 2)):
        model, _, _ = opened(name)
        named = dict(model.named_parameters())
        assert model.config.plain and model.config.layers(loops=1) == layers
        assert not any("adapter" in key or key.startswith("transformer.C") for key in named)
        saved = torch.load(next(GPT / name / f for f in ("pytorch_model.bin", "model.pt") if (GPT / name / f).exists()))
        unread = {"freqs_cis"} | ({"lm_head.weight"} if model.config.tie_embeddings else set())
        count = sum(tensor.numel() for key, tensor in saved.items() if key not in unread)
        assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_an_unread_head_of_a_tied_gpt_may_say_anything(tmp_path: Path) -> None:
    folder = copied("tied", tmp_path / "gpt")
    saved = torch.load(folder / "pytorch_model.bin")
    expected = load_model(folder).state_dict()
    saved["lm_head.weight"] = torch.randn_like(saved["lm_head.weight"])
    torch.save(saved, folder / "pytorch_model.bin")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in load_model(folder).state_dict().items())


@pytest.mark.parametrize("class_name", ["GPTConfig", None])
def test_a_configuration_is_a_gpts_by_its_class_or_by_its_layers(tmp_path: Path, class_name: str | None) -> None:
    values = json.loads((GPT / "tied" / "config.json").read_text(encoding="utf-8"))
    values.pop("_class_name")
    config = ParcaeConfig.from_dict(values | ({"_class_name": class_name} if class_name else {}))
    assert config.plain and ParcaeConfig.from_dict(config.to_dict()) == config
    assert config.to_dict()["n_layer"] == 4 and "n_layers_in_prelude" not in config.to_dict()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n_layer": 0}, "n_layer = 0"),
        ({"n_layer": "4"}, "n_layer = '4'"),
        ({"n_embd": None}, "n_embd = None"),
        ({"num_key_value_heads": 3}, "multiple"),
        ({"nonlin_name": "Mish"}, "nonlin_name"),
    ],
)
def test_wrong_sizes_are_refused_by_the_originals_names(changes: dict[str, Any], words: str) -> None:
    values = json.loads((GPT / "tied" / "config.json").read_text(encoding="utf-8"))
    with pytest.raises(ConfigError, match=words):
        ParcaeConfig.from_dict(values | changes)


def test_more_or_fewer_layers_than_the_file_has_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingTensorError):
        load_model(copied("tied", tmp_path / "more", n_layer=6))
    with pytest.raises(TensorShapeError, match=r"lm_head.weight has shape \(64, 320\)"):
        load_model(copied("untied-softcap", tmp_path / "wider", padded_vocab_size=384))


@pytest.mark.parametrize("name", NAMES)
def test_convert_keeps_a_gpt_what_it_was(name: str, tmp_path: Path) -> None:
    convert(GPT / name, tmp_path / "safe")
    before, after = load_model(GPT / name).state_dict(), load_model(tmp_path / "safe").state_dict()
    assert all(torch.equal(tensor, after[key]) for key, tensor in before.items())
    assert "transformer.h.0.norm_1.weight" in read_checkpoint(tmp_path / "safe").tensors


def test_a_model_without_a_loop_runs_once() -> None:
    model, ids, _ = opened("tied")
    with pytest.raises(UsageError, match="gpt-tied has no loop; give 1"):
        model(ids, 2)
    assert model.config.judged_loops == (1,)
