"""The header of a safetensors file: which tensors it holds and how large they are, before any of them is read.

shapes = read_shapes(path, CheckpointError)            # {"lm_head.weight": (512, 64), ...}

The library checks offsets and lengths when it opens the file; here stand the checks that it leaves to its user.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from .errors import InputError, reason_of
from .given_file import check_regular
from .json_file import parse

MOST_HEADER = 16_000_000  # bytes: room for a hundred thousand tensors
MOST_DIMENSIONS = 8


def read_shapes(path: Path, error: type[InputError]) -> dict[str, tuple[int, ...]]:
    """Shapes by name, as the header states them. Raises `error` for a header that cannot be one."""
    size = check_regular(path, error)
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(MOST_HEADER, size - 8):
                raise error(f"{path}: not a readable safetensors file (a header of {length} bytes); copy it again")
            header = parse(file.read(length).decode("utf-8"))
    except (OSError, ValueError, RecursionError) as problem:
        raise error(f"{path}: not a readable safetensors file ({reason_of(problem)}); copy it again") from None
    if not isinstance(header, dict):
        raise error(f"{path}: not a readable safetensors file (its header is no object); copy it again")
    header.pop("__metadata__", None)
    shapes: dict[str, tuple[int, ...]] = {}
    for name, entry in header.items():
        shape = entry.get("shape") if isinstance(entry, dict) else None
        if not isinstance(shape, list) or len(shape) > MOST_DIMENSIONS or not all(_is_size(part) for part in shape):
            raise error(f"{path}: {name[:200]} has no usable shape in the header; copy the file again")
        shapes[name] = tuple(shape)
    return shapes


def check_room(
    path: Path, shapes: Mapping[str, tuple[int, ...]], largest: int, total: int, error: type[InputError]
) -> None:
    """Raise `error` if a tensor has more than `largest` values, or all together more than `total`."""
    values = 0
    for name, shape in shapes.items():
        count = math.prod(shape)
        if count > largest:
            raise error(f"{path}: {name[:200]} has shape {shape}, larger than any of this model; is it its file?")
        values += count
    if values > total:
        raise error(f"{path}: {values} values where this model has room for {total}; is it this model's file?")


def _is_size(part: object) -> bool:
    return isinstance(part, int) and not isinstance(part, bool) and 0 <= part < 2**48
