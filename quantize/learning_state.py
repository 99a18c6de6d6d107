"""A run of learned rounding in one file, so that it can go on after it was cut off, or be used again when it is done.

    state = State.load(path, key)                          # None where there is no file yet
    state.save(path)                                       # written beside it, then renamed over it

`key` is a checksum of all that the run depends on. A file of another run, or one that is no such file, is refused and
left alone. Safetensors: nothing in it is executed.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from parcae_mobile.errors import InputError, reason_of
from parcae_mobile.tensor_file import read_shapes

DAMAGED = (SafetensorError, OSError, LookupError, ValueError, TypeError, RuntimeError, MemoryError)
MOST_GENERATOR = 100_000  # bytes of a random generator's state
FORMAT = "parcae-mobile learned rounding 1"


class _NoStateError(InputError):
    """A file that is no safetensors file: here, that it is no state counts more than why."""


@dataclass
class Counters:
    """Where a run stands: steps done, seconds spent, self-written windows taken, the best held-back KL and its step."""

    step: int = 0
    seconds: float = 0.0
    taken: int = 0
    best_kl: float = float("inf")
    best_step: int = 0
    first_kl: float = float("inf")
    done: bool = False


@dataclass
class State:
    """`tensors`: trained values, the optimizer's moments, the best values and the generator, all by name."""

    key: str
    counters: Counters
    tensors: dict[str, Tensor]
    curve: list[tuple[int, float, float]] = field(default_factory=list)  # step, training KL, held-back KL

    def save(self, path: Path) -> None:
        """Replace the file in one step. Raises `InputError` where it cannot be written."""
        values = {"format": FORMAT, "key": self.key, "counters": asdict(self.counters), "curve": self.curve}
        part = path.with_name(path.name + ".part")
        try:
            save_file({n: t.contiguous() for n, t in self.tensors.items()}, part, {"state": json.dumps(values)})
            os.replace(part, path)
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path}: cannot be written ({error}); give --learn-state another place") from None

    @classmethod
    def load(cls, path: Path, key: str, trained: Mapping[str, Tensor] | None = None) -> State | None:
        """The state in a file, None if there is none. Raises `InputError` for a file of another run or kind.

        With the run's `trained` tensors the sizes in the file are compared with theirs before any is read.
        """
        if not path.exists():
            return None
        try:
            shapes = read_shapes(path, _NoStateError)
            with safe_open(path, "pt") as file:
                values = json.loads((file.metadata() or {})["state"])
                if values["format"] != FORMAT:
                    raise KeyError(values["format"])
                if values["key"] != key:
                    raise InputError(
                        f"{path}: of a run with another model, recipe, text or settings; give --learn-state a new file"
                    )
                counters, curve = _counters(values["counters"]), [_point(row) for row in values["curve"]]
                if trained is not None:
                    _check_shapes(shapes, trained)
                tensors = {name: file.get_tensor(name) for name in shapes}
            torch.Generator().set_state(tensors["generator"])
        except (_NoStateError, *DAMAGED) as error:
            raise InputError(
                f"{path}: not a state of learned rounding ({reason_of(error)}); give --learn-state a new file"
            ) from None
        return cls(key, counters, tensors, curve)


def _counters(values: dict[str, Any]) -> Counters:
    """Counters whose values are of the declared kinds. Raises `ValueError` or `TypeError`."""
    counters = Counters(**values)
    for name, value in vars(counters).items():
        kind = type(getattr(Counters(), name))
        if isinstance(value, bool) is not (kind is bool) or not isinstance(value, int | float):
            raise ValueError(f"{name} = {str(value)[:40]}")
        if value < 0 or (kind is int and not isinstance(value, int)):
            raise ValueError(f"{name} = {value}")
    return counters


def _point(row: Any) -> tuple[int, float, float]:
    step, training, held_back = row
    return int(step), float(training), float(held_back)


def _check_shapes(shapes: Mapping[str, tuple[int, ...]], trained: Mapping[str, Tensor]) -> None:
    """Raise `ValueError` unless a file holds the run's tensors, their moments and best values, in their shapes."""
    if missing := sorted({"generator", *trained} - set(shapes)):
        raise ValueError(f"{missing[0]} is missing")
    if math.prod(shapes["generator"]) > MOST_GENERATOR:
        raise ValueError(f"generator has shape {shapes['generator']}")
    for name, shape in shapes.items():
        known = name.removeprefix("best.").removesuffix(".mean").removesuffix(".square")
        if name != "generator" and (known not in trained or shape != tuple(trained[known].shape)):
            raise ValueError(f"{name[:80]} has shape {shape}")


def checksum(settings: str, tensors: Iterable[Tensor]) -> str:
    """SHA-256 of settings and the values of tensors."""
    digest = hashlib.sha256(settings.encode())
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
