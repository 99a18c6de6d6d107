"""The training text: Python sources and documentation that are already installed, split by file. Nothing is downloaded.

    python -m training.corpus --out CORPUS        # tokenizer.json, train/calibration/heldout.npy and .txt, corpus.json

Documents are the standard library's sources, the `pydoc` topics, and of a few permissively licensed packages some
files as they are and, of other files, the documentation strings alone. The same installed versions give the same bytes:
order and choice come from a hash of the document's name. `splits.txt` names the standard-library documents that are
kept apart; of each package about 2 % of the files are held out and 2 % calibrate.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import importlib
import importlib.metadata
import importlib.util
import json
import platform
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from parcae_mobile.text import SEPARATOR

SPLITS = ("train", "calibration", "heldout")
START = "<|bos|>"
# Import name -> (distribution, licence of the package, bytes of sources, bytes of documentation strings).
PACKAGES = {
    "matplotlib": ("matplotlib", "PSF-based (matplotlib)", 1_500_000, 700_000),
    "mpmath": ("mpmath", "BSD-3-Clause", 600_000, 400_000),
    "networkx": ("networkx", "BSD-3-Clause", 1_200_000, 1_500_000),
    "numpy": ("numpy", "BSD-3-Clause", 1_500_000, 1_500_000),
    "rich": ("rich", "MIT", 1_000_000, 0),
    "sympy": ("sympy", "BSD-3-Clause", 1_500_000, 2_000_000),
    "torch": ("torch", "BSD-3-Clause", 2_000_000, 1_500_000),
    "typer": ("typer", "MIT", 400_000, 0),
}
_SKIPPED = frozenset(
    "site-packages dist-packages test tests testing idle_test encodings lib2to3 __pycache__ pydoc_data turtledemo "
    "_vendor vendored".split()
)
_LEAST, _MOST = 400, 300_000
_OVERLAP = 0.2
_LONG_LINE = 40


@dataclass(frozen=True)
class Document:
    """A text and the name that its split and its place are drawn from."""

    name: str
    text: str


def gather() -> list[Document]:
    """All documents of this installation, the standard library first; duplicates by content are dropped."""
    library = Path(sysconfig.get_paths()["stdlib"])
    documents = [*folder_documents(library, "stdlib"), *topics()]
    for module in PACKAGES:
        documents += package_documents(module)
    return list({d.text: d for d in reversed(documents) if SEPARATOR not in d.text}.values())[::-1]


def folder_documents(folder: Path, prefix: str) -> list[Document]:
    """The readable Python files under a folder, sorted by name, without tests, codecs' tables and vendored copies."""
    documents = []
    for path in sorted(folder.rglob("*.py")):
        inside = path.relative_to(folder)
        if _SKIPPED & set(inside.parts) or path.name.startswith(("_sysconfigdata", "test_")):
            continue
        try:
            text = path.read_text(encoding="utf-8").replace("\r\n", "\n")
        except UnicodeDecodeError:
            continue
        if _LEAST <= len(text) <= _MOST and not _is_table(text):
            documents.append(Document(f"{prefix}/{inside.as_posix()}", text))
    return documents


def topics() -> list[Document]:
    """The language reference's topics that `pydoc` ships."""
    module = importlib.import_module("pydoc_data.topics")
    return [Document(f"topics/{name}", text) for name, text in sorted(module.topics.items()) if len(text) >= _LEAST]


def package_documents(module: str) -> list[Document]:
    """Sources of an installed package up to its share, then documentation strings of files that were not taken."""
    _, _, source_bytes, doc_bytes = PACKAGES[module]
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"{module} is not installed: the corpus needs the packages that the project pins")
    documents = folder_documents(Path(spec.submodule_search_locations[0]), module)
    documents.sort(key=lambda d: _hash(d.name))
    taken: list[Document] = []
    for document in documents:
        size = len(document.text)
        if size <= source_bytes:
            taken.append(document)
            source_bytes -= size
            continue
        text = documentation(document.text)
        if _LEAST <= len(text) <= doc_bytes:
            taken.append(Document(f"{document.name}#documentation", text))
            doc_bytes -= len(text)
    return taken


