"""A tokenizer is the model's own, the one that is asked for, or the one that the model is known to use; and it fits."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from parcae_mobile import ParcaeConfig, tokenizer_source
from parcae_mobile.errors import CheckpointError, TextError
from parcae_mobile.tokenizer import TextTokenizer
from parcae_mobile.tokenizer_source import MISSING, find_tokenizer, fitted_vocabulary

PROMPT = "import os\nimport sys\n\n\ndef main(argv"


@pytest.fixture
def folder(data: Path, tmp_path: Path) -> Path:
    """A folder with the tokenizer of 2048 entries."""
    (tmp_path / "tokenizer").mkdir()
    shutil.copyfile(data / "tiny-trained" / "tokenizer.json", tmp_path / "tokenizer" / "tokenizer.json")
    return tmp_path / "tokenizer"


@pytest.fixture
def config(small_values: dict[str, Any]) -> Callable[..., ParcaeConfig]:
    return lambda **changes: ParcaeConfig.from_dict(small_values | {"vocab_size": 2048} | changes)


def loaded(place: Path) -> TextTokenizer:
    tokenizer = TextTokenizer.load(place)
    assert tokenizer is not None
    return tokenizer


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / "tokenizer.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    change(values)
    path.write_text(json.dumps(values), encoding="utf-8")


def add_token(folder: Path, index: int, content: str) -> None:
    token = {"id": index, "content": content, "special": True}
    token |= dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    edit(folder, lambda values: values["added_tokens"].append(token))


PADDING = {
    "strategy": {"Fixed": 64},
    "direction": "Right",
    "pad_to_multiple_of": None,
    "pad_id": 0,
    "pad_type_id": 0,
    "pad_token": "<|bos|>",
}
TRUNCATION = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}


@pytest.mark.parametrize("left_on", [{"padding": PADDING}, {"truncation": TRUNCATION}])
def test_padding_and_truncation_of_training_are_off_and_not_handed_on(
    folder: Path, tmp_path: Path, left_on: dict[str, Any]
) -> None:
    plain = loaded(folder).encode(PROMPT)
    edit(folder, lambda values: values.update(left_on))
    tokenizer = loaded(folder)
    assert tokenizer.encode(PROMPT) == plain and len(plain) > 4
    (tmp_path / "artifact").mkdir()
    tokenizer.save(tmp_path / "artifact")
    saved = json.loads((tmp_path / "artifact" / "tokenizer.json").read_text(encoding="utf-8"))
    assert saved["padding"] is None and saved["truncation"] is None
    assert loaded(tmp_path / "artifact").encode(PROMPT) == plain


def test_a_clean_tokenizer_is_handed_on_byte_for_byte(folder: Path, tmp_path: Path) -> None:
    loaded(folder).save(tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()


@pytest.mark.parametrize(
    ("files", "stops"),
    [
        ({}, [0]),
        ({"tokenizer_config.json": {"eos_token": "Ċ"}}, ["Ċ"]),
        ({"special_tokens_map.json": {"eos_token": {"content": "Ċ"}}}, ["Ċ"]),
        ({"special_tokens_map.json": {"eos_token": "a"}, "tokenizer_config.json": {"eos_token": "Ċ"}}, ["Ċ"]),
        ({"generation_config.json": {"eos_token_id": [0, 199]}}, [0, 199]),
        ({"generation_config.json": {"eos_token_id": 199}}, [199]),
        (
            {"generation_config.json": {"eos_token_id": [7, 9]}, "tokenizer_config.json": {"eos_token": "Ċ"}},
            ["Ċ", 7, 9],
        ),
        ({"generation_config.json": {"eos_token_id": [10**9, None, True, "x", -4]}}, [0]),
    ],
)
def test_every_file_that_names_an_end_of_text_is_heard(folder: Path, files: dict[str, Any], stops: list[Any]) -> None:
    for name, values in files.items():
        (folder / name).write_text(json.dumps(values), encoding="utf-8")
    tokenizer = loaded(folder)
    vocabulary = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    assert list(tokenizer.stops) == [vocabulary.get(stop, stop) for stop in stops]
    assert tokenizer.eos == tokenizer.stops[0]


def test_a_prompt_that_begins_with_the_first_token_gets_no_second_one(folder: Path) -> None:
    tokenizer = loaded(folder)
    first = tokenizer.token(tokenizer.bos)
    assert tokenizer.prompt(first + "import") == tokenizer.prompt("import") == [0, *tokenizer.encode("import")]


def test_a_tokenizer_is_a_file_or_a_folder(folder: Path, tmp_path: Path, config: Callable[..., ParcaeConfig]) -> None:
    (tmp_path / "model").mkdir()
    for wanted in (folder, folder / "tokenizer.json"):
        found, notes = find_tokenizer(str(wanted), tmp_path / "model", config())
        assert found is not None and found.vocab_size == 2048 and not notes
    own, _ = find_tokenizer(None, folder, config())
    assert own is not None
    nothing, notes = find_tokenizer(None, tmp_path / "model", config())
    assert nothing is None and notes == [MISSING]
    for wanted, words in (("nowhere", "no such file"), (str(tmp_path / "model"), "no tokenizer.json there")):
        with pytest.raises(TextError, match=words):
            find_tokenizer(wanted, folder, config())


def test_an_id_beyond_the_token_table_is_refused(folder: Path, config: Callable[..., ParcaeConfig]) -> None:
    add_token(folder, 2048, "<|user|>")
    with pytest.raises(TextError, match="has the id 2048, and the token table 2048 rows"):
        find_tokenizer(None, folder, config())
    found, _ = find_tokenizer(None, folder, config(padded_vocab_size=2112))
    assert found is not None


def test_ids_within_the_padded_table_are_the_models_and_other_differences_are_said(
    folder: Path, config: Callable[..., ParcaeConfig]
) -> None:
    tokenizer = loaded(folder)
    assert fitted_vocabulary(tokenizer, config()) == (2048, [])
    vocabulary, notes = fitted_vocabulary(tokenizer, config(vocab_size=2000, padded_vocab_size=2112))
    assert vocabulary == 2048 and "config.json says 2000" in notes[0]
    vocabulary, notes = fitted_vocabulary(tokenizer, config(vocab_size=4096))
    assert vocabulary == 4096 and "is it this model's?" in notes[0]


def test_a_training_runs_tokenizer_is_looked_for_where_it_says(
    folder: Path, tmp_path: Path, config: Callable[..., ParcaeConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir()
    found, notes = find_tokenizer(None, tmp_path / "run", config(), trained_with=str(folder))
    assert found is not None and "tokenizer of the training run" in notes[0]
    monkeypatch.chdir(tmp_path)
    assert find_tokenizer(None, tmp_path / "run", config(), trained_with="tokenizer")[0] is not None
    nothing, notes = find_tokenizer(None, tmp_path / "run", config(), trained_with="/resource/elsewhere")
    assert nothing is None and notes[0].startswith("the run's tokenizer /resource/elsewhere is not here")


def test_the_released_tokenizer_is_for_models_of_that_owner_where_it_fits(
    folder: Path, tmp_path: Path, config: Callable[..., ParcaeConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def download(hub_id: str, *given: Any) -> Path:
        asked.append(hub_id)
        return folder

    monkeypatch.setattr(tokenizer_source, "download", download)
    (tmp_path / "model").mkdir()
    found, notes = find_tokenizer(None, tmp_path / "model", config(), hub_id="SandyResearch/parcae-140m")
    assert found is not None and notes == ["tokenizer of the released models: SandyResearch/parcae-tokenizer"]
    assert find_tokenizer(None, tmp_path / "model", config(), hub_id="other/parcae-140m")[0] is None
    small = config(vocab_size=60)
    nothing, notes = find_tokenizer(None, tmp_path / "model", small, hub_id="SandyResearch/parcae-140m")
    assert nothing is None and "does not fit 64 tokens" in notes[0]
    assert asked == ["SandyResearch/parcae-tokenizer"] * 2

    def refused(*given: Any) -> Path:
        raise CheckpointError("SandyResearch/parcae-tokenizer: no connection")

    monkeypatch.setattr(tokenizer_source, "download", refused)
    nothing, notes = find_tokenizer(None, tmp_path / "model", config(), hub_id="SandyResearch/parcae-140m")
    assert nothing is None and "no connection" in notes[0] and "--tokenizer" in notes[0]
