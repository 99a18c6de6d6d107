"""The program of a package as plain data: functions, blocks, operations, values. Read once, when it is opened.

Reading also checks what can be checked without running: operators known, types understood, every name defined before
it is used. Each block carries a release list, so that a value is dropped after its last use.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from export.targets.coreml.mil.dtypes import BY_CODE, STRING, DType
from export.targets.coreml.mil.errors import PackageError

# What coremltools writes as repeated fields, by name of the protobuf field; everything else comes as raw bytes.
FIELD_STORAGE = {"floats": "<f4", "doubles": "<f8", "bools": "u1", "longInts": "<i8"}


@dataclass(frozen=True)
class TensorType:
    """A declared type. `shape` holds None where the size is unknown; `shape` itself is None for unknown rank."""

    dtype: DType
    shape: tuple[int | None, ...] | None

    def admits(self, shape: tuple[int, ...]) -> bool:
        if self.shape is None or self.shape == shape:
            return True
        return len(self.shape) == len(shape) and all(
            want in (None, got) for want, got in zip(self.shape, shape, strict=True)
        )

    @property
    def sizes(self) -> tuple[int, ...]:
        """The shape of a stored tensor, all of whose sizes are known."""
        return tuple(size for size in self.shape or () if size is not None)

    def __str__(self) -> str:
        if self.shape is None:
            return f"{self.dtype} [...]"
        return f"{self.dtype} [{', '.join('?' if size is None else str(size) for size in self.shape)}]"


@dataclass(frozen=True)
class Reference:
    """An argument that is the result of another operation, a function input or a state."""

    name: str


@dataclass(frozen=True)
class Blob:
    """An argument that lies in a weight file, at the byte offset of its record."""

    file: str
    offset: int
    type: TensorType


@dataclass(frozen=True)
class Immediate:
    """An argument that is written in the program: `data` is its storage, packed as weight.bin packs it."""

    type: TensorType
    data: bytes


Argument = Reference | Blob | Immediate | str


@dataclass(frozen=True)
class Named:
    """A declared name: of a block input, a function input or an operation's output."""

    name: str
    type: TensorType


@dataclass
class Operation:
    """One operation. Attributes other than the name stand among the inputs; every input is a tuple of arguments."""

    type: str
    name: str
    inputs: dict[str, tuple[Argument, ...]]
    outputs: tuple[Named, ...]
    blocks: tuple[Block, ...] = ()
    _reads: tuple[str, ...] | None = field(default=None, init=False, repr=False, compare=False)

    def references(self) -> Iterator[str]:
        """Names that this operation reads, those captured by its nested blocks included."""
        if self._reads is None:  # asked once for each block around it
            own = (item.name for group in self.inputs.values() for item in group if isinstance(item, Reference))
            inside = (name for block in self.blocks for name in block.captured())
            self._reads = tuple(dict.fromkeys((*own, *inside)))
        yield from self._reads


@dataclass
class Block:
    """`release[i]` are the names of this block that nothing reads after operation i."""

    inputs: tuple[Named, ...]
    operations: tuple[Operation, ...]
    outputs: tuple[str, ...]
    release: tuple[tuple[str, ...], ...] = field(init=False)

    def __post_init__(self) -> None:
        last_use: dict[str, int] = {}
        returned = set(self.outputs)
        for index, operation in enumerate(self.operations):
            last_use.update((output.name, index) for output in operation.outputs)
            last_use.update((name, index) for name in operation.references())
        own = {output.name for operation in self.operations for output in operation.outputs}
        release: list[list[str]] = [[] for _ in self.operations]
        for name, index in last_use.items():
            if name in own and name not in returned:
                release[index].append(name)
        self.release = tuple(tuple(names) for names in release)

    def captured(self) -> Iterator[str]:
        """Names that this block takes from the blocks around it."""
        own = {item.name for item in self.inputs}
        own.update(output.name for operation in self.operations for output in operation.outputs)
        for operation in self.operations:
            yield from (name for name in operation.references() if name not in own)
        yield from (name for name in self.outputs if name not in own)

    def nested(self) -> Iterator[Block]:
        """This block and all in it."""
        yield self
        for operation in self.operations:
            for block in operation.blocks:
                yield from block.nested()

    def walk(self) -> Iterator[Operation]:
        """Every operation, those of nested blocks included, in order."""
        for operation in self.operations:
            yield operation
            for block in operation.blocks:
                yield from block.walk()


@dataclass
class Function:
    """`opset` is the number in "CoreML7": 5 is iOS 15, 6 iOS 16, 7 iOS 17, 8 iOS 18."""

    name: str
    opset: int
    inputs: tuple[Named, ...]
    states: tuple[Named, ...]
    block: Block


def read_functions(program: Any, package: str) -> dict[str, Function]:
    """The functions of a protobuf `MILSpec.Program`, by name. Raises PackageError."""
    return {
        name: _Reader(f"{package}, function '{name}'").function(name, item) for name, item in program.functions.items()
    }


