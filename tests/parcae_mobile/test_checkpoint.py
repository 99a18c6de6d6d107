"""Checkpoints load strictly: what is damaged, missing, foreign or dangerous is refused by name."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from parcae_mobile import convert, load_model
from parcae_mobile.checkpoint import find, find_folder, read_checkpoint
from parcae_mobile.errors import (
    CheckpointError,
    ConfigError,
    MissingTensorError,
    OutputExistsError,
    ParcaeError,
    TensorShapeError,
    TensorValueError,
    UnexpectedTensorError,
    UnsafeCheckpointError,
)

IDS = torch.tensor([[3, 1, 4, 1, 5]])
WEIGHT = "transformer.coda.0.mlp.fc.weight"


@pytest.fixture
def folder(tmp_path: Path, save_small: Callable[..., Path]) -> Path:
    return save_small(tmp_path / "small")


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(folder / "model.safetensors")
    changed = change(tensors)
    save_file(changed if isinstance(changed, dict) else tensors, folder / "model.safetensors")


def as_pickle(folder: Path, content: Any = None, name: str = "pytorch_model.bin") -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors if content is None else content(tensors), folder / name)


def logits(folder: Path) -> torch.Tensor:
    with torch.no_grad():
        return load_model(folder)(IDS, 2)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder: .*nowhere"):
        load_model(tmp_path / "nowhere")


def test_a_file_instead_of_a_folder_is_refused(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="is a file; give the folder"):
        load_model(folder / "model.safetensors")


def test_a_folder_without_config_or_weights_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no weights in"):
        load_model(folder)
    with pytest.raises(ConfigError, match="no config.json"):
        load_model(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_truncated_or_altered_file_gives_one_clear_error(folder: Path, name: str) -> None:
    if name.endswith(".bin"):
        as_pickle(folder)
    content = (folder / name).read_bytes()
    cuts = [0, 1, 7, 8, 64, len(content) // 3, len(content) // 2, len(content) - 1]
    for cut in cuts:
        (folder / name).write_bytes(content[:cut])
        with pytest.raises(CheckpointError, match=name):
            load_model(folder)
    for at in range(0, min(len(content), 2048), 37):
        (folder / name).write_bytes(content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :])
        try:
            load_model(folder)
        except ParcaeError as error:
            assert error.exit_code == 3 and str(error)


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x80\x02.", b"\x80\x04N.", b"\x80\x02}q\x00.", b"PK\x03\x04"])
def test_garbage_instead_of_a_pickle_is_a_checkpoint_error(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(CheckpointError):
        load_model(folder)


def test_a_wrong_shape_is_named_with_both_shapes(folder: Path) -> None:
    rewrite(folder, lambda t: t.update({WEIGHT: torch.zeros(48, 31)}))
    with pytest.raises(TensorShapeError, match=rf"{WEIGHT} has shape \(48, 31\).*\(48, 32\)"):
        load_model(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_not_finite_is_named(folder: Path, value: float) -> None:
    rewrite(folder, lambda t: t[WEIGHT].__setitem__((3, 4), value))
    with pytest.raises(TensorValueError, match=f"{WEIGHT} holds NaN or infinite"):
        load_model(folder)


def test_integers_are_no_weights(folder: Path) -> None:
    rewrite(folder, lambda t: t.update({WEIGHT: torch.zeros(48, 32, dtype=torch.int32)}))
    with pytest.raises(TensorValueError, match="int32"):
        load_model(folder)


def test_missing_tensors_are_named_five_at_most(folder: Path) -> None:
    rewrite(folder, lambda t: t.pop(WEIGHT))
    with pytest.raises(MissingTensorError, match=WEIGHT):
        load_model(folder)
    rewrite(folder, lambda t: {"transformer.wte.weight": t["transformer.wte.weight"]})
    with pytest.raises(MissingTensorError, match=r"and \d+ more"):
        load_model(folder)


def test_an_unexpected_tensor_is_named(folder: Path) -> None:
    rewrite(folder, lambda t: t.update({"transformer.coda.1.norm_1.weight": torch.ones(32)}))
    with pytest.raises(UnexpectedTensorError, match="transformer.coda.1.norm_1.weight"):
        load_model(folder)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod.model."])
def test_known_prefixes_are_stripped(folder: Path, prefix: str) -> None:
    expected = logits(folder)
    rewrite(folder, lambda t: {prefix + name: tensor for name, tensor in t.items()})
    assert torch.equal(logits(folder), expected)


def test_a_tensor_that_is_there_twice_is_refused(folder: Path) -> None:
    rewrite(folder, lambda t: t.update({"module." + WEIGHT: t[WEIGHT].clone()}))
    with pytest.raises(UnexpectedTensorError, match=f"{WEIGHT} is there twice"):
        load_model(folder)


def test_a_tied_head_may_be_saved_but_must_agree(folder: Path) -> None:
    expected, table = logits(folder), "transformer.wte.weight"
    rewrite(folder, lambda t: t.update({"lm_head.weight": t[table].clone()}))
    assert torch.equal(logits(folder), expected)
    rewrite(folder, lambda t: {("lm_head.weight" if n == table else n): v for n, v in t.items() if n[:2] != "lm"})
    assert torch.equal(logits(folder), expected)
    rewrite(folder, lambda t: t.update({table: t["lm_head.weight"] + 1e-3}))
    with pytest.raises(TensorValueError, match="lm_head.weight differs"):
        load_model(folder)


def test_half_precision_weights_are_computed_in_fp32(folder: Path) -> None:
    rewrite(folder, lambda t: {name: tensor.to(torch.bfloat16) for name, tensor in t.items()})
    model = load_model(folder)
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert not any(parameter.requires_grad for parameter in model.parameters()) and not model.training


@pytest.mark.parametrize("key", [None, "model", "state_dict"])
@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
def test_a_pickle_of_tensors_loads_with_a_note(folder: Path, name: str, key: str | None) -> None:
    expected = logits(folder)
    as_pickle(folder, (lambda t: {key: t}) if key else None, name)
    assert torch.equal(logits(folder), expected)
    assert any("pickle" in note for note in read_checkpoint(folder).notes)


def test_safetensors_are_preferred_to_a_pickle(folder: Path) -> None:
    expected = logits(folder)
    (folder / "pytorch_model.bin").write_bytes(b"never read")
    assert torch.equal(logits(folder), expected)


class Payload:
    """What a hostile pickle would run."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.target}'",)


