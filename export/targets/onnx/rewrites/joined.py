"""Queries and keys of one layer as one matrix product: the same integers, the rows of both matrices in one initializer.

    for attention, query, key in query_key_pairs(graph): ...
    join([queries, keys]), joined_name("0.attn.c_q.weight", "0.attn.c_k.weight")        # "0.attn.c_q.weight+c_k.weight"

One product, one norm and one rounding of the input instead of two each, for every loop of every token.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from quantize.tensor import QuantizedTensor

aten = torch.ops.aten


@dataclass(frozen=True)
class Branch:
    """How queries (or keys) reach attention: product, heads split off, norm without a weight."""

    linear: Any
    view: Any
    norm: Any

    @property
    def nodes(self) -> tuple[fx.Node, ...]:
        return self.linear, self.view, self.norm


def query_key_pairs(graph: fx.Graph) -> Iterator[tuple[fx.Node, Branch, Branch]]:
    """Attention nodes of a traced stage whose queries and keys are made alike from the same input."""
    for node in graph.nodes:
        if node.target is torch.ops.parcae.cached_attention.default:
            query, key = (_branch(value) for value in node.args[:2])
            if query is not None and key is not None and query.linear.args[0] is key.linear.args[0]:
                yield node, query, key


def joinable(tensors: Sequence[QuantizedTensor | None]) -> bool:
    """Whether matrices can lie in one initializer: all quantized, in one symmetric format."""
    formats = {None if t is None else (t.bits, t.group_size, t.shape[1], t.symmetric) for t in tensors}
    return len(formats) == 1 and all(t is not None and t.symmetric for t in tensors)


def join(tensors: Sequence[QuantizedTensor]) -> QuantizedTensor:
    """The rows of `joinable` matrices, one after another."""
    integers, scales = (torch.cat([getattr(t, part) for t in tensors]) for part in ("integers", "scales"))
    return QuantizedTensor(integers, scales, tensors[0].bits, tensors[0].group_size)


def joined_name(first: str, second: str) -> str:
    """The initializer's name: the first parameter's, and the last two parts of the second one's."""
    return f"{first}+{'.'.join(second.split('.')[-2:])}"


def _branch(norm: Any) -> Branch | None:
    """The three nodes that end in `norm`, if each serves only the next."""
    nodes, node = [], norm
    for target in (aten.rms_norm.default, aten.view.default, aten.linear.default):
        if not isinstance(node, fx.Node) or node.target is not target or len(node.users) != 1:
            return None
        nodes.append(node)
        node = node.args[0]
    norm, view, linear = nodes
    plain = all(len(n.args) < 3 or n.args[2] is None for n in (norm, linear)) and len(norm.args) < 4
    return Branch(linear, view, norm) if plain else None
