"""States of a program between predictions, and which of them predictions may write to (overwriting.py)."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping

from torch import Tensor

from export.targets.coreml.mil.overwriting import Own, owned


class MilState:
    """States between predictions: fp16 tensors by name. `predict` replaces them, and only on success.

    A tensor that was given to a caller, or came from one, is never written to: `own` are the others.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = dict(tensors)
        self.own: Own = {}

    @classmethod
    def owning(cls, tensors: Mapping[str, Tensor]) -> MilState:
        """A state of tensors that nobody else holds."""
        state = cls(tensors)
        state.own = {id(tensor): weakref.ref(tensor) for tensor in tensors.values()}
        return state

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All of them, as they are."""
        self.own = {}
        return self._tensors

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def __setitem__(self, name: str, tensor: Tensor) -> None:
        self._tensors[name] = tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def clone(self) -> MilState:
        """A copy that later predictions on this state do not touch."""
        return MilState({name: tensor.clone() for name, tensor in self._tensors.items()})

    def begun(self) -> dict[str, Tensor]:
        """What a prediction begins with."""
        return dict(self._tensors)

    def replace(self, tensors: dict[str, Tensor], own: Own) -> None:
        """What a prediction ended with, and what of it nobody else holds."""
        self._tensors = tensors
        self.own = {id(tensor): own[id(tensor)] for tensor in tensors.values() if owned(own, tensor)}
