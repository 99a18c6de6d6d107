"""What is exported: a model with its name, tokenizer and text, from the package, a folder, the hub, or a named shape.

source = open_source(None)                             # the embedded model
source = open_source("parcae-140m", random_weights=True)
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from parcae_mobile.checkpoint import build_model, find_folder, read_checkpoint
from parcae_mobile.config import RELEASED_SHAPES, released_config
from parcae_mobile.errors import UsageError
from parcae_mobile.golden import weights_sha256
from parcae_mobile.model import Parcae
from parcae_mobile.random_weights import random_model
from parcae_mobile.text import EMBEDDED_MODEL, TokenText, seeded_ids, text_ids
from parcae_mobile.tokenizer import TextTokenizer

EMBEDDED_NAME = "parcae-tiny"


@dataclass
class Source:
    """A loaded fp32 model. `folder` is None for random weights, which have neither tokenizer nor meaning."""

    name: str
    model: Parcae
    folder: Path | None
    tokenizer: TextTokenizer | None
    notes: list[str] = field(default_factory=list)
    _weights_sha256: str = ""

    @property
    def real(self) -> bool:
        """Whether figures about quality mean something."""
        return self.tokenizer is not None

    @property
    def embedded(self) -> bool:
        return self.folder == EMBEDDED_MODEL

    @property
    def weights_sha256(self) -> str:
        if not self._weights_sha256:
            self._weights_sha256 = weights_sha256(self.model)
        return self._weights_sha256

    def text(self, split: str, file: Path | None = None, least: int = 1) -> TokenText:
        """Held-out or calibration ids; seeded ones where there is no tokenizer to read a text with."""
        if self.folder is None:
            if file is not None:
                raise UsageError(f"random weights have no tokenizer to read {file} with; leave the text out")
            return seeded_ids(self.model.config.vocab_size, least)
        return text_ids(self.folder, split, file, self.model.config.vocab_size, least)


def open_source(model: str | None, revision: str | None = None, random_weights: bool = False, seed: int = 0) -> Source:
    """Load what `--model` names; None is the embedded model. Raises `UsageError`, `ConfigError`, `CheckpointError`."""
    if random_weights:
        if model not in RELEASED_SHAPES:
            raise UsageError(f"--random-weights needs --model {' or '.join(RELEASED_SHAPES)}")
        drawn = random_model(released_config(model), seed)
        return Source(model, drawn, None, None, ["random weights: gates of quality mean nothing here"])
    if model in RELEASED_SHAPES and not Path(model).is_dir():
        raise UsageError(f"--model {model} names a shape: add --random-weights, or give a folder or a hub id")
    folder = EMBEDDED_MODEL if model is None else find_folder(model, revision)
    checkpoint = read_checkpoint(folder)
    name = EMBEDDED_NAME if model is None else _safe_name(Path(model).resolve().name if Path(model).is_dir() else model)
    return Source(name, build_model(checkpoint), folder, TextTokenizer.load(folder), checkpoint.notes)


def _safe_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name.split("/")[-1]).strip(".-") or "model"
