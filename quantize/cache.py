"""What takes long and has one result for all targets, kept between runs: quantized tensors, and what was measured.

    key = cache_key(weights_sha256, recipe, "gptq", windows, seed=0, settings={})      # cache_key.py
    quantized, reused = Cache.default().get(key, model, recipe, lambda: quantize_with(...))
    Cache.default().recall(other_key)                     # an object that `remember` was given, or None

A second target does not repeat GPTQ or learned rounding, nor the questions that no target has a part in. An entry's
name is the SHA-256 of all that decides its content (cache_key.py). An entry is a folder that appears by one rename,
with the digest of its file inside; what does not match it is removed and made again. The oldest entries go where all
together take more than the bound. A cache that cannot be written is no error.

It lies in the platform's folder for caches, or where PARCAE_CACHE says.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from platformdirs import user_cache_path
from safetensors import SafetensorError

from parcae_mobile.errors import InputError
from parcae_mobile.json_file import read_object
from parcae_mobile.manifest import sha256_of
from parcae_mobile.model import Parcae

from .apply import QuantizedModel
from .recipe import Recipe
from .storage import load_quantized, save_quantized

VARIABLE = "PARCAE_CACHE"
Read = TypeVar("Read")
MOST_BYTES = 10_000_000_000  # of all entries together
TENSORS, ANSWER, FACTS = "tensors.safetensors", "answer.json", "entry.json"


@dataclass(frozen=True)
class Entry:
    """One entry: its key, what it is of, its bytes and when it was last used (seconds since 1970).

    `algorithm` is how tensors were quantized, or the question that was answered.
    """

    key: str
    recipe: str
    algorithm: str
    bytes: int
    used: float


@dataclass(frozen=True)
class Cache:
    """A folder of entries. `most_bytes` bounds what they take together."""

    folder: Path
    most_bytes: int = MOST_BYTES

    @classmethod
    def default(cls) -> Cache:
        """The user's cache: PARCAE_CACHE, or the platform's folder."""
        named = os.environ.get(VARIABLE)
        return cls(Path(named) if named else user_cache_path("parcae-mobile", appauthor=False))

    def get(
        self, key: str, model: Parcae, recipe: Recipe, compute: Callable[[], QuantizedModel]
    ) -> tuple[QuantizedModel, bool]:
        """The tensors under a key, or those that `compute` gives, which are then kept; and whether they were there."""
        known = self.load(key, model, recipe)
        if known is not None:
            return known, True
        quantized = compute()
        if quantized.stored:
            self.store(key, quantized, model)
        return quantized, False

    def load(self, key: str, model: Parcae, recipe: Recipe) -> QuantizedModel | None:
        """The tensors under a key, put into `model`; None if there are none. A damaged entry is removed."""
        return self._read(key, TENSORS, lambda path: load_quantized(model, path, recipe))

    def store(self, key: str, quantized: QuantizedModel, model: Parcae) -> bool:
        """Keep tensors under a key; whether it could be done. Makes room by removing the oldest entries."""
        facts = {"recipe": quantized.recipe.name, "algorithm": quantized.algorithm}
        return self._write(key, TENSORS, lambda path: save_quantized(quantized, path, model), facts)

    def recall(self, key: str) -> dict[str, Any] | None:
        """The answer under a key; None if there is none. A damaged entry is removed."""
        return self._read(key, ANSWER, lambda path: read_object(path, InputError))

    def remember(self, key: str, answer: Mapping[str, Any], recipe: str, question: str) -> bool:
        """Keep an answer, which JSON can hold, under a key; whether it could be done."""
        text = json.dumps(answer)  # in its own order, which a manifest shows
        facts = {"recipe": recipe, "algorithm": question}
        return self._write(key, ANSWER, lambda path: path.write_text(text, encoding="utf-8"), facts)

    def _read(self, key: str, name: str, read: Callable[[Path], Read]) -> Read | None:
        place = self.folder / key
        if not place.is_dir():
            return None
        try:
            facts = read_object(place / FACTS, InputError)
            if sha256_of(place / name) != facts.get("sha256"):
                raise InputError(f"{place}: altered")
            content = read(place / name)
            os.utime(place / FACTS)
        except (InputError, OSError):
            shutil.rmtree(place, ignore_errors=True)
            return None
        return content

    def _write(self, key: str, name: str, write: Callable[[Path], object], facts: Mapping[str, str]) -> bool:
        partial: str | None = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            partial = tempfile.mkdtemp(prefix=".", suffix=".partial", dir=self.folder)
            path = Path(partial) / name
            write(path)
            size = path.stat().st_size
            if size > self.most_bytes:
                return False
            text = json.dumps({"sha256": sha256_of(path), "bytes": size, **facts}, sort_keys=True)
            (Path(partial) / FACTS).write_text(text, encoding="utf-8")
            self._make_room(size)
            os.rename(partial, self.folder / key)
        except (OSError, SafetensorError):  # no space, no right to write, or another process was first
            return False
        finally:
            if partial is not None:
                shutil.rmtree(partial, ignore_errors=True)
        return True

    def entries(self) -> list[Entry]:
        """What is there, the least recently used first."""
        listed = []
        for place in self.folder.glob("[0-9a-f]*") if self.folder.is_dir() else ():
            try:
                facts, used = read_object(place / FACTS, InputError), (place / FACTS).stat().st_mtime
                size = sum(path.stat().st_size for path in place.iterdir() if path.name in (TENSORS, ANSWER))
            except (InputError, OSError):
                continue
            listed.append(Entry(place.name, str(facts.get("recipe")), str(facts.get("algorithm")), size, used))
        return sorted(listed, key=lambda entry: (entry.used, entry.key))

    def clear(self) -> int:
        """Remove all entries, and what killed processes left of some; returns how many there were."""
        count = len(self.entries())
        for place in self.folder.iterdir() if self.folder.is_dir() else ():
            if place.is_dir() and (place.name.endswith(".partial") or (place / FACTS).exists()):
                shutil.rmtree(place, ignore_errors=True)
        return count

    def _make_room(self, size: int) -> None:
        entries = self.entries()
        taken = sum(entry.bytes for entry in entries)
        for entry in entries:
            if taken + size <= self.most_bytes:
                return
            shutil.rmtree(self.folder / entry.key, ignore_errors=True)
            taken -= entry.bytes
