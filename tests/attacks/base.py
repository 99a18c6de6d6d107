"""What the attacks damage: a small checkpoint and what writes files of strange kinds."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_safetensors

from parcae_mobile import Parcae, ParcaeConfig
from parcae_mobile.random_weights import random_model
from tests.conftest import SMALL

HUGE = 2_000_000_000  # bytes that a file claims to have, none of them on the disk


@functools.cache
def model() -> Parcae:
    """The small model whose checkpoint is damaged."""
    return random_model(ParcaeConfig.from_dict(SMALL), 0)


def tensors() -> dict[str, torch.Tensor]:
    """Its tensors, each in memory of its own."""
    return {name: value.detach().clone() for name, value in model().named_parameters()}


@functools.cache
def weights() -> bytes:
    """Its safetensors file."""
    return save_safetensors(tensors())


def checkpoint(folder: Path, config: Any = None, data: bytes | None = None, name: str = "model.safetensors") -> Path:
    """A checkpoint folder with the given configuration and weights, whole where none are given."""
    content = config if isinstance(config, str | bytes) else json.dumps(SMALL if config is None else config)
    (folder / "config.json").write_bytes(content.encode() if isinstance(content, str) else content)
    (folder / name).write_bytes(weights() if data is None else data)
    return folder


def sparse(path: Path, size: int = HUGE, start: bytes = b"") -> Path:
    """A file that claims a size and takes no room on the disk."""
    with path.open("wb") as file:
        file.write(start)
        file.truncate(size)
    return path


# What may lie where a file is expected, by name; each takes the file's path.
STRANGE: dict[str, Callable[[Path], Any]] = {
    "a folder": lambda path: path.mkdir(),
    "a pipe": lambda path: os.mkfifo(path),
    "an endless device": lambda path: path.symlink_to("/dev/zero"),
    "a link in a circle": lambda path: path.symlink_to(path.name),
    "two gigabytes of nothing": sparse,
}
# Bytes that are no JSON object.
NOT_JSON: dict[str, bytes] = {
    "nothing": b"",
    "a cut": b'{"a": ',
    "a list": b"[]",
    "a number": b"7",
    "null": b"null",
    "UTF-16": "{}".encode("utf-16"),
    "no text": b"\xff\xfe\x00\x01",
    "a hundred thousand brackets": b"[" * 100_000,
    "nested objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "a name twice": b'{"a": 1, "a": 2}',
    "a number of five thousand digits": b'{"a": ' + b"9" * 5000 + b"}",
    "two objects": b"{}{}",
}
