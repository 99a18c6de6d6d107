"""JSON files that users hand in: read strictly, and refused in one line that names the file.

values = read_object(folder / "config.json", ConfigError)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .errors import InputError


def read_object(path: Path, error: type[InputError]) -> dict[str, Any]:
    """The object that a UTF-8 file (with or without a byte-order mark) holds. Raises `error` for anything else."""
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as problem:  # ValueError: no UTF-8, no JSON, or a number too long
        raise error(f"{path}: not readable as JSON ({_first_line(problem)}); copy or save it again") from None
    if not isinstance(values, dict):
        raise error(f"{path}: holds a {type(values).__name__}, not an object of named values")
    return values


def _first_line(problem: Exception) -> str:
    text = problem.strerror if isinstance(problem, OSError) and problem.strerror else str(problem)
    return text.splitlines()[0] if text else type(problem).__name__
