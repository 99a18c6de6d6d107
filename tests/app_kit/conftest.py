"""Reads the vectors as an app would: from the JSON files, never from the code that made them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

VECTORS = Path(__file__).parents[2] / "app_kit" / "vectors"


@pytest.fixture(scope="session")
def vectors() -> Callable[[str], dict[str, Any]]:
    """A vector file by name."""

    def read(name: str) -> dict[str, Any]:
        values: dict[str, Any] = json.loads((VECTORS / f"{name}.json").read_text(encoding="ascii"))
        assert values["format"] == 1
        return values

    return read
