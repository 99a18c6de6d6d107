"""A run of learned rounding in one file, so that it can go on after it was cut off, or be used again when it is done.

    state = State.load(path, key)                          # None where there is no file yet
    state.save(path)                                       # written beside it, then renamed over it

`key` is a checksum of all that the run depends on. A file of another run, or one that is no such file, is refused and
left alone. Safetensors: nothing in it is executed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from parcae_mobile.errors import InputError

FORMAT = "parcae-mobile learned rounding 1"


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
    def load(cls, path: Path, key: str) -> State | None:
        """The state in a file, None if there is none. Raises `InputError` for a file of another run or kind."""
        if not path.exists():
            return None
        try:
            with safe_open(path, "pt") as file:
                values = json.loads((file.metadata() or {})["state"])
                if values["format"] != FORMAT:
                    raise KeyError(values["format"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            counters, curve = Counters(**values["counters"]), [tuple(row) for row in values["curve"]]
        except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
            raise InputError(
                f"{path}: not a state of learned rounding ({error}); give --learn-state a new file"
            ) from None
        if values["key"] != key:
            raise InputError(
                f"{path}: of a run with another model, recipe, text or settings; give --learn-state a new file"
            )
        return cls(key, counters, tensors, curve)


def checksum(settings: str, tensors: Iterable[Tensor]) -> str:
    """SHA-256 of settings and the values of tensors."""
    digest = hashlib.sha256(settings.encode())
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
