"""The corpus: the same files give the same tokens, splits are disjoint, held-out lines do not come back in training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training import corpus
from training.corpus import Document, documentation, encode, folder_documents, named_documents, split, train_tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index in range(8):
        lines = [f"def function_{index}_{line}(argument): return argument + {line}" for line in range(12)]
        (tmp_path / f"module_{index}.py").write_text("\n".join(lines) + "\n")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "module.py").write_text("x = 1\n" * 200)
    (tmp_path / "table.py").write_text("DATA = [" + "123456, " * 200 + "]\n")
    (tmp_path / "tiny.py").write_text("x = 1\n")
    return tmp_path


def test_the_same_folder_gives_the_same_tokens(folder: Path) -> None:
    tokens = []
    for _ in range(2):
        documents = folder_documents(folder, "numpy")
        tokenizer = train_tokenizer((d.text for d in documents), 300)
        tokens.append(encode(tokenizer, documents))
    assert np.array_equal(*tokens)
    assert tokens[0].dtype == np.uint16
    assert int((tokens[0] == 0).sum()) == 8 and tokens[0][0] == 0


def test_tests_tables_and_tiny_files_are_left_out(folder: Path) -> None:
    assert [d.name for d in folder_documents(folder, "p")] == [f"p/module_{index}.py" for index in range(8)]


def test_the_tokenizer_gives_back_any_text() -> None:
    tokenizer = train_tokenizer(["def f(x):\n    return x\n"] * 4, 280)
    text = "naïve\tünïcode \U0001f600\r\n  x"
    assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert tokenizer.id_to_token(0) == corpus.START


@given(st.lists(st.text("abcdef/", min_size=1, max_size=12), unique=True, max_size=60))
def test_splits_are_disjoint_and_keep_every_document_that_shares_no_lines(names: list[str]) -> None:
    documents = [Document(f"numpy/{name}", f"text of {name} without any long line") for name in names]
    parts = split(documents)
    together = [d.name for part in parts.values() for d in part]
    assert sorted(together) == sorted(d.name for d in documents)


def test_listed_documents_are_kept_out_of_training() -> None:
    named = named_documents()
    parts = split([Document(name, f"{name}: nothing in common") for name in [*named, "stdlib/other.py"]])
    assert [d.name for d in parts["train"]] == ["stdlib/other.py"]
    assert {d.name for d in parts["heldout"]} == {name for name, part in named.items() if part == "heldout"}


def test_training_text_that_repeats_held_out_lines_is_dropped() -> None:
    lines = [f"this is held-out line number {index} of the document, and it is long" for index in range(10)]
    held_out = Document("stdlib/lzma.py", "\n".join(lines))
    copy = Document("stdlib/copy.py", "\n".join(lines[:5] + ["and another line that is as long as the others are"] * 3))
    other = Document("stdlib/other.py", "\n".join(["a line which nobody else has, but which is long enough"] * 3))
    assert [d.name for d in split([held_out, copy, other])["train"]] == ["stdlib/other.py"]


def test_source_and_documentation_of_one_file_fall_into_one_split() -> None:
    for index in range(200):
        name = f"numpy/file_{index}.py"
        assert corpus.split_of(name, {}) == corpus.split_of(f"{name}#documentation", {})


def test_documentation_keeps_docstrings_and_nothing_of_the_code() -> None:
    long = "It says at some length what the function does, which makes the text worth having. " * 2
    source = f'"""The module."""\n\ndef function(secret):\n    """{long}"""\n    return secret\n'
    text = documentation(source)
    assert text.startswith("The module.\n\nfunction\n--------\nIt says") and "return secret" not in text
    assert documentation("def broken(:\n") == ""
