"""The table of operators, and the arguments that an operator's implementation sees.

An operator is a function from `Arguments` to one tensor or a tuple of tensors, registered together with a rule for the
dtype of its result:

    @operator("add", result=like("x", "y"))
    def _add(a: Arguments) -> Tensor:
        return a.wide("x") + a.wide("y")

It computes in `a.compute` (fp32 unless the caller chose fp64) and leaves rounding to the executor, which compares the
rule's dtype and the result's shape with what the package declares.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from export.targets.coreml.mil.dtypes import BY_NAME, DType
from export.targets.coreml.mil.errors import DeclarationError, ExecutionError, LimitError
from export.targets.coreml.mil.limits import Limits

Writable = Callable[[Tensor, Any], Tensor]  # where a slice of a tensor, by its index, can be written

IOS17 = 7  # opset number
WIDENED_BYTES = 32_000_000


@dataclass(frozen=True)
class Value:
    """A tensor with its MIL dtype, which torch's cannot always express. `constant`: it is known without any input."""

    data: Tensor
    dtype: DType
    constant: bool = False

    @cached_property
    def integers(self) -> tuple[int, ...]:
        """All of an integer tensor: of an operation's attributes, which every prediction asks for again."""
        return tuple(int(number) for number in self.data.reshape(-1).tolist())


class Widened:
    """Constants in the compute dtype, kept for later predictions while they are few bytes: a small model's all."""

    def __init__(self, most: int = WIDENED_BYTES) -> None:
        self._left = most
        self._kept: dict[tuple[int, torch.dtype], tuple[Value, Tensor]] = {}  # the value too: so its id stays its own

    def of(self, value: Value, compute: torch.dtype) -> Tensor:
        key = id(value), compute
        if key in self._kept:
            return self._kept[key][1]
        tensor = value.data.to(compute)
        if tensor.nbytes <= self._left:
            self._left -= tensor.nbytes
            self._kept[key] = value, tensor
        return tensor


def copied(tensor: Tensor, index: Any) -> Tensor:
    """A tensor of its own to write a slice into."""
    return tensor.clone()


