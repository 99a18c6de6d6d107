"""Vector files: JSON in ASCII with one case on a line, so that a change shows in a diff where it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FORMAT = 1
Cases = dict[str, list[dict[str, Any]]]


def vector_text(about: str, cases: Cases, **facts: Any) -> str:
    """The text of a vector file: what it is about, facts that hold for all, and lists of cases."""
    parts = [f'"format": {FORMAT}', f'"about": {_line(about)}']
    parts += [f"{_line(name)}: {_line(value)}" for name, value in facts.items()]
    for name, rows in cases.items():
        lines = ",\n  ".join(_line(row) for row in rows)
        parts.append(f"{_line(name)}: [\n  {lines}\n ]")
    return "{\n " + ",\n ".join(parts) + "\n}\n"


def write_vectors(path: Path, about: str, cases: Cases, **facts: Any) -> None:
    """Write a vector file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(vector_text(about, cases, **facts), encoding="ascii")


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True, allow_nan=False)
