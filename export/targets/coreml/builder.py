"""Writes one MIL function: named operations, constants stored once, and a compute type with fp32 islands.

    writer = MilWriter(quantized, compute="fp16")
    with writer.part("recur_0"):
        y = writer.op("linear", x=x, weight=writer.weight("transformer.C.weight"))

The function is written with coremltools' MIL builder and saved as it stands: no optimization pass renames, reorders or
retypes anything, so what stands here is what stands in the package.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from export.targets.coreml.noise import importing, quiet
from parcae_mobile.errors import ToolMissingError
from quantize.apply import QuantizedModel
from quantize.palette import PaletteTensor
from quantize.tensor import QuantizedTensor

with importing():
    import coremltools as ct
    from coremltools.converters.mil.mil import Builder as mb
    from coremltools.converters.mil.mil import Function, get_new_symbol, types

Var = Any  # coremltools' type of a value in a program
TARGET = ct.target.iOS18
FLOATS = {"fp16": np.float16, "fp32": np.float32}
INT4, INT8, UINT4 = types.nptype_from_builtin(types.int4), np.int8, types.nptype_from_builtin(types.uint4)
EMBEDDINGS, HEAD = "transformer.wte.weight", "lm_head.weight"


def write_function(
    specs: Mapping[str, Any], context: int, body: Callable[[Mapping[str, Var]], Sequence[Var]]
) -> Function:
    """A MIL function; `body` gets its inputs and states by name and returns its outputs.

    A symbolic size among the inputs may be 1 to `context`.
    """
    mb.name_count.clear()  # it numbers implicit constants through the process, and names have to repeat
    with quiet(), Function(dict(specs), TARGET) as function:
        function.set_outputs(list(body(function.inputs)))
    inputs = {name: var.shape for name, var in function.inputs.items() if types.is_tensor(var.sym_type)}
    function.set_input_types(
        tuple(
            ct.TensorType(
                name, [size if isinstance(size, int) else ct.RangeDim(1, context, default=1) for size in shape]
            )
            for name, shape in inputs.items()
            if not all(isinstance(size, int) for size in shape)
        )
    )
    return function


def integers(*shape: int | None) -> Any:
    """The specification of an int32 input; None is a size known at run time."""
    return mb.TensorSpec(tuple(get_new_symbol() if size is None else size for size in shape), types.int32)


def floats(*shape: int) -> Any:
    """The specification of an fp32 input."""
    return mb.TensorSpec(shape, types.fp32)


def state(*shape: int) -> Any:
    """The specification of a state, which has to be fp16."""
    return mb.StateTensorSpec(shape, types.fp16)


def identifier(name: str) -> str:
    """A parameter's name as MIL writes names: letters, digits and underscores."""
    return re.sub(r"[^A-Za-z0-9_]", "_", name)


