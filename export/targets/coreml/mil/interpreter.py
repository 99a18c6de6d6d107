"""Executes a saved Core ML package (`.mlpackage`, ML Program) without Core ML.

    outputs = run_mlpackage("model.mlpackage", {"x": torch.ones(1, 4)})

    program = MilProgram.open("decoder.mlpackage")
    state = program.make_state()
    logits = program.predict({"inputIds": ids}, state)["logits"]

Only the saved files count: the protobuf and the weight files are read by this package's own code.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from export.targets.coreml.mil.constants import Constants
from export.targets.coreml.mil.errors import DeclarationError, FeatureError, PackageError, UnknownFunctionError
from export.targets.coreml.mil.executor import Executor, Observer, Scope, require_known_operators
from export.targets.coreml.mil.files.package import Package
from export.targets.coreml.mil.interface import Interface, zeros
from export.targets.coreml.mil.program import Function, Named, Operation, Reference, read_functions
from export.targets.coreml.mil.state import MilState, Overwriting, overwritable
from parcae_mobile.heap import give_back_heap

LOOP_LIMIT = 10_000


class MilProgram:
    """An opened package. Weights are decoded when first needed and kept for later predictions."""

    def __init__(self, package: Package) -> None:
        self.package = package
        spec = package.spec
        self.functions: dict[str, Function] = read_functions(spec.mlProgram, package.name)
        require_known_operators(self.functions.values(), package.name)
        self.default_function = self._default(spec.description)
        self.metadata: dict[str, str] = dict(spec.description.metadata.userDefined)
        described = {item.name: item for item in spec.description.functions} or {
            self.default_function: spec.description
        }
        if set(described) != set(self.functions):
            raise DeclarationError(
                f"{package.name}: the description has functions {sorted(described)}, "
                f"the program {sorted(self.functions)}"
            )
        self._interfaces = {
            name: Interface(function, described[name], package.name) for name, function in self.functions.items()
        }
        self._constants = Constants(package)
        functions = self.functions.values()
        self._overwritable = overwritable(block for function in functions for block in function.block.nested())

    @classmethod
    def open(cls, path: str | Path) -> MilProgram:
        """Opens a package and checks all that needs no weights.

        Raises PackageError (unreadable), UnknownOperatorError, DeclarationError (interface and program disagree).
        """
        return cls(Package(path))

    def _default(self, description: Any) -> str:
        name = description.defaultFunctionName or "main"
        if name not in self.functions:
            raise PackageError(f"{self.package.name}: no default function '{name}' among {sorted(self.functions)}")
        return str(name)

    def function(self, name: str | None = None) -> Function:
        """The function `name`, or the default one. Raises UnknownFunctionError."""
        name = name or self.default_function
        if name not in self.functions:
            raise UnknownFunctionError(f"{self.package.name}: no function '{name}'; it has {sorted(self.functions)}")
        return self.functions[name]

    def operator_counts(self, function: str | None = None) -> Counter[str]:
        """How often each operator type occurs in a function, nested blocks included."""
        return Counter(operation.type for operation in self.function(function).block.walk())

    def make_state(self, function: str | None = None, dtype: torch.dtype | None = None) -> MilState:
        """Zero states: of one function, or without a name of all functions together; in fp16, or in `dtype`.

        Raises FeatureError where two functions declare one state differently.
        """
        declared: dict[str, Named] = {}
        for item in [self.function(function)] if function else list(self.functions.values()):
            for state in item.states:
                if declared.setdefault(state.name, state).type != state.type:
                    raise FeatureError(
                        f"{self.package.name}: functions declare state '{state.name}' with different shapes"
                    )
        return MilState.owning({name: zeros(item, dtype) for name, item in declared.items()})

    def predict(
        self,
        inputs: Mapping[str, Any],
        state: MilState | None = None,
        function: str | None = None,
        *,
        compute: torch.dtype = torch.float32,
        loop_limit: int = LOOP_LIMIT,
        observer: Observer | None = None,
        rounds: bool = True,
        substitutes: Mapping[str, Tensor] | None = None,
        bounded: bool = False,
    ) -> dict[str, Tensor]:
        """Runs one function.

        inputs: torch tensors, numpy arrays or plain numbers by name, of the declared dtype and an admitted shape.
        state: replaced by the new states; left alone if anything fails. Required where the function has states.
        compute: dtype of the arithmetic before rounding, torch.float32 or torch.float64.
        loop_limit: iterations of all `while_loop`s together after which they count as endless.
        observer: called with every operation and its results, in order of execution (range probes, tracing). A later
            update may overwrite a result that is a state: keep copies.
        rounds: without it fp16 results stay in `compute`, states and outputs too: the program without its rounding.
        substitutes: results by operation name, in place of what those operations compute.
        bounded: raise `LimitError` once it has taken longer than a package of its size needs (limits.py).

        Returns the outputs by name, in their declared dtypes. Raises subclasses of MilError.
        """
        target = self.function(function)
        interface = self._interfaces[target.name]
        checked = interface.check_inputs(inputs)
        if target.states and state is None:
            names = [item.name for item in target.states]
            raise FeatureError(f"{interface.where}: it has states {names}; pass state=make_state()")
        working = state.begun() if state is not None else {}
        if rounds:
            interface.check_states(working)
        self._constants.limits.begin(bounded)
        overwriting = Overwriting(self._overwritable, working, {} if state is None else state.own)
        with torch.no_grad():
            executor = Executor(
                *(target, self._constants, working, compute, loop_limit, observer, rounds, substitutes, overwriting)
            )
            try:
                outputs = executor.run(checked)
                if rounds:
                    interface.check_outputs(outputs)
            except BaseException:
                overwriting.undo()
                raise
        if state is not None:
            state.replace(working, overwriting.own)
        return {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in outputs.items()}

    def rest(self) -> None:
        """Let go of the decoded weights; the next prediction decodes what it needs."""
        self._constants.forget()
        self.package.rest()
        give_back_heap()

    def constants(self, function: str | None = None) -> Iterator[Operation]:
        """The `const` and `constexpr_` operations of a function, nested blocks included."""
        for operation in self.function(function).block.walk():
            if operation.type == "const" or operation.type.startswith("constexpr_"):
                yield operation

    def stored(self, operation: Operation, parameter: str) -> Tensor:
        """What an operation's parameter holds in the file: `val` of a const, `data` or `scale` of a constexpr.

        Integers come as stored (int4 in int8, 1 to 6 bits in uint8). Raises PackageError for what is no stored tensor.
        """
        arguments = operation.inputs.get(parameter, ())
        if len(arguments) != 1 or isinstance(arguments[0], (str, Reference)):
            raise PackageError(
                f"{self.package.name}, {operation.type} '{operation.name}': '{parameter}' is no stored tensor"
            )
        return self._constants.literal(arguments[0], lambda: f"{self.package.name}, {operation.name}").data.clone()

    def constant(self, name: str, function: str | None = None) -> Tensor:
        """The constant that operations of a function read under `name`, decompressed, in its declared dtype.

        Raises PackageError where the function has no such constant.
        """
        target = self.function(function)
        producers = {output.name: operation for operation in self.constants(function) for output in operation.outputs}
        if name not in producers:
            raise PackageError(f"{self.package.name}, function '{target.name}': no constant '{name}'")
        executor = Executor(target, self._constants, {}, torch.float32, LOOP_LIMIT, None)
        scope = Scope()

        def define(wanted: str) -> None:
            operation = producers[wanted]
            for reference in operation.references():
                if reference not in scope.values:
                    define(reference)
            results = executor.operation(operation, scope, partial(executor.where, operation))
            scope.values.update(zip((output.name for output in operation.outputs), results, strict=True))

        define(name)
        value = scope.find(name)
        if isinstance(value, str):
            raise PackageError(f"{self.package.name}, function '{target.name}': the constant '{name}' is a string")
        return value.data.clone()


def run_mlpackage(
    path: str | Path,
    inputs: Mapping[str, Any],
    state: MilState | None = None,
    function: str | None = None,
) -> dict[str, Tensor]:
    """Opens the package at `path` and runs one function once (the default one without a name).

    A function with states starts from zero states if `state` is None; a given state is updated. Raises MilError.
    """
    program = MilProgram.open(path)
    if state is None and program.function(function).states:
        state = program.make_state(function)
    return program.predict(inputs, state, function)
