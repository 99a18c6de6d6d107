"""The text that models are measured on: held-out and calibration text of the package, or a file of the user's.

    stream = text_ids(folder, "heldout")                   # TokenText: ids, where they come from, their checksum
    windows = stream.windows(count=16, length=256)         # (16, 257): inputs and their next tokens

Texts are UTF-8, so that any tokenizer can read them; U+001E separates documents. A model without a tokenizer is
measured on seeded ids, which say something about arithmetic and nothing about quality.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor

from .errors import TextError
from .given_file import read_bytes
from .tokenizer import TextTokenizer

MOST_TEXT = 32_000_000  # bytes: a thousand times what a gate reads, and the tokenizer's tables still fit
SEPARATOR = "\x1e"
EMBEDDED_MODEL = Path(str(resources.files("parcae_mobile").joinpath("tiny")))


@dataclass(frozen=True)
class TokenText:
    """A text as ids (n,) int64; `real` is False for seeded ids."""

    ids: Tensor
    source: str
    real: bool = True

    @property
    def sha256(self) -> str:
        """Checksum of the ids as little-endian int64."""
        return hashlib.sha256(self.ids.numpy().astype("<i8").tobytes()).hexdigest()

    def windows(self, count: int, length: int) -> Tensor:
        """(count, length + 1) ids: the first `count` consecutive windows. Raises `TextError` if the text is shorter."""
        needed = count * (length + 1)
        if len(self.ids) < needed:
            raise TextError(
                f"{self.source}: {len(self.ids)} tokens, {needed} needed ({count} windows); give a longer text"
            )
        return self.ids[:needed].view(count, length + 1)


def text_ids(folder: Path, split: str, file: Path | None = None, vocab_size: int = 0, least: int = 1) -> TokenText:
    """Ids of `file`, or of the package's `split` (heldout or calibration), by the tokenizer of a model's folder.

    Without a tokenizer: `least` seeded ids below `vocab_size`. Raises `TextError` for an unreadable or empty file.
    """
    tokenizer = TextTokenizer.load(folder)
    if tokenizer is None:
        if file is not None:
            raise TextError(f"{folder} has no tokenizer.json, so {file} cannot be read; add one or leave the text out")
        return seeded_ids(vocab_size, least)
    return tokenized(tokenizer, split, file, vocab_size)


def tokenized(tokenizer: TextTokenizer, split: str, file: Path | None = None, vocab_size: int = 0) -> TokenText:
    """Ids of `file`, or of the package's `split`, by a tokenizer; each document begins with its first token.

    Raises `TextError` for an unreadable or empty file, and for an id that a vocabulary of `vocab_size` does not have.
    """
    ids: list[int] = []
    for document in read_text(split, file).split(SEPARATOR):
        ids += [tokenizer.bos, *tokenizer.encode(document)]
    if max(ids) >= vocab_size > 0:
        raise TextError(
            f"{tokenizer.path}: tokenizer.json gives id {max(ids)}, the model has {vocab_size} tokens; "
            "they do not match"
        )
    return TokenText(torch.tensor(ids), str(file) if file is not None else f"embedded {split} text")


def read_text(split: str, file: Path | None = None) -> str:
    """The text of a file, or of the package's split."""
    if file is None:
        return (EMBEDDED_MODEL / f"{split}.txt").read_bytes().decode("utf-8")
    if not file.exists():
        raise TextError(f"no such text: {file}")
    try:
        text = read_bytes(file, TextError, MOST_TEXT).decode("utf-8")
    except UnicodeDecodeError as error:
        raise TextError(f"{file}: not readable as UTF-8 ({error})") from None
    if not text.strip():
        raise TextError(f"{file}: empty; give a text of some thousand words")
    return text


def seeded_ids(vocab_size: int, count: int, seed: int = 20260416) -> TokenText:
    """`count` ids drawn with a fixed seed, for models that have no tokenizer."""
    generator = torch.Generator().manual_seed(seed)
    return TokenText(torch.randint(0, vocab_size, (count,), generator=generator), f"seeded ids ({seed})", real=False)
