"""Checks of a pickled checkpoint around the restricted unpickler, which lets code not run but lets memory be taken.

    check_archive(file)                                # before it is opened: nothing compressed, nothing overlapping
    check_sizes(file, tensors, room)                   # after it was mapped: plain tensors, of possible sizes

The restricted unpickler allows `bytearray(n)`, and an archive's records may be compressed: both turn a small file into
gigabytes.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError, TensorShapeError, TensorValueError, UnsafeCheckpointError, reason_of
from .room import Room

MOST_PICKLE = 64_000_000  # bytes of the pickle itself, without the tensors
_ALLOCATES = b"bytearray"
MOST_RECORDS = 200_000
MOST_VALUES, LONGEST_TEXT = 10_000, 10_000  # of a configuration, parts and characters


def check_archive(file: Path) -> None:
    """Raise `CheckpointError` unless the archive's records are stored as they are and fit into the file."""
    try:
        with zipfile.ZipFile(file) as archive:
            records = archive.infolist()
            if len(records) > MOST_RECORDS:
                raise CheckpointError(f"{file}: {len(records)} records; no checkpoint has so many")
            if any(record.compress_type != zipfile.ZIP_STORED for record in records):
                raise CheckpointError(f"{file}: compressed, which torch.save never does; save it again")
            if sum(record.file_size for record in records) > file.stat().st_size:
                raise CheckpointError(f"{file}: records that overlap or lie outside of the file; copy it again")
            for record in records:
                if record.filename.endswith("data.pkl"):
                    if record.file_size > MOST_PICKLE:
                        raise CheckpointError(f"{file}: {record.file_size} bytes of objects beside its tensors")
                    _refuse_allocation(file, archive.read(record))
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, NotImplementedError, EOFError) as error:
        raise CheckpointError(f"{file}: not a readable checkpoint ({reason_of(error)}); copy it again") from None


def check_plain(file: Path) -> None:
    """The same question to a file that is a pickle itself: its objects lie before its tensors."""
    with file.open("rb") as opened:
        _refuse_allocation(file, opened.read(MOST_PICKLE))


def _refuse_allocation(file: Path, data: bytes) -> None:
    if _ALLOCATES in data:
        raise UnsafeCheckpointError(f"{file}: asks for memory that holds no tensor (bytearray); it was not executed")


def check_sizes(file: Path, tensors: Mapping[Any, Any], room: Room) -> None:
    """Raise a `CheckpointError` for a tensor that is not plain memory, or larger than the model can have.

    What a storage holds beyond its tensor's values counts too, because it is read with them.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    storages: dict[int, int] = {}
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            raise TensorValueError(f"{file}: {str(name)[:200]} is no plain tensor; save it as a dense one on the CPU")
        shapes[str(name)] = tuple(tensor.shape)
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        _check_strides(file, name, tensor)
    room.check(file, shapes)
    if sum(storages.values()) > 8 * room.total:
        raise TensorShapeError(f"{file}: {sum(storages.values())} bytes of storage are too many for this model")


def _check_strides(file: Path, name: Any, tensor: Tensor) -> None:
    """A tensor may be a view of its storage, but not one that repeats values."""
    if math.prod(tensor.shape) * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise TensorShapeError(f"{file}: {str(name)[:200]} has shape {tuple(tensor.shape)} and fewer values; damaged")


def plain_values(file: Path, values: Mapping[Any, Any]) -> dict[str, Any]:
    """A configuration inside of a pickle, if it is small when it is printed.

    Objects of a pickle can contain each other, so that printing one of a hundred bytes takes gigabytes.
    """
    left, waiting = MOST_VALUES, list[Any](values.items())
    while waiting:
        value, left = waiting.pop(), left - 1
        if left < 0 or (isinstance(value, str | bytes) and len(value) > LONGEST_TEXT):
            raise CheckpointError(f"{file}: its model_config is no configuration; save the checkpoint again")
        if isinstance(value, dict):
            waiting += value.items()
        elif isinstance(value, list | tuple | set):
            waiting += value
    if not all(isinstance(name, str) for name in values):
        raise CheckpointError(f"{file}: its model_config has keys that are no texts; save the checkpoint again")
    return dict(values)
