"""States between predictions, and slices written into their memory where nothing can tell that from a copy.

    state = MilState.owning(tensors)
    overwriting = Overwriting(overwritable(blocks), state.begun(), state.own)
    overwriting.of(operation, x, live)(x, index)           # the tensor to write the slice into: x, or a copy
    overwriting.undo()                                     # after a failure: as if nothing had been written

A cache holds the whole context and a chunk's update touches a few positions of one slot. With a copy for each update,
copying was most of what a prediction took. `slice_update` may overwrite its `x` where all of this holds: it is x's last
use; x's memory was made here and no caller was given it; no other live value lies in it; and a state that holds it is
given the result before anything reads the state again. The first two of these, but for the caller, and the last are
read off the program (`overwritable`), the others are looked at each time.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor

from export.targets.coreml.mil.program import Block, Operation, Reference
from export.targets.coreml.mil.registry import Value, Writable, copied

Own = dict[int, "weakref.ref[Tensor]"]  # by id: tensors whose memory nobody else was given

STATE_ARGUMENT = {"read_state": "input", "write_state": "input", "coreml_update_state": "state"}
WRITTEN = {"write_state": "data", "coreml_update_state": "value"}


def overwritable(blocks: Iterable[Block]) -> dict[int, frozenset[str]]:
    """By id, the updates whose `x` is not used again, with the states that are given their result before a read."""
    candidates = {}
    for block in blocks:
        for index, operation in enumerate(block.operations):
            if operation.type != "slice_update" or _name(operation, "x") not in block.release[index]:
                continue
            result, accesses = operation.outputs[0].name, set[str]()
            states = set[str]()
            for later in block.operations[index + 1 :]:
                if later.type in WRITTEN and _name(later, WRITTEN[later.type]) == result:
                    states |= set(_states(later)) - accesses
                accesses.update(_states(later))
            candidates[id(operation)] = frozenset(states)
    return candidates


def _states(operation: Operation) -> Iterator[str]:
    """The states that an operation, or a block in it, reads or writes."""
    if operation.type in STATE_ARGUMENT:
        yield _name(operation, STATE_ARGUMENT[operation.type])
    for block in operation.blocks:
        for inner in block.walk():
            yield from _states(inner)


def _name(operation: Operation, parameter: str) -> str:
    arguments = operation.inputs.get(parameter, ())
    return arguments[0].name if len(arguments) == 1 and isinstance(arguments[0], Reference) else ""


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


class Overwriting:
    """What one run of a function may overwrite. `states` is the run's own mapping, which it replaces in place."""

    def __init__(self, candidates: Mapping[int, frozenset[str]], states: Mapping[str, Tensor], own: Own) -> None:
        self.candidates, self.states = candidates, states
        self.own = dict(own)
        self._given = set(own)  # held by the states before the run, so to be restored if it fails
        self._before: list[tuple[Tensor, Any, Tensor]] = []

    def of(self, operation: Operation, x: Tensor, live: Iterable[Value]) -> Writable:
        """Where an update of `x` may be written: its own memory, or a copy if something else could see that.

        `live` are all values that may be read later, x among them.
        """
        states, memory = self.candidates.get(id(operation)), _memory(x)
        if states is None or not x.numel() or not owned(self.own, x):
            return copied
        holders = {name for name, tensor in self.states.items() if _memory(tensor) == memory}
        if len(holders) > 1 or not holders <= states:
            return copied
        return copied if sum(_memory(value.data) == memory for value in live) > 1 else self._write

    def made(self, tensor: Tensor) -> None:
        """Remember the result of an update that was a copy: its memory is this run's own."""
        self.own[id(tensor)] = weakref.ref(tensor)

    def undo(self) -> None:
        """Restore what the states held before the run."""
        for tensor, index, content in reversed(self._before):
            tensor[index] = content

    def _write(self, tensor: Tensor, index: Any) -> Tensor:
        if id(tensor) in self._given:
            self._before.append((tensor, index, tensor[index].clone()))
        return tensor


def owned(own: Own, tensor: Tensor) -> bool:
    """Whether a tensor is among those of one's own; an id alone may be that of one that is gone."""
    reference = own.get(id(tensor))
    return reference is not None and reference() is tensor


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
