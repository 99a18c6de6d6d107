"""Files to tensors: safetensors first, pickles as plain tensors only, and nothing that would run code.

    checkpoint = read_checkpoint(folder)               # configuration, tensors by their saved names, notes

A training checkpoint also holds the optimizer, several times the model. It is mapped, not read: only the pages of the
model's tensors come into memory.
"""

from __future__ import annotations

import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..config import ParcaeConfig
from ..errors import CheckpointError, MissingTensorError, UnsafeCheckpointError, reason_of
from ..given_file import check_regular
from ..tensor_file import read_shapes
from . import pickle_file, training_output
from .find import find_weights
from .names import without_wrappers
from .room import Room

# What the restricted unpickler raises for a file that is cut off or overwritten.
DAMAGED = (
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    MemoryError,
    OverflowError,
    struct.error,
    zipfile.BadZipFile,
)
LEGACY_BYTES = 16  # of a file that cannot be mapped, for each value of a model: optimizer included
# What the original's trainer puts beside the model: its own records. Inert stand-ins take their place.
_TRAINER_RECORDS = ("cost.", "recpre.", "parcae_lm.tokenizer.", "pathlib.", "numpy.", "torchdata.", "collections.deque")


@dataclass
class Checkpoint:
    """A checkpoint after its tensors were read, wrappers' markers dropped; `notes` are for the user.

    `training_tokenizer` is what a training run says of its tokenizer.
    """

    folder: Path
    config: ParcaeConfig
    tensors: dict[str, Tensor]
    notes: list[str] = field(default_factory=list)
    training_tokenizer: str | None = None


class _Unread:
    """Stands in for an object that nobody needs: it takes any arguments and any state, and does nothing."""

    def __new__(cls, *arguments: Any, **keywords: Any) -> _Unread:
        return object.__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass


def read_checkpoint(folder: Path, checkpoint: str | None = None) -> Checkpoint:
    """Configuration and tensors of a folder, without checking them against each other.

    `checkpoint` chooses one of a training run's files. Raises a `CheckpointError` or `ConfigError`.
    """
    trained = training_output.is_training_output(folder)
    config = None if trained else ParcaeConfig.from_file(folder / "config.json")
    values = training_output.configuration(folder) if trained else {}
    weights = find_weights(folder, checkpoint)
    name, notes = weights.files[0].name, []
    room = None if config is None else Room.of(config)
    tensors: dict[str, Tensor] = {}
    for file in weights.files:
        if not weights.pickled:
            if room is None:
                room = Room.of(training_output.parsed(folder, values))
            tensors |= _read_safetensors(file, weights.places, room)
            continue
        content = _read_pickle(file, room)
        if trained and isinstance(content.get("model_config"), dict):
            own = pickle_file.plain_values(file, content["model_config"])
            notes += training_output.differences(values, own)
            values = own
        if trained:
            room = Room.of(training_output.parsed(folder, values))
        tensors |= _placed(_state_dict(file, content, room), file, weights.places)
    if weights.training:
        count = len(training_output.checkpoints(folder))
        notes.insert(0, f"a training run's output: read {name}" + (f", of {count} checkpoints" if count > 1 else ""))
    elif weights.pickled:
        notes.append(f"{name} is a pickle; it was read as plain tensors only (parcae-export convert makes safetensors)")
    if config is None:
        config = training_output.parsed(folder, values)
    tokenizer = training_output.tokenizer_path(folder) if trained else None
    return Checkpoint(folder, config, without_wrappers(tensors), notes, tokenizer)


def read_config(folder: Path) -> ParcaeConfig:
    """The configuration of a checkpoint folder alone. Raises `ConfigError`."""
    if training_output.is_training_output(folder):
        return training_output.parsed(folder, training_output.configuration(folder))
    return ParcaeConfig.from_file(folder / "config.json")


def _read_safetensors(file: Path, places: Mapping[str, str] | None, room: Room) -> dict[str, Tensor]:
    shapes = read_shapes(file, CheckpointError)
    wanted = list(shapes) if places is None else _wanted(list(shapes), file, places)
    room.check(file, {name: shapes[name] for name in wanted})
    try:
        with safe_open(file, framework="pt") as opened:
            return {name: opened.get_tensor(name) for name in wanted}
    except (SafetensorError, OSError, ValueError, KeyError, MemoryError) as error:
        raise CheckpointError(f"{file}: not a readable safetensors file ({error}); copy it again") from None