class MilWriter:
    """The function that is being written. Call its methods inside of `mb.function` only."""

    def __init__(self, quantized: QuantizedModel, compute: str) -> None:
        self.quantized, self.compute = quantized, compute
        self._constants: dict[str, Var] = {}
        self._counts: dict[str, int] = {}
        self._part = ""

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Names of operations inside begin with `name`."""
        before, self._part = self._part, f"{name}_"
        try:
            yield
        finally:
            self._part = before

    @contextlib.contextmanager
    def block(self) -> Iterator[None]:
        """A nested block: constants that are made inside are not visible outside of it."""
        before = dict(self._constants)
        try:
            yield
        finally:
            self._constants = before

    def op(self, kind: str, label: str | None = None, **inputs: Any) -> Any:
        """An operation; numbers and arrays among the inputs become constants. Returns its result or results."""
        return getattr(mb, kind)(**inputs, name=self.label(label or kind))

    def label(self, kind: str) -> str:
        """The next free name of this part for an operation."""
        key = f"{self._part}{kind}"
        self._counts[key] = self._counts.get(key, -1) + 1
        return f"{key}_{self._counts[key]}"

    def output(self, x: Var, name: str, dtype: str) -> Var:
        """`x` as an output of the function."""
        if types.builtin_to_string(x.dtype) == dtype:
            return mb.identity(x=x, name=name)
        return mb.cast(x=x, dtype=dtype, name=name)

    def cast(self, x: Var, dtype: str) -> Var:
        """`x` as fp16, fp32 or int32; itself where it is that already."""
        return x if types.builtin_to_string(x.dtype) == dtype else self.op("cast", x=x, dtype=dtype)

    def narrow(self, x: Var) -> Var:
        """`x` in the compute type."""
        return self.cast(x, self.compute)

    def wide(self, x: Var) -> Var:
        """`x` in fp32: where fp16 would overflow (squares) or lose what matters (epsilons, poles)."""
        return self.cast(x, "fp32")

    def constant(self, name: str, value: np.ndarray) -> Var:
        """A named constant; functions of one package that ask for the same name share its bytes."""
        label = identifier(name)
        if label not in self._constants:
            var = mb.const(val=value, name=label)
            var.op.weight_id = f"{label}.{value.dtype}"
            self._constants[label] = var
        return self._constants[label]

    def parameter(self, name: str, tensor: Tensor, dtype: str | None = None) -> Var:
        """A float parameter or buffer, in the compute type unless told otherwise."""
        array = tensor.detach().float().numpy().astype(FLOATS[dtype or self.compute])
        suffix = "" if dtype in (None, self.compute) else f".{dtype}"
        if not np.isfinite(array).all():
            raise ToolMissingError(f"Core ML: {name} holds values beyond fp16's range; use --compute fp32")
        return self.constant(name + suffix, array)

    def matrix(self, name: str, tensor: Tensor) -> Var:
        """A matrix of the model as constant in the compute type: our integers and scales, or indices and palettes,
        where it is quantized."""
        name = EMBEDDINGS if name == HEAD and self.quantized.config.tie_embeddings else name
        stored = self.quantized.stored.get(name)
        if stored is None:
            return self.parameter(name, tensor)
        label = identifier(name)
        if label not in self._constants:
            if isinstance(stored, PaletteTensor):
                self._constants[label] = self._palette(label, stored)
            else:
                self._constants[label] = self._blockwise(label, stored)
        return self._constants[label]

    def _blockwise(self, label: str, tensor: QuantizedTensor) -> Var:
        """Integers (rows, columns) with scales (rows, groups): `scale * (data - offset)` is `tensor.dequantize()`."""
        kind = INT8 if tensor.bits == 8 else INT4
        parts = {
            "data": tensor.integers.numpy().view(kind),
            "scale": tensor.scales.numpy().astype(FLOATS[self.compute]),
        }
        if tensor.zero_points is not None:
            parts["offset"] = tensor.zero_points.numpy().view(kind)
        var = mb.constexpr_blockwise_shift_scale(**parts, name=label)
        for part in parts:
            var.op.inputs[part].op.weight_id = f"{label}.{part}.{self.compute if part == 'scale' else tensor.bits}"
        return var

    def _palette(self, label: str, tensor: PaletteTensor) -> Var:
        """Indices (rows, columns) into tables (palettes, 1, values, 1) that serve equal shares of the rows."""
        tables = tensor.values.numpy().astype(FLOATS[self.compute])[:, None, :, None]
        var = mb.constexpr_lut_to_dense(indices=tensor.indices.numpy().astype(UINT4), lut=tables, name=label)
        var.op.inputs["indices"].op.weight_id = f"{label}.indices"
        var.op.inputs["lut"].op.weight_id = f"{label}.lut.{self.compute}"
        return var


def int32(*values: int) -> np.ndarray:
    """A vector of sizes or indices."""
    return np.array(values, np.int32)


def join(writer: MilWriter, parts: Sequence[Var | int]) -> Var | np.ndarray:
    """Numbers and (1,) int32 values as one vector; an array where all are known."""
    if all(isinstance(part, int) for part in parts):
        return int32(*parts)
    values = [int32(part) if isinstance(part, int) else part for part in parts]
    return writer.op("concat", values=values, axis=0)


def pair_rotation(size: int) -> np.ndarray:
    """(size, size): `x @ it` maps each adjacent pair (a, b) to (-b, a), exactly, in any float type."""
    turn = torch.zeros(size, size)
    even = torch.arange(0, size, 2)
    turn[even, even + 1], turn[even + 1, even] = 1, -1
    return turn.numpy()
