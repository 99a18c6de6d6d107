"""Texts and tokenizers: what models are measured on, and what cannot serve for it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parcae_mobile.errors import TextError
from parcae_mobile.text import EMBEDDED_MODEL, SEPARATOR, read_text, seeded_ids, text_ids
from parcae_mobile.tokenizer import TextTokenizer

TRAINED = Path(__file__).parents[1] / "data" / "tiny-trained"
TOKENIZER = TextTokenizer.load(TRAINED)


@pytest.mark.parametrize("split", ["heldout", "calibration"])
def test_the_package_ships_utf8_texts_of_many_documents(split: str) -> None:
    text = read_text(split)
    assert len(text) > 100_000 and text.count(SEPARATOR) > 3


def test_held_out_and_calibration_text_are_different() -> None:
    held_out = set(read_text("heldout").split(SEPARATOR))
    assert not held_out & set(read_text("calibration").split(SEPARATOR))


def test_every_document_begins_with_the_first_token(tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text(f"import os{SEPARATOR}x = 1\n", encoding="utf-8")
    assert TOKENIZER is not None
    ids = text_ids(TRAINED, "heldout", file, 2048).ids.tolist()
    assert ids == [TOKENIZER.bos, *TOKENIZER.encode("import os"), TOKENIZER.bos, *TOKENIZER.encode("x = 1\n")]


@pytest.mark.parametrize("content", [b"", b" \n\t", b"\xff\xfe\xfa"])
def test_an_empty_or_undecodable_text_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "text.txt"
    file.write_bytes(content)
    with pytest.raises(TextError, match="text.txt"):
        text_ids(TRAINED, "heldout", file, 2048)


def test_a_missing_text_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TextError, match="no such text"):
        text_ids(TRAINED, "heldout", tmp_path / "none.txt", 2048)
    with pytest.raises(TextError, match="no regular file"):
        text_ids(TRAINED, "heldout", tmp_path, 2048)


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TextError, match="tokenizer.json gives id"):
        text_ids(TRAINED, "heldout", None, 100)


def test_windows_are_consecutive_and_a_short_text_is_refused() -> None:
    text = seeded_ids(50, 20)
    windows = text.windows(3, 5)
    assert windows.shape == (3, 6) and windows.flatten().tolist() == text.ids[:18].tolist()
    with pytest.raises(TextError, match="20 tokens, 24 needed"):
        text.windows(4, 5)


def test_seeded_ids_are_the_same_everywhere(tmp_path: Path) -> None:
    assert seeded_ids(1000, 5).ids.tolist() == seeded_ids(1000, 9).ids.tolist()[:5]
    assert not seeded_ids(1000, 5).real
    assert text_ids(tmp_path, "heldout", None, 1000, 5).ids.tolist() == seeded_ids(1000, 5).ids.tolist()
    with pytest.raises(TextError, match="no tokenizer.json"):
        text_ids(tmp_path, "heldout", tmp_path / "text.txt", 1000, 5)


def test_the_checksum_is_of_little_endian_int64() -> None:
    text = seeded_ids(1000, 7)
    raw = b"".join(int(token).to_bytes(8, "little") for token in text.ids)
    assert text.sha256 == hashlib.sha256(raw).hexdigest()


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40).filter(lambda text: "<|" not in text))
def test_text_survives_the_tokenizer(text: str) -> None:
    assert TOKENIZER is not None
    ids = TOKENIZER.encode(text)
    assert TOKENIZER.decode(ids) == text
    assert "".join(TOKENIZER.stream(iter(ids))) == text


def test_a_character_of_several_bytes_is_streamed_whole() -> None:
    assert TOKENIZER is not None
    ids = TOKENIZER.encode("a€𝄞b")
    pieces = list(TOKENIZER.stream(iter(ids)))
    assert "".join(pieces) == "a€𝄞b" and "\ufffd" not in "".join(pieces)


def test_the_embedded_tokenizer_matches_its_model() -> None:
    tokenizer = TextTokenizer.load(EMBEDDED_MODEL)
    config = json.loads((EMBEDDED_MODEL / "config.json").read_text(encoding="utf-8"))
    assert tokenizer is not None and tokenizer.vocab_size <= config["vocab_size"]


def test_a_folder_without_tokenizer_has_none_and_a_broken_one_is_refused(tmp_path: Path) -> None:
    assert TextTokenizer.load(tmp_path) is None
    for content in ("", "{", "{}", '{"model": 5}'):
        (tmp_path / "tokenizer.json").write_text(content, encoding="utf-8")
        with pytest.raises(TextError, match="tokenizer.json"):
            TextTokenizer.load(tmp_path)


@pytest.mark.parametrize("config", ["{", "[]", "5", '{"bos_token": 5}', '{"bos_token": {"content": []}}'])
def test_an_odd_tokenizer_configuration_names_no_tokens_or_is_refused(tmp_path: Path, config: str) -> None:
    (tmp_path / "tokenizer.json").write_bytes((TRAINED / "tokenizer.json").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(config, encoding="utf-8")
    try:
        tokenizer = TextTokenizer.load(tmp_path)
    except TextError as error:
        assert "tokenizer_config.json" in str(error)
    else:
        assert tokenizer is not None and TOKENIZER is not None and tokenizer.bos == TOKENIZER.bos


def test_the_configuration_of_a_tokenizer_names_its_first_and_last_token(tmp_path: Path) -> None:
    assert TOKENIZER is not None
    (tmp_path / "tokenizer.json").write_bytes((TRAINED / "tokenizer.json").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": "a", "eos_token": {"content": "b"}}', "utf-8")
    tokenizer = TextTokenizer.load(tmp_path)
    assert tokenizer is not None
    assert [tokenizer.bos, tokenizer.eos] == [TOKENIZER.encode("a")[0], TOKENIZER.encode("b")[0]]
