"""Checkpoints of shapes and forms that the original can make and that are easily got wrong."""

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
from parcae_mobile.checkpoint import build_model, read_checkpoint
from parcae_mobile.checkpoint.build import rope_notes
from parcae_mobile.rope import is_rotation, make_exact, rope_table

SHAPES = Path(__file__).parents[1] / "data" / "shapes"
NAMES = sorted(folder.name for folder in SHAPES.iterdir())


@cache
def opened(name: str) -> tuple[Parcae, dict[str, torch.Tensor]]:
    with np.load(SHAPES / name / "golden.npz") as file:
        return load_model(SHAPES / name), {key: torch.from_numpy(file[key]) for key in file.files}


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=2e-5, rtol=1e-5)  # logits of up to 40


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_logits_equal_the_originals(name: str) -> None:
    model, golden = opened(name)
    for loops in golden["loops"].tolist():
        close(model(golden["input_ids"], loops, golden["initial_state"]), golden[f"logits_{loops}"])


@pytest.mark.parametrize("name", ["mqa-qkbias", "core-only", "tiny-context", "head12-norope"])
@torch.no_grad()
def test_decoding_token_by_token_equals_the_originals_full_forward(name: str) -> None:
    model, golden = opened(name)
    ids, state = golden["input_ids"], golden["initial_state"]
    kept = KVCache(model.config, 3, batch=len(ids))
    pieces = [model(ids[:, i : i + 1], 3, state[:, i : i + 1], kept) for i in range(ids.shape[1])]
    close(torch.cat(pieces, 1), golden["logits_3"])


def test_a_bias_on_keys_gives_each_query_head_keys_of_its_own() -> None:
    config = opened("mqa-qkbias")[0].config
    assert (config.kv_heads("prelude"), config.cached_heads("prelude"), config.heads("prelude")) == (1, 4, 4)
    assert KVCache(config, 1).keys["prelude"].shape[3] == 4


@pytest.mark.parametrize("name", NAMES)
def test_convert_writes_what_loads_as_the_same_model(name: str, tmp_path: Path) -> None:
    convert(SHAPES / name, tmp_path / "safe")
    before, after = load_model(SHAPES / name), load_model(tmp_path / "safe")
    assert all(torch.equal(tensor, after.state_dict()[key]) for key, tensor in before.state_dict().items())
    assert torch.equal(before.rope, after.rope)


def test_a_rounded_table_is_used_as_the_original_does_and_made_exact_for_export() -> None:
    model = load_model(SHAPES / "bf16-freqs")
    assert not is_rotation(model.rope)
    note = make_exact(model)
    assert note is not None and "16-bit rounding of the computed one" in note
    assert torch.equal(model.rope, rope_table(model.config)) and make_exact(model) is None


def test_a_table_that_is_no_rotation_and_no_known_rounding_gets_pairs_of_length_one() -> None:
    model = load_model(SHAPES / "rope-buffer-differs")
    exact = model.rope.clone()
    model.rope = exact.to(torch.float16).float()
    note = make_exact(model)
    assert note is not None and "length 1" in note and is_rotation(model.rope)
    torch.testing.assert_close(model.rope, exact, atol=1e-3, rtol=0)


def test_without_normalised_queries_any_table_stays_as_saved(tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    shutil.copytree(SHAPES / "bf16-freqs", folder)
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(values | {"qk_norm": False}), encoding="utf-8")
    model = load_model(folder)
    saved = model.rope.clone()
    assert make_exact(model) is None and torch.equal(model.rope, saved)


def noted(folder: Path, drop_table: bool = False, **changes: Any) -> str:
    checkpoint = read_checkpoint(folder)
    if drop_table:
        checkpoint.tensors.pop("freqs_cis", None)
    checkpoint.config = ParcaeConfig.from_dict(checkpoint.config.to_dict() | changes)
    build_model(checkpoint)
    return " ".join(rope_notes(checkpoint))


def test_where_the_originals_two_loaders_disagree_about_positions_a_note_says_what_is_used(data: Path) -> None:
    assert noted(SHAPES / "compiled-blocks") == ""
    assert noted(SHAPES / "bf16-freqs") == ""
    assert "another than config.json gives" in noted(SHAPES / "rope-buffer-differs")
    assert "from_pretrained would drop" in noted(SHAPES / "head12-norope")
    assert noted(data / "qkbias-clip-rope10k") == ""  # the saved table wins in both loaders
    assert "rope_base 10000" in noted(data / "qkbias-clip-rope10k", drop_table=True)


@pytest.mark.parametrize("value", ["pytorch", "cce", "full-triton", False, None, ""])
@pytest.mark.parametrize("attention", ["flash", "sdpa", "tridao", "debug-skip"])
def test_how_training_computed_loss_and_attention_does_not_matter(
    small_values: dict[str, Any], value: Any, attention: str
) -> None:
    config = ParcaeConfig.from_dict(small_values | {"use_fused_head": value, "attn_impl": attention})
    assert not config.transposed_head


def test_the_memory_saving_head_is_saved_transposed_where_it_is_untied(data: Path, tmp_path: Path) -> None:
    source, folder = data / "untied-softcap", tmp_path / "fused"
    shutil.copytree(source, folder)
    values = json.loads((source / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(values | {"use_fused_head": "full-triton"}), encoding="utf-8")
    saved = torch.load(source / "pytorch_model.bin")
    torch.save(saved | {"lm_head.weight": saved["lm_head.weight"].T.contiguous()}, folder / "pytorch_model.bin")
    assert torch.equal(load_model(folder).lm_head.weight, load_model(source).lm_head.weight)
