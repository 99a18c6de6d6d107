"""How much a configuration leaves room for: asked before a checkpoint's tensors take memory.

    room = Room.of(config)
    room.check(file, {"transformer.wte.weight": (50304, 768)})

A file may hold a tied table twice and names that the configuration does not know, which are refused by name later; it
may not hold a tensor larger than any of the model's, or more than twice the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from ..config import ParcaeConfig
from ..errors import TensorShapeError
from ..model import Parcae
from ..tensor_file import check_room

SLACK = 65_536  # values: of small tensors that the model does not need


@dataclass(frozen=True)
class Room:
    """Values (not bytes) of the largest tensor and of all together."""

    largest: int
    total: int

    @classmethod
    def of(cls, config: ParcaeConfig) -> Room:
        """The room of a configuration, from the model on the meta device, which takes no memory."""
        with torch.device("meta"):
            model = Parcae(config)
        counts = [tensor.numel() for tensor in model.state_dict().values()] + [model.rope.numel()]
        return cls(max(counts), 2 * sum(counts) + SLACK)

    def check(self, file: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Raise `TensorShapeError` for a tensor that is too large, or for too many values."""
        check_room(file, shapes, max(self.largest, SLACK), self.total, TensorShapeError)
