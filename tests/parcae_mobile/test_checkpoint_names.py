"""Names, shards and shared memory: each tensor is read from where it belongs, whatever wrapped it or lies beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from parcae_mobile import convert, load_model
from parcae_mobile.errors import CheckpointError, ConfigError, MissingTensorError, OutputExistsError

QUERY = "transformer.core_block.0.attn.c_q.weight"


@pytest.fixture
def folder(tmp_path: Path, save_small: Callable[..., Path]) -> Path:
    return save_small(tmp_path / "small")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(folder: Path, expected: dict[str, torch.Tensor]) -> bool:
    found = load_model(folder).state_dict()
    return all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def inside_blocks(marker: str) -> Callable[[str], str]:
    return lambda name: re.sub(r"((?:prelude|core_block|coda)\.\d+\.)", rf"\1{marker}.", name)


@pytest.mark.parametrize(
    "rename",
    [
        inside_blocks("_orig_mod"),
        inside_blocks("_checkpoint_wrapped_module"),
        inside_blocks("_fsdp_wrapped_module._checkpoint_wrapped_module"),
        inside_blocks("module"),
        lambda name: "_forward_module." + name,
        lambda name: "_fsdp_wrapped_module." + inside_blocks("_orig_mod")(name),
        lambda name: "model._orig_mod.module." + name,
        lambda name: name.replace("attn.", "attn._orig_mod."),
    ],
)
def test_wrappers_markers_are_dropped_wherever_they_stand(folder: Path, rename: Callable[[str], str]) -> None:
    tensors = weights(folder)
    save_file({rename(name): tensor for name, tensor in tensors.items()}, folder / "model.safetensors")
    assert same(folder, tensors)


def in_two(folder: Path, pickled: bool, stale: bool) -> dict[str, torch.Tensor]:
    """Two shards with an index; the second also holds a wrong copy of a tensor of the first."""
    tensors = weights(folder)
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    stem, suffix = ("pytorch_model", "bin") if pickled else ("model", "safetensors")
    files = [f"{stem}-0000{number}-of-00002.{suffix}" for number in (1, 2)]
    places = {name: files[index >= len(names) // 2] for index, name in enumerate(names)}
    places[QUERY] = files[0]
    parts = [{name: tensors[name] for name in names if places[name] == file} for file in files]
    if stale:
        parts[1][QUERY] = tensors[QUERY] * 3
    for file, part in zip(files, parts, strict=True):
        (torch.save if pickled else save_file)(part, folder / file)
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps({"weight_map": places}), encoding="utf-8")
    return tensors


@pytest.mark.parametrize("pickled", [True, False])
def test_each_tensor_comes_from_the_shard_that_the_index_names(folder: Path, pickled: bool) -> None:
    expected = in_two(folder, pickled, stale=True)
    assert same(folder, expected)


@pytest.mark.parametrize("pickled", [True, False])
def test_an_index_that_is_wrong_or_missing_is_named(folder: Path, pickled: bool) -> None:
    in_two(folder, pickled, stale=False)
    index = next(folder.glob("*.index.json"))
    values = json.loads(index.read_text(encoding="utf-8"))
    other = next(file for file in values["weight_map"].values() if file != values["weight_map"][QUERY])
    values["weight_map"][QUERY] = other
    index.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(MissingTensorError, match=f"{other} holds {QUERY}, and it does not"):
        load_model(folder)
    index.unlink()
    with pytest.raises(CheckpointError, match=r"index"):
        load_model(folder)


def test_a_configuration_with_a_byte_order_mark_is_read_and_a_number_too_long_is_named(folder: Path) -> None:
    path = folder / "config.json"
    text = path.read_text(encoding="utf-8")
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert load_model(folder).config.n_embd == 32
    path.write_text(text.replace('"n_embd": 32', f'"n_embd": {"9" * 5000}'), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"config.json: not readable as JSON \(Exceeds the limit"):
        load_model(folder)


def test_convert_takes_tensors_that_share_memory(folder: Path, tmp_path: Path) -> None:
    tensors = weights(folder)
    (folder / "model.safetensors").unlink()
    first, second = "transformer.prelude.0.norm_1.weight", "transformer.prelude.0.norm_2.weight"
    tensors[second] = tensors[first]
    both = torch.cat([tensors["transformer.coda.0.norm_1.weight"], tensors["transformer.coda.0.norm_2.weight"]])
    tensors["transformer.coda.0.norm_1.weight"], tensors["transformer.coda.0.norm_2.weight"] = both.chunk(2)
    torch.save(tensors, folder / "model.pt")
    convert(folder, tmp_path / "safe")
    assert same(tmp_path / "safe", tensors)


def test_convert_leaves_folders_alone_that_it_did_not_make(folder: Path, tmp_path: Path) -> None:
    kept = [tmp_path / "mine.partial" / "notes.txt", tmp_path / "taken" / "notes.txt"]
    for path in kept:
        path.parent.mkdir()
        path.write_text("not yours", encoding="utf-8")
    convert(folder, tmp_path / "mine")
    with pytest.raises(OutputExistsError):
        convert(folder, tmp_path / "taken")
    assert all(path.read_text(encoding="utf-8") == "not yours" for path in kept)
    assert {path.name for path in tmp_path.iterdir()} == {"small", "mine", "mine.partial", "taken"}


def test_convert_copies_what_belongs_to_the_tokenizer_and_names_the_rest(folder: Path, tmp_path: Path) -> None:
    texts = ("chat_template.jinja", "generation_config.json", "special_tokens_map.json")
    for name in (*texts, "README.md", "optimizer.pt", "notes.txt"):
        (folder / name).write_text("{}", encoding="utf-8")
    notes = convert(folder, tmp_path / "safe")
    assert {path.name for path in (tmp_path / "safe").iterdir()} == {*texts, "config.json", "model.safetensors"}
    assert "not copied: README.md, notes.txt" in notes


def test_convert_says_nothing_before_it_has_read_back_what_it_wrote(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from parcae_mobile.checkpoint import conversion

    def damaged(tensors: dict[str, torch.Tensor], *given: Any, **more: Any) -> None:
        save_file({name: tensor + (name == QUERY) for name, tensor in tensors.items()}, *given, **more)

    monkeypatch.setattr(conversion, "save_file", damaged)
    with pytest.raises(CheckpointError, match=f"{QUERY} did not survive"):
        convert(folder, tmp_path / "safe")
    assert [path.name for path in tmp_path.iterdir()] == ["small"]


def test_a_folder_written_by_convert_has_the_permissions_of_any_new_folder(folder: Path, tmp_path: Path) -> None:
    convert(folder, tmp_path / "safe")
    (tmp_path / "ordinary").mkdir()
    assert (tmp_path / "safe").stat().st_mode == (tmp_path / "ordinary").stat().st_mode