@pytest.mark.parametrize("plain", [True, False])
def test_code_in_a_pickle_is_refused_and_never_run(folder: Path, tmp_path: Path, plain: bool) -> None:
    trace = tmp_path / "it-ran"
    if plain:
        (folder / "model.safetensors").unlink()
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": Payload(trace)}, protocol=2))
    else:
        as_pickle(folder, lambda t: {**t, "extra": Payload(trace)})
    with pytest.raises(UnsafeCheckpointError, match="was not executed"):
        load_model(folder)
    assert not trace.exists()


@pytest.mark.parametrize("content", [[1, 2], {"a": 5}, {"model": {"a": "text"}}, 7])
def test_a_pickle_that_holds_no_state_dict_is_refused(folder: Path, content: Any) -> None:
    as_pickle(folder, lambda t: content)
    with pytest.raises(CheckpointError, match="state dict"):
        load_model(folder)


def split_in_two(folder: Path) -> dict[str, Any]:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {"part-1.safetensors": names[::2], "part-2.safetensors": names[1::2]}
    for file, held in parts.items():
        save_file({name: tensors[name] for name in held}, folder / file)
    return {"weight_map": {name: file for file, held in parts.items() for name in held}}


def test_several_files_need_an_index(folder: Path) -> None:
    expected = logits(folder)
    index = split_in_two(folder)
    with pytest.raises(CheckpointError, match="several safetensors files"):
        load_model(folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    assert torch.equal(logits(folder), expected)


@pytest.mark.parametrize(
    "index", ["{", "[]", "{}", '{"weight_map": 5}', '{"weight_map": {"a": 5}}', '{"weight_map": {"a": "../x"}}', "\xff"]
)
def test_a_broken_index_is_refused(folder: Path, index: str) -> None:
    (folder / "model.safetensors.index.json").write_bytes(index.encode("latin-1"))
    with pytest.raises(CheckpointError, match="index"):
        load_model(folder)


def test_an_index_that_names_a_missing_file_is_refused(folder: Path) -> None:
    index = split_in_two(folder)
    (folder / "part-2.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(CheckpointError, match="part-2.safetensors"):
        load_model(folder)


def test_convert_writes_the_same_model_as_safetensors(data: Path, tmp_path: Path) -> None:
    source, target = data / "takase-scales", tmp_path / "deep" / "safe"
    notes = convert(source, target)
    assert sorted(path.name for path in target.iterdir()) == ["config.json", "model.safetensors"]
    assert any("pickle" in note for note in notes)
    with torch.no_grad():
        assert torch.equal(load_model(target)(IDS, 3), load_model(source)(IDS, 3))
    assert not read_checkpoint(target).notes
    with pytest.raises(OutputExistsError):
        convert(source, target)


def test_convert_keeps_tokenizers_and_repeats_its_bytes(data: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        convert(data / "tiny-trained", tmp_path / name)
    assert (tmp_path / "one" / "tokenizer.json").exists()
    assert (tmp_path / "one" / "model.safetensors").read_bytes() == (
        tmp_path / "two" / "model.safetensors"
    ).read_bytes()


def test_convert_leaves_nothing_behind_for_a_bad_checkpoint(folder: Path, tmp_path: Path) -> None:
    rewrite(folder, lambda t: t[WEIGHT].fill_(float("nan")))
    with pytest.raises(TensorValueError):
        convert(folder, tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["small"]


def test_convert_says_when_it_cannot_write(folder: Path) -> None:
    with pytest.raises(ParcaeError, match="config.json"):
        convert(folder, folder / "config.json" / "new")


def test_a_hub_id_goes_through_the_hubs_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def snapshot(hub_id: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.update(hub_id=hub_id, revision=revision, patterns=allow_patterns)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    model = load_model("owner/name", revision="abc123")
    assert model.config.name == "small"
    assert (asked["hub_id"], asked["revision"]) == ("owner/name", "abc123")
    assert {"config.json", "*.safetensors", "pytorch_model.bin", "tokenizer.json"} <= set(asked["patterns"])
    assert not any(pattern.endswith(".py") for pattern in asked["patterns"])


def test_a_hub_that_cannot_be_reached_gives_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    def snapshot(*given: Any, **more: Any) -> str:
        raise LocalEntryNotFoundError("no connection\nand a long explanation")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    with pytest.raises(CheckpointError, match=r"owner/name: no such folder.*no connection") as caught:
        find_folder("owner/name")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["../up/there", "a/b/c", "/abs/olute", "", "owner/", "owner/na me", "no-such-folder"])
def test_what_is_neither_folder_nor_hub_id_never_reaches_the_hub(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find, "download", lambda *given: pytest.fail("asked the hub"))
    if name == "":
        assert find_folder(name) == Path()
        return
    with pytest.raises(CheckpointError, match="no such folder"):
        find_folder(name)
