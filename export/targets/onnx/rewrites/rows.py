"""Where a stage ends in a choice of positions, what comes after its last attention is computed for those alone.

    early = rows_first(graph)          # early.inside: nodes that see chosen rows only; early.inputs: to choose from

Logits of a prompt are wanted at one position. The last layer's keys and values need all of them, its output projection
and MLP do not: a choice of rows commutes with whatever treats rows one by one.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

aten = torch.ops.aten
ROW_BY_ROW = {
    *(aten.linear.default, aten.rms_norm.default, aten.layer_norm.default, aten.chunk.default, operator.getitem),
    *(aten.add.Tensor, aten.mul.Tensor, aten.div.Tensor, aten.square.default, aten.clamp.default),
    *(aten.relu.default, aten.sigmoid.default, aten.tanh.default, aten.gelu.default, aten.silu.default),
}


@dataclass(frozen=True)
class EarlyRows:
    """Nodes that compute chosen rows only, the values that they take from outside, and the positions."""

    inside: tuple[fx.Node, ...]
    inputs: tuple[fx.Node, ...]
    positions: Any


def rows_first(graph: fx.Graph) -> EarlyRows | None:
    """The choice of a stage moved as far up as it goes; None if it has no choice or it cannot move."""
    chosen = [node for node in graph.nodes if node.target is aten.index_select.default and node.args[1] == 1]
    if len(chosen) != 1:
        return None
    (select,) = chosen
    inside, inputs = {select}, []
    nodes = list(graph.nodes)
    for node in reversed(nodes[: nodes.index(select)]):
        if inside.isdisjoint(node.users) or not _has_rows(node):
            continue
        if _row_by_row(node) and inside.issuperset(node.users):
            inside.add(node)
        else:
            inputs.append(node)
    inside.remove(select)
    first = min((nodes.index(node) for node in inside), default=len(nodes))
    late = [user for node in inputs for user in node.users if user not in inside and nodes.index(user) > first]
    if not inside or late:
        return None
    return EarlyRows(tuple(node for node in nodes if node in inside), tuple(reversed(inputs)), select.args[2])


def _has_rows(node: Any) -> bool:
    """Whether a value has one row for each token: parameters and positions have not."""
    value = node.meta.get("val")
    shape: Any = value[0].shape if isinstance(value, list | tuple) else getattr(value, "shape", ())
    return len(shape) == 3 and not isinstance(shape[1], int)


def _row_by_row(node: Any) -> bool:
    if node.target is operator.getitem:
        return node.args[0].target is aten.chunk.default  # not a part of attention's result
    return node.target in ROW_BY_ROW
