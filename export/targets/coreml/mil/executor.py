"""Runs one function: resolves arguments, calls operators, rounds and checks every result, follows control flow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor

from export.targets.coreml.mil.constants import Constants
from export.targets.coreml.mil.dtypes import BOOL, FP16, DType, round_to
from export.targets.coreml.mil.errors import (
    DeclarationError,
    ExecutionError,
    LimitError,
    MilError,
    UnknownOperatorError,
)
from export.targets.coreml.mil.ops import constexpr, elementwise, index, linear, shape
from export.targets.coreml.mil.program import Argument, Block, Function, Named, Operation, Reference
from export.targets.coreml.mil.registry import OPERATORS, Arguments, Value
from export.targets.coreml.mil.state import Overwriting
from export.targets.coreml.mil.tables import Table, table_of
from parcae_mobile.errors import reason_of

# Importing these modules fills OPERATORS.
OPERATOR_MODULES = (constexpr, elementwise, index, linear, shape)
# Operators that the executor runs itself, because they need more than their arguments.
CONTROL = frozenset({"const", "cond", "while_loop", "read_state", "write_state", "coreml_update_state"})

# What torch and Python raise for arguments that an operator cannot have.
FAILURES = (RuntimeError, ValueError, LookupError, TypeError, ArithmeticError, AssertionError, MemoryError)

Observer = Callable[[Operation, tuple[Tensor, ...]], None]


def require_known_operators(functions: Iterable[Function], package: str) -> None:
    """Raises UnknownOperatorError that lists every operator type which cannot be executed, with its first name."""
    unknown: dict[str, Operation] = {}
    for function in functions:
        for operation in function.block.walk():
            if operation.type not in CONTROL and operation.type not in OPERATORS:
                unknown.setdefault(operation.type, operation)
    if unknown:
        listing = ", ".join(f"{kind} ('{operation.name}')" for kind, operation in sorted(unknown.items()))
        raise UnknownOperatorError(f"{package}: operators that this interpreter does not execute: {listing}")


class Scope:
    """Names of a block, and those of the blocks around it."""

    def __init__(self, parent: Scope | None = None) -> None:
        self.values: dict[str, Value | str | Table] = {}
        self.parent = parent

    def find(self, name: str) -> Value | str:
        """What a name stands for; a table is decoded as a whole."""
        value = self.undecoded(name)
        return value.whole() if isinstance(value, Table) else value

    def undecoded(self, name: str) -> Value | str | Table:
        scope: Scope | None = self
        while scope is not None:
            if name in scope.values:
                return scope.values[name]
            scope = scope.parent
        raise KeyError(name)

    def live(self) -> Iterator[Value]:
        """Everything that has a name here or around here."""
        scope: Scope | None = self
        while scope is not None:
            yield from (value for value in scope.values.values() if isinstance(value, Value))
            scope = scope.parent


class Executor:
    """One run of one function. `states` is read and replaced in place; tensors in it are written to where
    `overwriting` allows it."""

    def __init__(
        self,
        function: Function,
        constants: Constants,
        states: dict[str, Tensor],
        compute: torch.dtype,
        loop_limit: int,
        observer: Observer | None,
        rounds: bool = True,
        substitutes: Mapping[str, Tensor] | None = None,
        overwriting: Overwriting | None = None,
    ) -> None:
        self.function, self.constants, self.states = function, constants, states
        self.overwriting = overwriting or Overwriting({}, states, {})
        self.compute, self.loop_limit, self.observer = compute, loop_limit, observer
        self.rounds, self.substitutes = rounds, substitutes or {}
        self.iterations = 0
        self.state_types = {item.name: item.type for item in function.states}
        self.title = f"{constants.package.name}, function '{function.name}'"

    def run(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Outputs by name. `inputs` are checked by the caller."""
        scope = Scope()
        for item in self.function.inputs:
            scope.values[item.name] = Value(inputs[item.name], item.type.dtype)
        outputs = self.block(self.function.block, scope)
        return {name: value.data for name, value in zip(self.function.block.outputs, outputs, strict=True)}

    def block(self, block: Block, scope: Scope) -> list[Value]:
        for operation, release in zip(block.operations, block.release, strict=True):
            where = partial(self.where, operation)
            try:
                self.constants.limits.tick()
            except LimitError as error:
                raise LimitError(f"{where()}: {error}") from None
            known = self.constants.checked.get(id(operation))  # half of a program's operations are constants
            results = self.operation(operation, scope, where) if known is None else known
            if operation.name in self.substitutes:
                results = self.check(operation, (self.substitutes[operation.name],), where)
            for named, result in zip(operation.outputs, results, strict=True):
                scope.values[named.name] = result
            if self.observer is not None:
                self.observer(operation, tuple(result.data for result in results if isinstance(result, Value)))
            for name in release:
                del scope.values[name]
        outputs = []
        for name in block.outputs:
            value = scope.find(name)
            if isinstance(value, str):
                raise ExecutionError(f"{self.title}: the block's output '{name}' is a string")
            outputs.append(value)
        return outputs

    def where(self, operation: Operation) -> str:
        return f"{self.title}, {operation.type} '{operation.name}'"

    def operation(
        self, operation: Operation, scope: Scope, where: Callable[[], str]
    ) -> tuple[Value | str | Table, ...]:
        kind = operation.type
        if kind == "const":
            return (self.constant(operation, scope, where),)
        if kind.startswith("constexpr_"):
            table = table_of(operation, lambda: self.folded(operation, scope)[0])
            known = operation.name in self.substitutes
            return self.folded(operation, scope) if table is None or known else (table,)
        if kind == "gather":
            return self.gathered(operation, scope, where)
        if kind == "read_state":
            return self.check(operation, (self.states[self.state_name(operation, "input", where)],), where)
        if kind == "write_state":
            self.write_state(operation, "input", "data", scope, where)
            return self.check(operation, (), where)
        if kind == "coreml_update_state":
            return self.check(operation, (self.write_state(operation, "state", "value", scope, where),), where)
        if kind == "cond":
            return self.cond(operation, scope, where)
        if kind == "while_loop":
            return self.while_loop(operation, scope, where)
        if kind == "slice_update":
            return self.updated(operation, scope, where)
        return self.computed(operation, scope, where)

    def constant(self, operation: Operation, scope: Scope, where: Callable[[], str]) -> Value | str:
        value = self.argument(operation.inputs["val"][0], scope, where)
        if not isinstance(value, str):
            self.check_type(operation.outputs[0], value, where)
            self.constants.keep(operation, value)
        return value

    def argument(self, argument: Argument, scope: Scope, where: Callable[[], str]) -> Value | str:
        if isinstance(argument, str):
            return argument
        if not isinstance(argument, Reference):
            return self.constants.literal(argument, where)
        if argument.name in self.state_types:
            raise ExecutionError(f"{where()}: '{argument.name}' is a state, it can only be read by read_state")
        return scope.find(argument.name)

    def arguments(self, inputs: dict[str, tuple[Argument, ...]], scope: Scope, where: Callable[[], str]) -> Arguments:
        resolved = {
            name: tuple(self.argument(argument, scope, where) for argument in arguments)
            for name, arguments in inputs.items()
        }
        constants = self.constants
        return Arguments(resolved, where, self.function.opset, self.compute, constants.limits, constants.widened)

    def folded(self, operation: Operation, scope: Scope) -> tuple[Value, ...]:
        """The results of a `constexpr_`, decoded once."""
        where = partial(self.where, operation)
        return self.constants.folded(
            self.function, operation, lambda: self.computed(operation, scope, where, constant=True)
        )

    def gathered(self, operation: Operation, scope: Scope, where: Callable[[], str]) -> tuple[Value, ...]:
        """A `gather`; of a table that was not decoded along its first axis, the rows that it wants."""
        (x,) = operation.inputs.get("x", (None,))
        table = scope.undecoded(x.name) if isinstance(x, Reference) and x.name not in self.state_types else None
        if not isinstance(table, Table):
            return self.computed(operation, scope, where)
        others = {name: group for name, group in operation.inputs.items() if name != "x"}
        arguments = self.arguments(others, scope, where)
        if arguments.integer("axis", 0) or arguments.integer("batch_dims", 0):
            return self.computed(operation, scope, where)
        indices = arguments.value("indices")
        decoding = self.arguments({}, scope, partial(self.where, table.operation))
        rows = table.rows(indices.data, self.constants, decoding)
        if rows is None:  # something is wrong with it, and the whole says what
            return self.computed(operation, scope, where)
        dtype = table.operation.outputs[0].type.dtype
        arguments.inputs["x"] = (Value(self.stored(rows[0], dtype), dtype),)
        arguments.inputs["indices"] = (Value(rows[1].to(indices.data.dtype), indices.dtype),)
        return self.run_operator(operation, arguments, where)

    def updated(self, operation: Operation, scope: Scope, where: Callable[[], str]) -> tuple[Value, ...]:
        """A `slice_update`, in its argument's memory where nothing else can see that."""
        arguments = self.arguments(operation.inputs, scope, where)
        x = arguments.raw("x")
        arguments.writable = self.overwriting.of(operation, x, scope.live())
        results = self.run_operator(operation, arguments, where)
        if results[0].data is not x:
            self.overwriting.made(results[0].data)
        return results

    def computed(
        self, operation: Operation, scope: Scope, where: Callable[[], str], constant: bool = False
    ) -> tuple[Value, ...]:
        """An operator of the table: its results, rounded and checked."""
        return self.run_operator(operation, self.arguments(operation.inputs, scope, where), where, constant)

    def run_operator(
        self, operation: Operation, arguments: Arguments, where: Callable[[], str], constant: bool = False
    ) -> tuple[Value, ...]:
        """An operator's results for its arguments, rounded and checked."""
        entry = OPERATORS[operation.type]
        try:
            rule = entry.result(arguments)
            results = entry.run(arguments)
        except MilError:
            raise
        except FAILURES as error:
            shapes = ", ".join(
                f"{name} {list(value.data.shape)}"
                for name, values in arguments.inputs.items()
                for value in values
                if isinstance(value, Value)
            )
            raise ExecutionError(f"{where()}: {reason_of(error)} ({shapes})") from error
        if isinstance(results, Tensor):
            results = (results,)
        dtypes = rule if isinstance(rule, tuple) else (rule,) * len(results)
        if not len(results) == len(dtypes) == len(operation.outputs):
            raise DeclarationError(f"{where()}: {len(operation.outputs)} outputs are declared, it has {len(results)}")
        for named, dtype in zip(operation.outputs, dtypes, strict=True):
            if named.type.dtype != dtype:
                raise DeclarationError(
                    f"{where()}: '{named.name}' is declared {named.type.dtype}, the result is {dtype}"
                )
        return self.check(operation, results, where, constant)

    def check(
        self, operation: Operation, results: tuple[Tensor, ...], where: Callable[[], str], constant: bool = False
    ) -> tuple[Value, ...]:
        """`results` rounded to the declared dtypes. Raises DeclarationError for another kind or shape."""
        if len(results) != len(operation.outputs):
            raise DeclarationError(f"{where()}: {len(operation.outputs)} outputs are declared, it has {len(results)}")
        values = []
        for named, result in zip(operation.outputs, results, strict=True):
            try:
                value = Value(self.stored(result, named.type.dtype), named.type.dtype, constant)
            except ValueError as error:
                raise DeclarationError(f"{where()}: '{named.name}' is declared {named.type}: {error}") from error
            self.check_type(named, value, where)
            values.append(value)
        return tuple(values)

    def stored(self, result: Tensor, dtype: DType) -> Tensor:
        """A result as its type holds it; without rounding an fp16 one stays what it was computed in."""
        if dtype is FP16 and not self.rounds and result.is_floating_point():
            return result.to(self.compute)
        return round_to(result, dtype)

    def check_type(self, named: Named, value: Value, where: Callable[[], str]) -> None:
        dims = tuple(value.data.shape)
        if value.dtype != named.type.dtype or not named.type.admits(dims):
            got = f"{value.dtype} {list(dims)}"
            raise DeclarationError(f"{where()}: '{named.name}' is declared {named.type}, the result is {got}")

    def state_name(self, operation: Operation, parameter: str, where: Callable[[], str]) -> str:
        arguments = operation.inputs.get(parameter, ())
        if len(arguments) != 1 or not isinstance(arguments[0], Reference) or arguments[0].name not in self.states:
            raise ExecutionError(f"{where()}: '{parameter}' is no state of this function")
        return arguments[0].name

    def write_state(
        self, operation: Operation, state: str, data: str, scope: Scope, where: Callable[[], str]
    ) -> Tensor:
        name = self.state_name(operation, state, where)
        group = {data: operation.inputs.get(data, ())}
        value = self.arguments(group, scope, where).value(data)
        self.check_type(Named(name, self.state_types[name]), value, where)
        self.states[name] = value.data
        return value.data

    def truth(self, value: Value, what: str, where: Callable[[], str]) -> bool:
        if value.dtype is not BOOL or value.data.numel() != 1:
            raise ExecutionError(f"{where()}: {what} is {value.dtype} {list(value.data.shape)}, want one bool")
        return bool(value.data.item())

    def cond(self, operation: Operation, scope: Scope, where: Callable[[], str]) -> tuple[Value, ...]:
        predicate = self.arguments(operation.inputs, scope, where).value("pred")
        block = operation.blocks[0 if self.truth(predicate, "'pred'", where) else 1]
        return self.typed(operation.outputs, self.block(block, Scope(scope)), where)

    def while_loop(self, operation: Operation, scope: Scope, where: Callable[[], str]) -> tuple[Value, ...]:
        carried = self.arguments(operation.inputs, scope, where).values("loop_vars")
        condition, body = operation.blocks
        while self.iterations < self.loop_limit:  # of all loops together, those in loops included
            self.iterations += 1
            (verdict,) = self.block(condition, self.entered(condition, carried, scope, where))
            if not self.truth(verdict, "the condition", where):
                return self.typed(operation.outputs, carried, where)
            carried = tuple(self.block(body, self.entered(body, carried, scope, where)))
        raise ExecutionError(f"{where()}: still running after {self.loop_limit} iterations (loop_limit)")

    def entered(self, block: Block, values: Iterable[Value], outer: Scope, where: Callable[[], str]) -> Scope:
        scope = Scope(outer)
        scope.values.update(
            zip((item.name for item in block.inputs), self.typed(block.inputs, values, where), strict=True)
        )
        return scope

    def typed(self, names: tuple[Named, ...], values: Iterable[Value], where: Callable[[], str]) -> tuple[Value, ...]:
        """`values` without their constant marks. Raises DeclarationError where count, dtype or shape is another."""
        values = tuple(Value(value.data, value.dtype) for value in values)
        if len(names) != len(values):
            raise DeclarationError(f"{where()}: {len(names)} values are declared, it has {len(values)}")
        for named, value in zip(names, values, strict=True):
            self.check_type(named, value, where)
        return values