class _Reader:
    """Protobuf messages to the classes above. `where` begins every error message."""

    def __init__(self, where: str) -> None:
        self.where = where

    def function(self, name: str, message: Any) -> Function:
        if message.opset not in message.block_specializations:
            raise PackageError(f"{self.where}: no block for its opset {message.opset}")
        digits = message.opset.removeprefix("CoreML")
        if not digits.isdigit():
            raise PackageError(f"{self.where}: unknown opset {message.opset}")
        inputs, states = [], []
        for item in message.inputs:
            if item.type.WhichOneof("type") == "stateType":
                states.append(Named(item.name, self.tensor_type(item.type.stateType.wrappedType, item.name)))
            else:
                inputs.append(Named(item.name, self.tensor_type(item.type, item.name)))
        block = self.block(message.block_specializations[message.opset])
        self.check_names(block, {item.name for item in [*inputs, *states]})
        return Function(name, int(digits), tuple(inputs), tuple(states), block)

    def block(self, message: Any) -> Block:
        inputs = tuple(Named(item.name, self.tensor_type(item.type, item.name)) for item in message.inputs)
        return Block(inputs, tuple(self.operation(op) for op in message.operations), tuple(message.outputs))

    def operation(self, message: Any) -> Operation:
        outputs = message.outputs
        name = message.attributes["name"].immediateValue.tensor.strings.values if "name" in message.attributes else []
        title = name[0] if name else (outputs[0].name if outputs else "")
        inputs: dict[str, tuple[Argument, ...]] = {}
        for key, argument in message.inputs.items():
            inputs[key] = tuple(
                Reference(item.name) if item.WhichOneof("binding") == "name" else self.value(item.value, title)
                for item in argument.arguments
            )
        for key, value in message.attributes.items():
            if key != "name":
                inputs[key] = (self.value(value, title),)
        if message.type in ("cond", "while_loop") and len(message.blocks) != 2:
            raise PackageError(f"{self.where}: {message.type} '{title}' has {len(message.blocks)} blocks, want 2")
        declared = tuple(Named(item.name, self.tensor_type(item.type, item.name)) for item in outputs)
        if message.type == "const" and (len(declared) != 1 or len(inputs.get("val", ())) != 1):
            raise PackageError(f"{self.where}: the constant '{title}' has no single value")
        return Operation(message.type, title, inputs, declared, tuple(self.block(item) for item in message.blocks))

    def tensor_type(self, message: Any, name: str) -> TensorType:
        kind = message.WhichOneof("type")
        if kind != "tensorType":
            raise PackageError(f"{self.where}: '{name}' is declared as a {kind}, only tensors can be executed")
        tensor = message.tensorType
        if tensor.dataType == STRING.code and not tensor.dimensions:
            return TensorType(STRING, ())
        if tensor.dataType not in BY_CODE:
            raise PackageError(f"{self.where}: '{name}' has data type {tensor.dataType}, which is not supported")
        shape: list[int | None] = []
        for dimension in tensor.dimensions:
            if dimension.WhichOneof("dimension") == "constant":
                shape.append(dimension.constant.size)
            elif dimension.unknown.variadic:
                return TensorType(BY_CODE[tensor.dataType], None)
            else:
                shape.append(None)
        if tensor.rank not in (-1, len(shape)):
            raise PackageError(f"{self.where}: '{name}' declares rank {tensor.rank} and {len(shape)} dimensions")
        return TensorType(BY_CODE[tensor.dataType], tuple(shape))

    def value(self, message: Any, name: str) -> Argument:
        declared = self.tensor_type(message.type, name)
        if declared.shape is None or None in declared.shape:
            raise PackageError(f"{self.where}: the constant '{name}' has no fixed shape")
        if message.WhichOneof("value") == "blobFileValue":
            return Blob(message.blobFileValue.fileName, message.blobFileValue.offset, declared)
        kind = message.immediateValue.WhichOneof("value")
        if kind != "tensor":
            raise PackageError(f"{self.where}: the constant '{name}' is a {kind}, only tensors are supported")
        tensor = message.immediateValue.tensor
        stored = tensor.WhichOneof("value")
        if stored == "strings":
            return str(tensor.strings.values[0]) if len(tensor.strings.values) == 1 else ""
        if stored == "bytes":
            return Immediate(declared, bytes(tensor.bytes.values))
        # int16 and uint16 come as a list of int32 too.
        width = f"<{'i' if declared.dtype.signed else 'u'}{max(1, declared.dtype.bits // 8)}"
        values = list(getattr(tensor, stored).values) if stored else []
        try:
            data = np.array(values, dtype=FIELD_STORAGE.get(stored or "", width)).tobytes()
        except OverflowError as error:
            raise PackageError(f"{self.where}: the constant '{name}' does not fit {declared.dtype}") from error
        return Immediate(declared, data)

    def check_names(self, block: Block, known: set[str]) -> None:
        """Every name must be defined once, before it is read: a program that was edited by hand may break that."""
        own = {item.name for item in block.inputs}
        known = known | own  # of this block and those around it
        for operation in block.operations:
            for arguments in operation.inputs.values():
                for argument in arguments:
                    if isinstance(argument, Reference) and argument.name not in known:
                        raise PackageError(
                            f"{self.where}: {operation.type} '{operation.name}' reads '{argument.name}', "
                            "which nothing defines"
                        )
            for nested in operation.blocks:
                self.check_names(nested, known)
            for output in operation.outputs:
                if output.name in own:
                    raise PackageError(f"{self.where}: '{output.name}' is defined twice")
                own.add(output.name)
                known.add(output.name)
        for name in block.outputs:
            if name not in known:
                raise PackageError(f"{self.where}: the output '{name}' is defined by nothing")