def documentation(source: str) -> str:
    """The documentation strings of a module, each under the name of what it documents; empty if it does not parse."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return ""
    parts = [ast.get_docstring(tree) or ""]
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            text = ast.get_docstring(node)
            if text and len(text) >= 80:
                parts.append(f"{node.name}\n{'-' * len(node.name)}\n{text}")
    return "\n\n".join(part for part in parts if part) + "\n"


def split(documents: Iterable[Document]) -> dict[str, list[Document]]:
    """Documents by split, each in hash order. Training documents that repeat held-out lines are dropped."""
    named = named_documents()
    parts: dict[str, list[Document]] = {name: [] for name in SPLITS}
    for document in sorted(documents, key=lambda d: _hash(d.name)):
        parts[split_of(document.name, named)].append(document)
    apart = {line for name in SPLITS[1:] for d in parts[name] for line in _long_lines(d.text)}
    parts["train"] = [d for d in parts["train"] if _share(_long_lines(d.text), apart) <= _OVERLAP]
    return parts


def split_of(name: str, named: dict[str, str]) -> str:
    """`named`'s split, else training for the standard library, else drawn from the hash of the file's name."""
    if name in named or name.startswith(("stdlib/", "topics/")):
        return named.get(name, "train")
    draw = int(_hash(name.removesuffix("#documentation"))[-4:], 16) % 50
    return {0: "heldout", 1: "calibration"}.get(draw, "train")


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """A byte-level BPE of `vocabulary` entries; id 0 begins and ends a text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[START],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def encode(tokenizer: Tokenizer, documents: Iterable[Document]) -> np.ndarray:
    """uint16 (tokens,): each document after an id 0."""
    ids: list[int] = []
    for encoding in tokenizer.encode_batch([d.text for d in documents]):
        ids += [0, *encoding.ids]
    return np.array(ids, dtype=np.uint16)


def prepare(out: Path, vocabulary: int) -> None:
    """Write the tokenizer, the splits as tokens and text, and what they were made of into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    parts = split(gather())
    tokenizer = train_tokenizer((d.text for d in parts["train"]), vocabulary)
    tokenizer.save(str(out / "tokenizer.json"))
    summary: dict[str, object] = {
        "python": platform.python_version(),
        "packages": {m: importlib.metadata.version(PACKAGES[m][0]) for m in PACKAGES},
        "licences": {"stdlib, topics": "PSF-2.0", **{m: PACKAGES[m][1] for m in PACKAGES}},
    }
    for name in SPLITS:
        tokens = encode(tokenizer, parts[name])
        np.save(out / f"{name}.npy", tokens)
        (out / f"{name}.txt").write_text(SEPARATOR.join(d.text for d in parts[name]), encoding="utf-8", newline="")
        size = sum(len(d.text.encode()) for d in parts[name])
        summary[name] = {
            "documents": [d.name for d in parts[name]],
            "bytes": size,
            "tokens": len(tokens),
            "sha256": hashlib.sha256(tokens.tobytes()).hexdigest(),
        }
        print(f"{name}: {len(parts[name])} documents, {size:,} bytes, {len(tokens):,} tokens")
    (out / "corpus.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


def named_documents() -> dict[str, str]:
    """Document name -> split, in the order of `splits.txt`."""
    lines = Path(__file__).with_name("splits.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split(maxsplit=1) for line in lines if line and not line.startswith("#"))
    return {name: part for part, name in pairs}


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def _long_lines(text: str) -> set[str]:
    lines = (line.strip() for line in text.splitlines())
    return {line for line in lines if len(line) >= _LONG_LINE and not line.startswith("#")}


def _share(lines: set[str], others: set[str]) -> float:
    return len(lines & others) / max(len(lines), 1)


def _is_table(text: str) -> bool:
    """Generated files and tables of numbers: they teach nothing and their bits per byte mean nothing."""
    digits = sum(character.isdigit() for character in text)
    head = text[:1000].lower()
    return digits > 0.2 * len(text) or "do not edit" in head or "generated by" in head


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the training text from what is installed.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--vocabulary", type=int, default=4096, help="entries of the tokenizer (default 4096)")
    arguments = parser.parse_args()
    prepare(arguments.out, arguments.vocabulary)


if __name__ == "__main__":
    main()