class Arguments:
    """The inputs of one operation, by parameter name. `where` names package, function and operation for messages."""

    def __init__(
        self,
        inputs: dict[str, tuple[Value | str, ...]],
        where: Callable[[], str],
        opset: int,
        compute: torch.dtype,
        limits: Limits | None = None,
        widened: Widened | None = None,
        writable: Writable = copied,
    ) -> None:
        self.inputs, self.where, self.opset, self.compute = inputs, where, opset, compute
        self.limits, self.widened = limits or Limits(), widened or Widened(0)
        self.writable = writable

    def fail(self, message: str) -> ExecutionError:
        """The error to raise for `message`."""
        return ExecutionError(f"{self.where()}: {message}")

    def room(self, *sizes: int, work: int = 1) -> None:
        """Raise `LimitError` if a result of these sizes is too large for the package; `work` is per value of it."""
        elements = math.prod(sizes)
        try:
            self.limits.room(elements, elements * work)
        except LimitError as error:
            raise LimitError(f"{self.where()}: {error}") from None

    def room_for(self, *names: str) -> None:
        """The same for what the named parameters broadcast to."""
        tensors = [value.data for name in names for value in self.inputs.get(name, ()) if isinstance(value, Value)]
        if math.prod(tensor.numel() for tensor in tensors) <= self.limits.elements:
            return  # no result has more values than that
        if len(tensors) > 1 and any(tensor.shape != tensors[0].shape for tensor in tensors):
            try:
                shape = torch.broadcast_shapes(*(tensor.shape for tensor in tensors))
            except RuntimeError:
                return  # the operator itself says that they do not fit
            self.room(*shape)

    def has(self, name: str) -> bool:
        return bool(self.inputs.get(name))

    def _one(self, name: str) -> Value | str:
        values = self.inputs.get(name, ())
        if len(values) != 1:
            raise self.fail(
                f"parameter '{name}' " + ("is missing" if not values else f"has {len(values)} values, want 1")
            )
        return values[0]

    def value(self, name: str) -> Value:
        value = self._one(name)
        if isinstance(value, str):
            raise self.fail(f"parameter '{name}' is a string, want a tensor")
        return value

    def raw(self, name: str) -> Tensor:
        """The tensor as stored."""
        return self.value(name).data

    def wide(self, name: str) -> Tensor:
        """The tensor in the compute dtype if it holds floats, as stored if not."""
        value = self.value(name)
        tensor = value.data
        if tensor.dtype is self.compute or not tensor.is_floating_point():
            return tensor
        return self.widened.of(value, self.compute) if value.constant else tensor.to(self.compute)

    def dtype(self, name: str) -> DType:
        return self.value(name).dtype

    def values(self, name: str) -> tuple[Value, ...]:
        """A variadic parameter such as concat's `values`."""
        values = tuple(value for value in self.inputs.get(name, ()) if isinstance(value, Value))
        if not values:
            raise self.fail(f"parameter '{name}' is missing")
        return values

    def integer(self, name: str, default: int | None = None) -> int:
        if default is not None and not self.has(name):
            return default
        numbers = self.integers(name)
        if len(numbers) != 1:
            raise self.fail(f"parameter '{name}' has {len(numbers)} values, want 1")
        return numbers[0]

    def integers(self, name: str) -> list[int]:
        value = self.value(name)
        if value.data.is_floating_point():
            raise self.fail(f"parameter '{name}' is {value.dtype}, want integers")
        return list(value.integers)

    def number(self, name: str, default: float) -> float:
        return float(self.raw(name).item()) if self.has(name) else default

    def flag(self, name: str, default: bool = False) -> bool:
        return bool(self.raw(name).item()) if self.has(name) else default

    def text(self, name: str, default: str | None = None) -> str:
        if default is not None and not self.has(name):
            return default
        value = self._one(name)
        if not isinstance(value, str):
            raise self.fail(f"parameter '{name}' is a tensor, want a string")
        return value

    def named_dtype(self, name: str, default: str | None = None) -> DType:
        """The dtype that a string parameter names, such as cast's `dtype`."""
        text = self.text(name, default)
        if text not in BY_NAME:
            raise self.fail(f"parameter '{name}' is '{text}', which is no dtype")
        return BY_NAME[text]

    def axis(self, value: int, rank: int, name: str = "axis") -> int:
        """`value` counted from the front. Raises ExecutionError where it is outside of [-rank, rank)."""
        if not -rank <= value < rank:
            raise self.fail(f"{name} {value} is out of range for rank {rank}")
        return value % rank


Kernel = Callable[[Arguments], Tensor | tuple[Tensor, ...]]
ResultRule = Callable[[Arguments], DType | tuple[DType, ...]]


@dataclass(frozen=True)
class Operator:
    run: Kernel
    result: ResultRule


OPERATORS: dict[str, Operator] = {}


def operator(*names: str, result: ResultRule) -> Callable[[Kernel], Kernel]:
    """Registers a kernel under `names`, with the dtype rule `result`."""

    def register(kernel: Kernel) -> Kernel:
        for name in names:
            OPERATORS[name] = Operator(kernel, result)
        return kernel

    return register


def like(*names: str) -> Callable[[Arguments], DType]:
    """The common dtype of the named parameters. Absent ones do not count, differing ones are an error."""

    def rule(a: Arguments) -> DType:
        present = [value for name in names if a.has(name) for value in a.values(name)]
        if not present:
            raise a.fail(f"parameter '{names[0]}' is missing")
        first = present[0]
        for value in present[1:]:
            if value.dtype != first.dtype:
                parameters = ", ".join(f"'{name}'" for name in names)
                raise DeclarationError(
                    f"{a.where()}: {parameters} must share one dtype, got {first.dtype} and {value.dtype}"
                )
        return first.dtype

    return rule


def always(dtype: DType) -> ResultRule:
    """A fixed dtype, as of comparisons."""
    return lambda a: dtype
