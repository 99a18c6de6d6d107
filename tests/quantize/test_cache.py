"""The cache of quantized tensors: what decides an entry, damage, room, places that cannot be written."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from parcae_mobile import Parcae
from quantize import QuantizedModel, load_recipe, quantize_with
from quantize.cache import ANSWER, FACTS, TENSORS, Cache
from quantize.cache_key import answer_key, cache_key, tensors_sha256

RECIPE = load_recipe("int4")
WINDOWS = torch.arange(40).view(2, 20) % 60


@pytest.fixture(scope="module")
def model(small: Callable[..., Parcae]) -> Parcae:
    return small()


@pytest.fixture(scope="module")
def quantized(model: Parcae) -> QuantizedModel:
    return quantize_with(model, RECIPE, "gptq", WINDOWS, max_fallbacks=99)


def key(**changes: Any) -> str:
    given: dict[str, Any] = {"weights_sha256": "w", "recipe": RECIPE, "algorithm": "gptq", "calibration": WINDOWS}
    return cache_key(**given | {"seed": 0, "settings": {}} | changes)


def test_an_entry_gives_the_same_tensors_model_and_notes(
    model: Parcae, quantized: QuantizedModel, tmp_path: Path
) -> None:
    cache = Cache(tmp_path)
    assert cache.load(key(), model, RECIPE) is None and cache.store(key(), quantized, model)
    found = cache.load(key(), model, RECIPE)
    assert found is not None and list(found.tensors) == list(quantized.tensors)
    for name, tensor in quantized.tensors.items():
        assert torch.equal(found.tensors[name].integers, tensor.integers)
        assert torch.equal(found.tensors[name].scales, tensor.scales)
    assert all(torch.equal(a, b) for a, b in zip(found.model.parameters(), quantized.model.parameters(), strict=True))
    for part in ("notes", "fallbacks", "algorithms", "algorithm", "halves"):
        assert getattr(found, part) == getattr(quantized, part)


@pytest.mark.parametrize(
    "change",
    [
        {"weights_sha256": "v"},
        {"recipe": load_recipe("int8")},
        {"recipe": replace(RECIPE, name="other")},
        {"algorithm": "hqq"},
        {"calibration": WINDOWS + 1},
        {"calibration": WINDOWS.view(4, 10)},
        {"calibration": None},
        {"seed": 1},
        {"settings": {"steps": 2}},
    ],
    ids=str,
)
def test_everything_that_decides_the_tensors_is_in_the_key(change: dict[str, Any]) -> None:
    assert len(key()) == 64 and key() == key() != key(**change)


def test_another_version_of_torch_or_of_the_sources_has_other_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key()
    monkeypatch.setattr("quantize.cache_key._version", lambda package: "0")
    assert key() != before
    monkeypatch.undo()
    monkeypatch.setattr("quantize.cache_key._sources", lambda packages: "other")
    assert key() != before


@pytest.mark.parametrize("damage", ["a byte", "cut off", "no facts", "other facts", "no file", "a pipe"])
def test_a_damaged_entry_is_removed_and_made_again(
    model: Parcae, quantized: QuantizedModel, tmp_path: Path, damage: str
) -> None:
    cache, place = Cache(tmp_path), tmp_path / key()
    assert cache.store(key(), quantized, model)
    data = bytearray((place / TENSORS).read_bytes())
    data[-1] ^= 1
    {
        "a byte": lambda: (place / TENSORS).write_bytes(data),
        "cut off": lambda: (place / TENSORS).write_bytes(data[:-9]),
        "no facts": (place / FACTS).unlink,
        "other facts": lambda: (place / FACTS).write_text("[]", encoding="utf-8"),
        "no file": (place / TENSORS).unlink,
        "a pipe": lambda: ((place / FACTS).unlink(), os.mkfifo(place / FACTS)),
    }[damage]()
    assert cache.load(key(), model, RECIPE) is None and not place.exists()
    assert cache.store(key(), quantized, model) and cache.load(key(), model, RECIPE) is not None


def test_an_answer_is_recalled_as_it_was_given(tmp_path: Path) -> None:
    cache, answer = Cache(tmp_path), {"kl": 0.1 + 0.2, "rows": {"8": [1, None, float("inf")]}}
    asked = answer_key("what does it cost", "model", {"loops": [1, 8]}, ())
    assert cache.recall(asked) is None and cache.remember(asked, answer, "int4", "what does it cost")
    assert cache.recall(asked) == answer
    (entry,) = cache.entries()
    assert (entry.recipe, entry.algorithm) == ("int4", "what does it cost") and entry.bytes > 0
    (tmp_path / asked / ANSWER).write_text("{}", encoding="utf-8")
    assert cache.recall(asked) is None and cache.entries() == []


def test_everything_that_decides_an_answer_is_in_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {"question": "q", "model_sha256": "m", "about": {"loops": 8}, "packages": ()}
    before = answer_key(**given)
    for change in ({"question": "p"}, {"model_sha256": "n"}, {"about": {"loops": 4}}, {"packages": ("export",)}):
        assert answer_key(**given | change) != before
    monkeypatch.setattr("torch.get_num_threads", lambda: 99)
    assert answer_key(**given) != before


def test_tensors_are_told_apart_by_their_values(quantized: QuantizedModel) -> None:
    before = tensors_sha256(quantized)
    name = next(iter(quantized.tensors))
    tensor = quantized.tensors[name]
    other = replace(tensor, scales=tensor.scales * 2)
    assert tensors_sha256(quantized) == before
    assert tensors_sha256(replace(quantized, tensors={**quantized.tensors, name: other})) != before
    assert tensors_sha256(replace(quantized, floats={"transformer.ln_f.weight": torch.ones(3)})) != before


def test_the_oldest_entries_make_room(model: Parcae, quantized: QuantizedModel, tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    for seed in range(3):
        assert cache.store(key(seed=seed), quantized, model)
        os.utime(tmp_path / key(seed=seed) / FACTS, (seed, seed))
    assert cache.load(key(seed=0), model, RECIPE) is not None  # used again, so no longer the oldest
    size = cache.entries()[0].bytes
    assert Cache(tmp_path, 3 * size).store(key(seed=3), quantized, model)
    assert {entry.key for entry in cache.entries()} == {key(seed=seed) for seed in (0, 2, 3)}
    assert not Cache(tmp_path, size - 1).store(key(seed=4), quantized, model) and len(cache.entries()) == 3
    (tmp_path / ".x.partial").mkdir()
    assert cache.clear() == 3 and list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_no_error(model: Parcae, quantized: QuantizedModel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    cache = Cache(tmp_path / "file" / "cache")
    assert not cache.store(key(), quantized, model)
    assert cache.load(key(), model, RECIPE) is None and cache.entries() == [] and cache.clear() == 0


def test_the_cache_lies_where_the_variable_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PARCAE_CACHE", str(tmp_path))
    assert Cache.default().folder == tmp_path
    monkeypatch.delenv("PARCAE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert "parcae-mobile" in str(Cache.default().folder)
