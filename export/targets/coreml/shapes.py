"""Which shapes and formats a Core ML package takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from export.targets.shapes import Asked

LONGEST = 2048  # positions that an fp16 state counts exactly


def refusal(asked: Asked) -> str | None:
    """Why Core ML cannot write this, None if it can."""
    if asked.options.loop_form == "unrolled" and asked.options.context > LONGEST:
        return (
            f"Core ML: --context {asked.options.context}: a static package counts tokens in an fp16 state, which is "
            f"exact up to {LONGEST}"
        )
    for name, rule in asked.rules.items():
        if rule.bits not in (4, 8):
            return f"Core ML: {name} has {rule.bits} bits, and packages hold 4 and 8"
    return None
