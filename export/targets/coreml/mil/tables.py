"""Large compressed tables of which a program gathers rows: only those rows are decoded.

    table = table_of(operation, whole=lambda: ...)          # None: a constant like others
    table.rows(indices, constants, compute, where)          # the rows and where each index finds its own

An embedding table of a large model has more values than all of its other weights, and a token reads one row of it. As a
whole it is decoded only where something else than a gather along the first axis wants it, as a tied head does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from export.targets.coreml.mil.constants import Constants
from export.targets.coreml.mil.program import Blob, Immediate, Operation, Reference
from export.targets.coreml.mil.registry import OPERATORS, Arguments, Value

LEAST_VALUES = 2**24  # of a table; a smaller one is decoded once
# What holds a value for each of the result's, and what says how to read a row of it.
PARTS = {
    "constexpr_blockwise_shift_scale": ("data", frozenset({"scale", "offset"})),
    "constexpr_lut_to_dense": ("indices", frozenset({"lut"})),
}


@dataclass(frozen=True)
class Table:
    """A constant that was not decoded; `whole` decodes it."""

    operation: Operation
    whole: Callable[[], Value]

    @property
    def length(self) -> int:
        """How many rows it has."""
        (blob,) = self.operation.inputs[PARTS[self.operation.type][0]]
        assert isinstance(blob, Blob)
        return blob.type.sizes[0]

    def rows(self, indices: Tensor, constants: Constants, arguments: Arguments) -> tuple[Tensor, Tensor] | None:
        """The rows that (...) non-negative `indices` want, each once, before rounding, and which of them each wants.

        None for an index that no row has, or a constant that is declared as something else. `arguments` tell how it
        would be computed.
        """
        if indices.numel() == 0 or int(indices.min()) < 0 or int(indices.max()) >= self.length:
            return None
        wanted, places = torch.unique(indices.long(), return_inverse=True)
        inputs: dict[str, tuple[Value | str, ...]] = {}
        for name, (item,) in self.operation.inputs.items():
            assert not isinstance(item, str | Reference)
            if isinstance(item, Blob) and item.type.sizes[0] == self.length:
                inputs[name] = (constants.rows(item, wanted, arguments.where),)
            else:  # one group for all rows
                inputs[name] = (constants.literal(item, arguments.where),)
        arguments.inputs = inputs
        entry = OPERATORS[self.operation.type]
        if entry.result(arguments) != self.operation.outputs[0].type.dtype:
            return None
        result = entry.run(arguments)
        assert isinstance(result, Tensor)
        return result, places.reshape(indices.shape)


def table_of(operation: Operation, whole: Callable[[], Value]) -> Table | None:
    """The table that a `constexpr_` operation makes; None for one that is small or whose rows do not stand alone."""
    if operation.type not in PARTS or len(operation.outputs) != 1:
        return None
    main, others = PARTS[operation.type]
    if main not in operation.inputs or not operation.inputs.keys() - {main} <= others:
        return None
    items = {name: item for name, group in operation.inputs.items() for item in group}
    stored = {name: item for name, item in items.items() if isinstance(item, Blob | Immediate)}
    if stored.keys() != operation.inputs.keys() or any(len(group) != 1 for group in operation.inputs.values()):
        return None
    shapes = {name: item.type.sizes for name, item in stored.items()}
    shape = shapes[main]
    if len(shape) != 2 or shape[0] < 2 or math.prod(shape) < LEAST_VALUES or shape != operation.outputs[0].type.shape:
        return None
    lengths = {name: sizes[0] if len(sizes) > 1 else 0 for name, sizes in shapes.items()}
    in_file = all(isinstance(stored[name], Blob) for name, length in lengths.items() if length > 1)
    return Table(operation, whole) if in_file and set(lengths.values()) <= {1, shape[0]} else None
