"""JSON files that users hand in: read strictly, and refused in one line that names the file.

values = read_object(folder / "config.json", ConfigError)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .errors import InputError, reason_of
from .given_file import read_text


def read_object(path: Path, error: type[InputError]) -> dict[str, Any]:
    """The object that a UTF-8 file (with or without a byte-order mark) holds. Raises `error` for anything else.

    A name that stands twice in an object is an error too: two readers may take either.
    """
    text = read_text(path, error)
    try:
        values = parse(text)
    except (ValueError, RecursionError) as problem:  # ValueError: no JSON, a name twice, or a number too long
        raise error(f"{path}: not readable as JSON ({reason_of(problem)}); copy or save it again") from None
    if not isinstance(values, dict):
        raise error(f"{path}: holds a {type(values).__name__}, not an object of named values")
    return values


def parse(text: str) -> Any:
    """The value of a JSON text. Raises `ValueError` for bad JSON and for a name twice, `RecursionError` if too deep."""
    return json.loads(text, object_pairs_hook=_once)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            raise ValueError(f"the name {name[:60]!r} stands twice in one object")
        values[name] = value
    return values
