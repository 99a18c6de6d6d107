"""Quantized tensors kept between runs, so that a second target does not repeat GPTQ or learned rounding.

    key = cache_key(weights_sha256, recipe, "gptq", windows, seed=0, settings={})
    quantized, reused = Cache.default().get(key, model, recipe, lambda: quantize_with(...))

An entry's name is the SHA-256 of all that decides its content: weights, recipe, the algorithm with its settings, the
calibration ids, the seed, the versions and the very sources of this package. An entry is a folder that appears by
one rename, with the digest of its file inside; what does not match it is removed and made again. The oldest entries go
where all together take more than the bound. A cache that cannot be written is no error.

It lies in the platform's folder for caches, or where PARCAE_CACHE says.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from platformdirs import user_cache_path
from safetensors import SafetensorError
from torch import Tensor

from parcae_mobile.errors import InputError
from parcae_mobile.json_file import read_object
from parcae_mobile.manifest import sha256_of
from parcae_mobile.model import Parcae

from .apply import QuantizedModel
from .recipe import Recipe
from .storage import load_quantized, save_quantized

VARIABLE = "PARCAE_CACHE"
MOST_BYTES = 10_000_000_000  # of all entries together
TENSORS, FACTS = "tensors.safetensors", "entry.json"


@dataclass(frozen=True)
class Entry:
    """One entry: its key, what it is of, its bytes and when it was last used (seconds since 1970)."""

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
        place = self.folder / key
        if not place.is_dir():
            return None
        try:
            facts = read_object(place / FACTS, InputError)
            if sha256_of(place / TENSORS) != facts.get("sha256"):
                raise InputError(f"{place}: altered")
            quantized = load_quantized(model, place / TENSORS, recipe)
            os.utime(place / FACTS)
        except (InputError, OSError):
            shutil.rmtree(place, ignore_errors=True)
            return None
        return quantized

    def store(self, key: str, quantized: QuantizedModel, model: Parcae) -> bool:
        """Keep tensors under a key; whether it could be done. Makes room by removing the oldest entries."""
        partial: str | None = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            partial = tempfile.mkdtemp(prefix=".", suffix=".partial", dir=self.folder)
            path = Path(partial) / TENSORS
            save_quantized(quantized, path, model)
            size = path.stat().st_size
            if size > self.most_bytes:
                return False
            facts = {"sha256": sha256_of(path), "bytes": size, "recipe": quantized.recipe.name}
            text = json.dumps(facts | {"algorithm": quantized.algorithm}, sort_keys=True)
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
                size = (place / TENSORS).stat().st_size
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


def cache_key(
    weights_sha256: str,
    recipe: Recipe,
    algorithm: str,
    calibration: Tensor | None,
    seed: int,
    settings: Mapping[str, Any],
) -> str:
    """SHA-256 of all that decides quantized tensors; `settings` are the algorithm's own."""
    text = None
    if calibration is not None:
        text = hashlib.sha256(calibration.contiguous().numpy().astype("<i8").tobytes()).hexdigest()
    decides = {
        "weights": weights_sha256,
        "recipe": [recipe.name, recipe.sha256],
        "algorithm": algorithm,
        "settings": dict(settings),
        "calibration": [text, None if calibration is None else list(calibration.shape)],
        "seed": seed,
        "versions": {name: _version(name) for name in ("parcae-mobile", "torch", "numpy")},
        "processor": [torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()],
        "sources": _sources(),
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


@cache
def _sources() -> str:
    """Digest of the code that quantizes, so that a changed algorithm never meets an old result."""
    digest = hashlib.sha256()
    for package in ("quantize", "parcae_mobile"):
        for path in sorted(Path(str(resources.files(package))).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
