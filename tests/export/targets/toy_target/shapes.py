"""Takes every shape."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from export.targets.shapes import Asked


def refusal(asked: Asked) -> str | None:
    return None
