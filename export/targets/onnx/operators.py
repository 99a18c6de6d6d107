"""Operators of a traced stage that are at most two ONNX nodes, whatever the flavour.

PLAIN[node.target](low, node)                          # the name of its value (or the list of names)
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import fx

from export.targets.onnx.nodes import StageNodes

aten = torch.ops.aten


def _binary(op: str) -> Callable[[StageNodes, Any], str]:
    return lambda low, node: low.emit(op, [low.operand(node.args[0]), low.operand(node.args[1])])


def _unary(op: str) -> Callable[[StageNodes, Any], str]:
    return lambda low, node: low.emit(op, [low.operand(node.args[0])])


def _twice(low: StageNodes, node: Any) -> str:
    x = low.operand(node.args[0])
    return low.emit("Mul", [x, x])


def _alias(low: StageNodes, node: Any) -> Any:
    source = node.args[0]
    if source in low.parameters:
        low.parameters[node] = low.parameters[source]
        return None
    return low.operand(source)


def _silu(low: StageNodes, node: Any) -> str:
    x = low.operand(node.args[0])
    return low.emit("Mul", [x, low.emit("Sigmoid", [x])])


def _index_select(low: StageNodes, node: Any) -> str:
    x = low.operand(node.args[0])
    return x if low.rows_settled else low.emit("Gather", [x, low.operand(node.args[2])], axis=node.args[1])


def _select(low: StageNodes, node: fx.Node) -> str:
    index = low.constant(np.array(node.args[2], np.int64))
    return low.emit("Gather", [low.operand(node.args[0]), index], axis=node.args[1])


def _unsqueeze(low: StageNodes, node: Any) -> str:
    return low.emit("Unsqueeze", [low.operand(node.args[0]), low.constant(np.array([node.args[1]], np.int64))])


def _layer_norm(low: StageNodes, node: Any) -> str:
    inputs = [low.operand(value) for value in (node.args[0], node.args[2], node.args[3])]
    return low.emit("LayerNormalization", inputs, axis=-1, epsilon=node.args[4])


def _slice(low: StageNodes, node: Any) -> str:
    x, axis, start, end = node.args
    bounds = [low.constant(np.array([value], np.int64)) for value in (start, min(end, 2**62), axis)]
    return low.emit("Slice", [low.operand(x), *bounds])


def _clamp(low: StageNodes, node: Any) -> str:
    return low.emit("Clip", [low.operand(value) for value in node.args])


def _chunk(low: StageNodes, node: Any) -> list[str]:
    return low.emit("Split", [low.operand(node.args[0])], outputs=node.args[1], axis=-1, num_outputs=node.args[1])


def _concatenate(low: StageNodes, node: Any) -> str:
    axis = node.args[1] if len(node.args) > 1 else 0
    return low.emit("Concat", [low.operand(value) for value in node.args[0]], axis=axis)


PLAIN: dict[Any, Callable[[StageNodes, Any], Any]] = {
    aten.layer_norm.default: _layer_norm,
    aten.slice.Tensor: _slice,
    aten.clamp.default: _clamp,
    aten.chunk.default: _chunk,
    aten.cat.default: _concatenate,
    aten.add.Tensor: _binary("Add"),
    aten.mul.Tensor: _binary("Mul"),
    aten.div.Tensor: _binary("Div"),
    aten.relu.default: _unary("Relu"),
    aten.sigmoid.default: _unary("Sigmoid"),
    aten.tanh.default: _unary("Tanh"),
    aten.gelu.default: _unary("Gelu"),
    aten.silu.default: _silu,
    aten.square.default: _twice,
    aten.index_select.default: _index_select,
    aten.select.int: _select,
    aten.unsqueeze.default: _unsqueeze,
    aten.alias.default: _alias,
    aten.to.dtype: lambda low, node: low.operand(node.args[0]),
    aten.sym_size.int: lambda low, node: None,
    aten._assert_tensor_metadata.default: lambda low, node: None,
    operator.getitem: lambda low, node: low.values[node.args[0]][node.args[1]],
}
