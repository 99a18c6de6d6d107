"""Constants of a package, decoded when first used and kept once, for all functions of the package together.

Plain floats and bytes in weight.bin are views of the mapped file. Sub-byte integers are decoded where a compressed
constant needs them and dropped again; what stays is the compressed constant's result, in its declared dtype.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable

from torch import Tensor

from export.targets.coreml.mil.dtypes import STRING
from export.targets.coreml.mil.errors import BlobError, LimitError
from export.targets.coreml.mil.files.blob import decode
from export.targets.coreml.mil.files.package import Package
from export.targets.coreml.mil.limits import Limits
from export.targets.coreml.mil.program import Argument, Blob, Function, Immediate, Operation, Reference
from export.targets.coreml.mil.registry import Value, Widened


class Constants:
    """Decoded constants of one package."""

    def __init__(self, package: Package) -> None:
        self.package, self.limits = package, Limits.of(package.path)
        self._digests: dict[Blob, bytes] = {}
        self.forget()

    def forget(self) -> None:
        """Keep nothing that was decoded."""
        self.widened = Widened()
        self._literals: dict[Blob | Immediate, Value] = {}
        self._folded: dict[Hashable, tuple[Value, ...]] = {}
        self.checked: dict[int, tuple[Value]] = {}  # by the id of a `const` operation, which lives as long as these do

    def literal(self, item: Blob | Immediate, where: Callable[[], str]) -> Value:
        """The tensor of a blob or an immediate. Raises BlobError, with `where` in front."""
        if item in self._literals:
            return self._literals[item]
        shape, dtype = item.type.sizes, item.type.dtype
        try:
            if dtype is STRING:
                raise BlobError("a string is stored as numbers")
            if any(size < 0 for size in shape):
                raise BlobError(f"a constant of shape {list(shape)}")
            self.limits.room(math.prod(shape))
            if isinstance(item, Blob):
                data = self.package.blob_file(item.file).read(item.offset, dtype, shape)
            else:
                data = decode(item.data, dtype, shape)
        except LimitError as error:
            raise LimitError(f"{where()}: {error}") from None
        except BlobError as error:
            raise BlobError(f"{where()}: {error}") from error
        value = Value(data, dtype, constant=True)
        if isinstance(item, Immediate) or dtype.bits >= 8:
            self._literals[item] = value
        return value

    def rows(self, item: Blob, wanted: Tensor, where: Callable[[], str]) -> Value:
        """Some rows (n,) of a blob, which are not kept. Raises BlobError, with `where` in front."""
        try:
            data = self.package.blob_file(item.file).rows(item.offset, item.type.dtype, item.type.sizes, wanted)
        except BlobError as error:
            raise BlobError(f"{where()}: {error}") from error
        return Value(data, item.type.dtype, constant=True)

    def _content(self, argument: Argument) -> Hashable:
        """An argument by what it holds, not by where that lies."""
        if not isinstance(argument, Blob):
            return argument
        if argument not in self._digests:
            try:
                self._digests[argument] = self.package.blob_file(argument.file).digest(argument.offset)
            except BlobError:
                return argument  # who reads it says so, and where
        return argument.type, self._digests[argument]

    def keep(self, operation: Operation, value: Value) -> None:
        """Remember what a `const` operation gives; packed integers grow up to eight times when decoded, so not them."""
        if value.dtype.bits >= 8:
            self.checked[id(operation)] = (value,)

    def folded(
        self, function: Function, operation: Operation, compute: Callable[[], tuple[Value, ...]]
    ) -> tuple[Value, ...]:
        """The results of a `constexpr_` operation. Equal operations of different functions share one entry, also where
        each function has a copy of its own in the file, as coremltools writes them."""
        key: Hashable = (function.name, operation.outputs[0].name)
        arguments = [argument for group in operation.inputs.values() for argument in group]
        if not any(isinstance(argument, Reference) for argument in arguments):
            inputs = sorted(operation.inputs.items())
            key = (operation.type, tuple((name, tuple(map(self._content, group))) for name, group in inputs))
        if key not in self._folded:
            self._folded[key] = compute()
            for argument in arguments:
                if isinstance(argument, Blob):
                    self.package.blob_file(argument.file).give_back(argument.offset)
        return self._folded[key]
