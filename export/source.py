"""What is exported: a model with its name, tokenizer and text, from the package, a folder, the hub, or a named shape.

source = open_source(None)                             # the embedded model
source = open_source("SandyResearch/parcae-140m")      # with the released tokenizer, which lies in its own repository
source = open_source("outputs/my-run", checkpoint="2048", tokenizer="tokenizer/")
source = open_source("parcae-140m", random_weights=True)
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from parcae_mobile.checkpoint import build_model, find_folder, read_checkpoint
from parcae_mobile.checkpoint.build import rope_notes
from parcae_mobile.checkpoint.read import read_config
from parcae_mobile.config import RELEASED_SHAPES, ParcaeConfig, released_config
from parcae_mobile.errors import UsageError
from parcae_mobile.golden import weights_sha256
from parcae_mobile.model import Parcae
from parcae_mobile.random_weights import random_model
from parcae_mobile.rope import make_exact
from parcae_mobile.text import EMBEDDED_MODEL, TokenText, seeded_ids, tokenized
from parcae_mobile.threads import default_threads
from parcae_mobile.tokenizer import TextTokenizer
from parcae_mobile.tokenizer_source import find_tokenizer, fitted_vocabulary
from quantize.apply import release

EMBEDDED_NAME = "parcae-tiny"
INJECTION = "transformer.adapter."


@dataclass
class Source:
    """A loaded fp32 model. `folder` is None for random weights, which have neither tokenizer nor meaning.

    `notes` are for the user: what was chosen for them, and what is missing.
    """

    name: str
    model: Parcae
    folder: Path | None
    tokenizer: TextTokenizer | None
    notes: list[str] = field(default_factory=list)
    _weights_sha256: str = ""
    _texts: dict[tuple[str, Path | None], TokenText] = field(default_factory=dict, repr=False)

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

    def release(self, names: Collection[str]) -> None:
        """Give back the memory of parameters whose quantized form is known, once nothing is measured on them any more.

        The injection stays, because each artifact is compared with it.
        """
        self._weights_sha256 = self.weights_sha256
        release(self.model, [name for name in names if not name.startswith(INJECTION)])

    def text(self, split: str, file: Path | None = None, least: int = 1) -> TokenText:
        """Held-out or calibration ids; seeded ones where there is no tokenizer to read a text with.

        A text is read once: every step asks for one, and the tokenizer takes a third of a second for it.
        """
        if self.tokenizer is not None:
            if (split, file) not in self._texts:
                self._texts[split, file] = tokenized(self.tokenizer, split, file, self.model.config.vocab_size)
            return self._texts[split, file]
        if file is not None:
            raise UsageError(f"{self.name} has no tokenizer to read {file} with; add --tokenizer or leave the text out")
        return seeded_ids(self.model.config.vocab_size, least)


@contextmanager
def torch_threads(asked: int, config: ParcaeConfig) -> Iterator[None]:
    """Compute with the threads that were asked for, or with the default for the model's width if that is 0."""
    before = torch.get_num_threads()
    torch.set_num_threads(asked or default_threads(config.recurrent_embedding_dimension) or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def config_of(model: str | None, revision: str | None = None, random_weights: bool = False) -> ParcaeConfig | None:
    """The configuration of what `open_source` would load, without its weights; None where it says what is wrong."""
    if random_weights:
        return released_config(model) if model in RELEASED_SHAPES else None
    if model in RELEASED_SHAPES and not Path(model).is_dir():
        return None
    return read_config(EMBEDDED_MODEL if model is None else find_folder(model, revision))


def open_source(
    model: str | None,
    revision: str | None = None,
    random_weights: bool = False,
    seed: int = 0,
    *,
    tokenizer: str | None = None,
    checkpoint: str | None = None,
) -> Source:
    """Load what `--model` names; None is the embedded model. Raises `UsageError`, `ConfigError`, `CheckpointError`.

    `tokenizer` is a file, a folder or a hub id; `checkpoint` chooses one of a training run's.
    """
    if random_weights:
        if model not in RELEASED_SHAPES:
            raise UsageError(f"--random-weights needs --model {' or '.join(RELEASED_SHAPES)}")
        if tokenizer is not None or checkpoint is not None:
            raise UsageError("--random-weights go with neither --tokenizer nor --checkpoint; leave them out")
        drawn = random_model(released_config(model), seed)
        return Source(model, drawn, None, None, ["random weights: gates of quality mean nothing here"])
    if model in RELEASED_SHAPES and not Path(model).is_dir():
        raise UsageError(f"--model {model} names a shape: add --random-weights, or give a folder or a hub id")
    folder = EMBEDDED_MODEL if model is None else find_folder(model, revision)
    opened = read_checkpoint(folder, checkpoint)
    local = model is None or Path(model).is_dir()
    text_tokenizer, said = find_tokenizer(
        tokenizer, folder, opened.config, None if local else model, opened.training_tokenizer
    )
    notes = [*opened.notes, *rope_notes(opened), *said]
    notes += [] if local else [f"{model} at revision {folder.name} of the hub; --revision pins it"]
    if text_tokenizer is not None:
        vocabulary, said = fitted_vocabulary(text_tokenizer, opened.config)
        opened.config = replace(opened.config, vocab_size=vocabulary)
        notes += said
    built = build_model(opened)
    rounded = make_exact(built)
    notes += [rounded] if rounded else []
    return Source(_name(model), built, folder, text_tokenizer, notes)


def _name(model: str | None) -> str:
    if model is None:
        return EMBEDDED_NAME
    name = Path(model).resolve().name if Path(model).is_dir() else model
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name.split("/")[-1]).strip(".-") or "model"
