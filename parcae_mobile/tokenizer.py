"""A model's tokenizer (`tokenizer.json`, through the tokenizers library) and its first and last token.

tokenizer = TextTokenizer.load(folder)                 # None where the folder has no tokenizer.json
ids = [tokenizer.bos, *tokenizer.encode("import os")]
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from .errors import TextError

_LONE_HALF = re.compile("[\ud800-\udfff]")
_BOS = ("<|bos|>", "<|begin_of_text|>", "<|endoftext|>", "<s>", "[BOS]")
_EOS = ("<|eos|>", "<|end_of_text|>", "<|endoftext|>", "</s>", "[EOS]")


class TextTokenizer:
    """Text to ids and back. `bos` begins a text and `eos` ends one; where no token is marked as such, both are 0."""

    def __init__(self, tokenizer: Tokenizer, bos: int, eos: int) -> None:
        self._tokenizer, self.bos, self.eos = tokenizer, bos, eos

    @classmethod
    def load(cls, folder: Path) -> TextTokenizer | None:
        """Read `tokenizer.json`; `tokenizer_config.json`, where there is one, names bos and eos."""
        path = folder / "tokenizer.json"
        return cls.read(path) if path.exists() else None

    @classmethod
    def read(cls, path: Path) -> TextTokenizer:
        """Read a file of the format of `tokenizer.json`. Raises `TextError` if it is none."""
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception for any defect of the file
            raise TextError(f"{path}: not a readable tokenizer ({error}); copy it again") from None
        named = _named_tokens(path.with_name("tokenizer_config.json"))
        bos = _first_id(tokenizer, (named.get("bos_token"), *_BOS))
        eos = _first_id(tokenizer, (named.get("eos_token"), *_EOS))
        bos = eos if bos is None else bos
        return cls(tokenizer, 0 if bos is None else bos, (bos or 0) if eos is None else eos)

    @property
    def vocab_size(self) -> int:
        return self._tokenizer.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without a first token. A lone half of a surrogate pair is read as U+FFFD."""
        return list(self._tokenizer.encode(_LONE_HALF.sub("\ufffd", text), add_special_tokens=False).ids)

    def token(self, index: int) -> str:
        """The token of an id as it is written in the vocabulary."""
        return str(self._tokenizer.id_to_token(index))

    def decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))

    def id_of(self, token: str) -> int | None:
        """The id of a token as it is written in the vocabulary, None if there is none."""
        found = self._tokenizer.token_to_id(token)
        return None if found is None else int(found)

    def stream(self, ids: Iterator[int]) -> Iterator[str]:
        """Text pieces as ids arrive; a piece is held back until its last character's bytes are complete.

        Together they are what `decode` gives for all ids, without the U+FFFD at its end: half a character is not shown.
        """
        stream = TextStream(self._tokenizer)
        for token in ids:
            if piece := stream.feed(token):
                yield piece
        if rest := stream.finish():
            yield rest

    def pieces(self, ids: list[int]) -> list[str]:
        """What `stream` shows after each id, and after the last."""
        stream = TextStream(self._tokenizer)
        return [*(stream.feed(token) for token in ids), stream.finish()]


class TextStream:
    """Decodes ids one by one into text that never ends inside of a character."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer, self._stream = tokenizer, DecodeStream(skip_special_tokens=True)
        self._ids: list[int] = []
        self._shown = 0

    def feed(self, token: int) -> str:
        """The text that this token completes; empty while a character is incomplete."""
        self._ids.append(token)
        piece = self._stream.step(self._tokenizer, token) or ""
        self._shown += len(piece)
        return piece

    def finish(self) -> str:
        """The rest of the text of all ids, without what is left of a character that never became whole."""
        text = str(self._tokenizer.decode(self._ids, skip_special_tokens=True))
        return text[self._shown :].rstrip("\ufffd")


def _named_tokens(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TextError(f"{path}: not readable as JSON ({error})") from None
    if not isinstance(values, dict):
        raise TextError(f"{path}: holds a {type(values).__name__}, not an object")
    named = {}
    for key in ("bos_token", "eos_token"):
        value = values.get(key)
        value = value.get("content") if isinstance(value, dict) else value
        if isinstance(value, str):
            named[key] = value
    return named


def _first_id(tokenizer: Tokenizer, names: tuple[str | None, ...]) -> int | None:
    for name in names:
        if name is not None and (found := tokenizer.token_to_id(name)) is not None:
            return int(found)
    return None
