"""Slices written into a state's own memory, where nothing can tell that from a copy.

    overwriting = Overwriting(overwritable(blocks), states, own)
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
    found = {}
    for block in blocks:
        for index, operation in enumerate(block.operations):
            if operation.type != "slice_update" or _name(operation, "x") not in block.release[index]:
                continue
            result, touched = operation.outputs[0].name, set[str]()
            states = set[str]()
            for later in block.operations[index + 1 :]:
                if later.type in WRITTEN and _name(later, WRITTEN[later.type]) == result:
                    states |= set(_states(later)) - touched
                touched.update(_states(later))
            found[id(operation)] = frozenset(states)
    return found


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


class Overwriting:
    """What one run of a function may overwrite. `states` is the run's own mapping, which it replaces in place."""

    def __init__(self, found: Mapping[int, frozenset[str]], states: Mapping[str, Tensor], own: Own) -> None:
        self.found, self.states = found, states
        self.own = dict(own)
        self._given = set(own)  # held by the states before the run, so to be restored if it fails
        self._before: list[tuple[Tensor, Any, Tensor]] = []

    def of(self, operation: Operation, x: Tensor, live: Iterable[Value]) -> Writable:
        """Where an update of `x` may be written: its own memory, or a copy if something else could see that.

        `live` are all values that may be read later, x among them.
        """
        states, memory = self.found.get(id(operation)), _memory(x)
        if states is None or not x.numel() or not owned(self.own, x):
            return copied
        holders = {name for name, held in self.states.items() if _memory(held) == memory}
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
    kept = own.get(id(tensor))
    return kept is not None and kept() is tensor


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
