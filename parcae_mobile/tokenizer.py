"""A model's tokenizer (`tokenizer.json`, through the tokenizers library), its first token and those that end a text.

tokenizer = TextTokenizer.load(folder)                 # None where the folder has no tokenizer.json
ids = tokenizer.prompt("import os")                    # first token included
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from .errors import TextError
from .given_file import MOST_BYTES, check_regular
from .json_file import read_object

FILE = "tokenizer.json"
# What belongs to a tokenizer: how text becomes ids, where it ends, how a chat is written.
TEXT_FILES = (
    FILE,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "chat_template.jinja",
)
_LONE_HALF = re.compile("[\ud800-\udfff]")
_BOS = ("<|bos|>", "<|begin_of_text|>", "<|endoftext|>", "<s>", "[BOS]")
_EOS = ("<|eos|>", "<|end_of_text|>", "<|endoftext|>", "</s>", "[EOS]")


class TextTokenizer:
    """Text to ids and back. `bos` begins a text and each of `stops` ends one; where none is marked as such, it is 0.

    Padding and truncation, which training may have left on in the file, are off.
    """

    def __init__(self, tokenizer: Tokenizer, bos: int, stops: Sequence[int], path: Path) -> None:
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizer, self.bos, self.stops, self.path = tokenizer, bos, tuple(stops), path

    @classmethod
    def load(cls, place: Path) -> TextTokenizer | None:
        """Read a `tokenizer.json`, or the one of a folder; None where there is none."""
        path = place / FILE if place.is_dir() else place
        return cls.read(path) if path.exists() else None

    @classmethod
    def read(cls, path: Path) -> TextTokenizer:
        """Read a file of the format of `tokenizer.json`. Raises `TextError` if it is none.

        Beside it `tokenizer_config.json` and `special_tokens_map.json` name the first and the last token, and
        `generation_config.json` all ids that end a text.
        """
        check_regular(path, TextError, MOST_BYTES)
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # the library raises plain Exception, and its panics are not even that
            reason = " ".join(str(error).split())[:200]
            raise TextError(f"{path}: not a readable tokenizer ({reason}); copy it again") from None
        named = _named_tokens(path.parent / "special_tokens_map.json")
        named |= _named_tokens(path.parent / "tokenizer_config.json")
        generation = _object(path.parent / "generation_config.json")
        most = largest_id(tokenizer)
        stops = [stop for stop in _ids(generation.get("eos_token_id")) if stop <= most]
        bos = _first_id(tokenizer, (named.get("bos_token"), *_BOS))
        eos = _first_id(tokenizer, (named.get("eos_token"), *_EOS))
        bos = eos if bos is None else bos
        eos = (bos or 0) if eos is None else eos
        if not stops or "eos_token" in named:
            stops = [eos, *(stop for stop in stops if stop != eos)]
        return cls(tokenizer, 0 if bos is None else bos, stops, path)

    @property
    def eos(self) -> int:
        """The first of the ids that end a text."""
        return self.stops[0]

    @property
    def vocab_size(self) -> int:
        """Rows that a token table needs: the greatest id and one."""
        return largest_id(self._tokenizer) + 1

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without a first token. A lone half of a surrogate pair is read as U+FFFD."""
        return list(self._tokenizer.encode(_LONE_HALF.sub("\ufffd", text), add_special_tokens=False).ids)

    def prompt(self, text: str) -> list[int]:
        """Ids of a text with the first token before them, once, also where the text begins with it."""
        ids = self.encode(text)
        return ids if ids[:1] == [self.bos] else [self.bos, *ids]

    def token(self, index: int) -> str:
        """The token of an id as it is written in the vocabulary."""
        return str(self._tokenizer.id_to_token(index))

    def decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))

    def id_of(self, token: str) -> int | None:
        """The id of a token as it is written in the vocabulary, None if there is none."""
        row = self._tokenizer.token_to_id(token)
        return None if row is None else int(row)

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

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` into a folder: as it is, or without the padding and truncation that it has on."""
        values = read_object(self.path, TextError)
        left_on = [key for key in ("padding", "truncation") if values.get(key) is not None]
        if not left_on:
            shutil.copyfile(self.path, folder / FILE)
            return
        values |= dict.fromkeys(left_on)
        (folder / FILE).write_text(json.dumps(values, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


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


def largest_id(tokenizer: Tokenizer) -> int:
    """The greatest id that the vocabulary or an added token has."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values(), default=0)


def _object(path: Path) -> dict[str, Any]:
    return read_object(path, TextError) if path.exists() else {}


def _named_tokens(path: Path) -> dict[str, str]:
    values, named = _object(path), {}
    for key in ("bos_token", "eos_token"):
        value = values.get(key)
        value = value.get("content") if isinstance(value, dict) else value
        if isinstance(value, str):
            named[key] = value
    return named


def _ids(value: Any) -> list[int]:
    """The ids of `eos_token_id`: one, or several."""
    listed = value if isinstance(value, list) else [value]
    whole = [item for item in listed if isinstance(item, int) and not isinstance(item, bool) and item >= 0]
    return list(dict.fromkeys(whole))


def _first_id(tokenizer: Tokenizer, names: tuple[str | None, ...]) -> int | None:
    for name in names:
        if name is not None and (row := tokenizer.token_to_id(name)) is not None:
            return int(row)
    return None
