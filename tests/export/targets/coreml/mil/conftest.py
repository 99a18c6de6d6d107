"""Fixtures for the MIL interpreter's tests: one operator at a time, coremltools' own values, and saved packages.

coremltools is only imported by the fixtures that need it, with its messages switched off.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from export.targets.coreml.mil.dtypes import BOOL, BY_NAME, INT32, DType, round_to
from export.targets.coreml.mil.executor import OPERATOR_MODULES
from export.targets.coreml.mil.files.package import Package
from export.targets.coreml.mil.interface import as_tensor
from export.targets.coreml.mil.registry import OPERATORS, Arguments, Value

assert OPERATOR_MODULES  # importing the executor fills OPERATORS
VARIADIC = {"values", "ref_tensors", "begins", "ends", "end_masks"}


def to_value(item: Any, dtype: DType | None = None) -> Value | str:
    if isinstance(item, (str, Value)):
        return item
    if isinstance(item, (bool, np.bool_)):
        return Value(torch.tensor(bool(item)), BOOL)
    if isinstance(item, list) and not item:
        return Value(torch.zeros(0, dtype=torch.int32), INT32)
    tensor, found = as_tensor(item)
    assert found is not None
    return Value(tensor, dtype or found)


@pytest.fixture(scope="session")
def kernel() -> Callable[..., Any]:
    """Runs one operator of the table: `kernel("add", x=..., y=...)`. Arrays keep their dtype, Python ints are int32."""

    def run(name: str, /, opset: int = 8, compute: torch.dtype = torch.float32, **inputs: Any) -> Any:
        values: dict[str, tuple[Value | str, ...]] = {}
        for key, item in inputs.items():
            many = key in VARIADIC and isinstance(item, (list, tuple))
            values[key] = tuple(to_value(part) for part in item) if many else (to_value(item),)
        arguments = Arguments(values, lambda: name, opset, compute)
        entry = OPERATORS[name]
        rule = entry.result(arguments)
        results = entry.run(arguments)
        if isinstance(results, torch.Tensor):
            assert isinstance(rule, DType)
            return round_to(results, rule)
        rules = rule if isinstance(rule, tuple) else (rule,) * len(results)
        return tuple(round_to(result, dtype) for result, dtype in zip(results, rules, strict=True))

    return run


@pytest.fixture(scope="session")
def mil() -> SimpleNamespace:
    """coremltools' names that the tests use: ct, mb, types, Function, and the blob writer and reader."""
    logging.getLogger("coremltools").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import coremltools as ct
        from coremltools.converters.mil.mil import Builder as mb
        from coremltools.converters.mil.mil import Function, get_new_symbol, types
        from coremltools.libmilstoragepython import _BlobStorageReader, _BlobStorageWriter

    return SimpleNamespace(
        ct=ct,
        mb=mb,
        types=types,
        Function=Function,
        symbol=get_new_symbol,
        Reader=_BlobStorageReader,
        Writer=_BlobStorageWriter,
    )


@pytest.fixture(scope="session")
def narrow(mil: SimpleNamespace) -> Callable[[str, Any], np.ndarray]:
    """An array of a type narrower than a byte, as coremltools marks them: `narrow("int4", [[1, -2]])`."""

    def make(name: str, values: Any) -> np.ndarray:
        array = np.array(values, dtype=np.int8 if BY_NAME[name].signed else np.uint8)
        return array.astype(mil.types.nptype_from_builtin(mil.types.string_to_builtin(name)))

    return make


@pytest.fixture(scope="session")
def inferred(mil: SimpleNamespace) -> Callable[..., Any]:
    """What coremltools' own value inference gives for an operator of constants: `inferred("add", x=..., y=...)`."""

    def run(name: str, /, opset: str = "iOS18", **inputs: Any) -> Any:
        with mil.Function({}, opset_version=getattr(mil.ct.target, opset)):
            result = getattr(mil.mb, name)(**inputs)
            return tuple(item.val for item in result) if isinstance(result, (list, tuple)) else result.val

    return run


@pytest.fixture(scope="session")
def save(mil: SimpleNamespace) -> Callable[..., Path]:
    """Serializes an `mb.program` as it stands (no graph passes unless asked) and returns the package's path."""

    def run(program: Any, path: Path, target: str = "iOS18", passes: bool = False, **options: Any) -> Path:
        if not passes:
            options["pass_pipeline"] = mil.ct.PassPipeline.EMPTY
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = mil.ct.convert(
                program,
                minimum_deployment_target=getattr(mil.ct.target, target),
                compute_precision=mil.ct.precision.FLOAT32,
                skip_model_load=True,
                **options,
            )
            model.save(str(path))
        return path

    return run


@pytest.fixture(scope="session")
def edit() -> Callable[..., None]:
    """Rewrites the specification of a package: `edit(path, lambda spec: ...)`."""

    def run(path: Path, change: Callable[[Any], Any]) -> None:
        package = Package(path)
        change(package.spec)
        package.model_path.write_bytes(package.spec.SerializeToString())

    return run


def main_block(spec: Any) -> Any:
    function = spec.mlProgram.functions["main"]
    return function.block_specializations[function.opset]


@pytest.fixture(scope="session")
def find() -> Callable[..., Any]:
    """The first operation of a type in the main function's block of a protobuf specification."""

    def run(spec: Any, kind: str) -> Any:
        return next(operation for operation in main_block(spec).operations if operation.type == kind)

    return run
