"""Which texts the steps of an export read, and how much of them: windows of token ids.

windows = calibration_windows(source, file)            # (n, length + 1) ids to quantize by
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from export.source import Source

WINDOW = 256
CALIBRATION_WINDOWS = 32
SMALL_MODEL = 50_000_000  # parameters; larger models are judged on fewer texts


def calibration_windows(source: Source, file: Path | None, most: int = CALIBRATION_WINDOWS) -> Tensor:
    """(n, length) ids to quantize by: up to `most` windows of 256 tokens of calibration text."""
    length = min(WINDOW, source.model.config.context) - 1
    text = source.text("calibration", file)
    return text.windows(min(most, max(1, len(text.ids) // (length + 1))), length)


def windows_for(source: Source, split: str, file: Path | None, count: int, length: int) -> Tensor:
    """(n, length + 1) ids, n at most `count`: fewer for a large model, seeded ids where there is no tokenizer."""
    count = text_count(source, count)
    return source.text(split, file, count * (length + 1)).windows(count, length)


def text_count(source: Source, count: int) -> int:
    """How many texts a model is judged on: a quarter of `count` for a large one, at least 2."""
    parameters = sum(parameter.numel() for parameter in source.model.parameters())
    return count if parameters < SMALL_MODEL else max(2, count // 4)