def _placed(tensors: dict[str, Tensor], file: Path, places: Mapping[str, str] | None) -> dict[str, Tensor]:
    return tensors if places is None else {name: tensors[name] for name in _wanted(list(tensors), file, places)}


def _wanted(stored: list[str], file: Path, places: Mapping[str, str]) -> list[str]:
    """The tensors that the index reads from this file: a copy that it does not name is a stale one."""
    names = [name for name, place in places.items() if place == file.name]
    missing = sorted(set(names) - set(stored))
    if missing:
        raise MissingTensorError(f"the index says that {file} holds {missing[0]}, and it does not; copy it again")
    return names


def _read_pickle(file: Path, room: Room | None) -> dict[Any, Any]:
    """What a pickle holds, with large parts mapped and not read where the model is only one part of it."""
    size = check_regular(file, CheckpointError)
    if not zipfile.is_zipfile(file):  # the format before torch 1.6, which cannot be mapped
        if room is not None and size > LEGACY_BYTES * room.total:
            raise CheckpointError(f"{file}: {size} bytes are too many for this model; is it this model's file?")
        pickle_file.check_plain(file)
        return _load(file, mapped=False)
    pickle_file.check_archive(file)
    content = _load(file, mapped=True)
    if all(isinstance(value, Tensor) for value in content.values()):
        if room is not None:
            pickle_file.check_sizes(file, content, room)
        return _load(file, mapped=False)  # nothing but a model: read it whole, which checks its checksums
    return content


def _load(file: Path, mapped: bool) -> dict[Any, Any]:
    try:
        with torch.serialization.safe_globals(_stand_ins(file)), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's remarks on the pickle's protocol
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise UnsafeCheckpointError(_unsafe(file, str(error))) from None
    except DAMAGED as error:
        if "DTensor" in str(error) or "DeviceMesh" in str(error):
            raise UnsafeCheckpointError(_unsafe(file, "DTensor")) from None
        raise CheckpointError(f"{file}: not a readable checkpoint ({reason_of(error)}); copy it again") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{file}: does not hold a state dict of tensors")
    return content


def _state_dict(file: Path, content: dict[Any, Any], room: Room | None) -> dict[str, Tensor]:
    nested = False
    for key in ("model", "state_dict"):
        if isinstance(content.get(key), dict):
            content, nested = content[key], True
    if not content or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f"{file}: does not hold a state dict of tensors")
    if any(type(value).__name__ == "DTensor" for value in content.values()):
        raise UnsafeCheckpointError(_unsafe(file, "DTensor"))
    if room is not None:
        pickle_file.check_sizes(file, content, room)
    return {str(name): value.clone() if nested else value for name, value in content.items()}


def _stand_ins(file: Path) -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """Inert stand-ins for the trainer's own records in a file; anything else stays refused."""
    try:
        named = torch.serialization.get_unsafe_globals_in_checkpoint(file)
    except (*DAMAGED, pickle.UnpicklingError):
        return []
    return [(_Unread, name) for name in named if name.startswith(_TRAINER_RECORDS)]


def _unsafe(file: Path, reason: str) -> str:
    """What to do about a file that plain tensors cannot be read from, with the code that converts it."""
    load = f"s = torch.load({str(file)!r}, map_location='cpu', weights_only=False)"
    if "DTensor" in reason:
        whole = "{k: v.full_tensor() if hasattr(v, 'full_tensor') else v for k, v in s['model'].items()}"
        return (
            f"{file}: holds tensors that are split over processes (DTensor); convert it where it was trained: "
            f"import torch; {load}; torch.save({whole}, 'model.pt')"
        )
    part = "s.state_dict()" if "parcae_lm.models" in reason or "torch.nn.modules" in reason else "s['model']"
    return (
        f"{file}: the pickle holds more than tensors and was not executed; if you trust it, convert it: "
        f"import torch; {load}; torch.save({part}, 'model.pt')"
    )
