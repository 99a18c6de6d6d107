"""Packages that were damaged or say what is not so: each is caught, by one line that names the place."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from export.targets.coreml.mil.errors import (
    BlobError,
    DeclarationError,
    ExecutionError,
    MilError,
    PackageError,
    UnknownOperatorError,
)
from export.targets.coreml.mil.interpreter import MilProgram, run_mlpackage
from export.targets.coreml.mil.program import Blob
from parcae_mobile.errors import InputError

INPUTS = {"x": torch.ones(1, 8)}
MODEL = Path("Data/com.apple.CoreML/model.mlmodel")
WEIGHTS = Path("Data/com.apple.CoreML/weights/weight.bin")


@pytest.fixture(scope="module")
def original(mil: Any, save: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """y = relu(x W^T) with W of ones (4 x 8) in weight.bin, then a slice and a loop that adds 1 once."""
    mb = mil.mb

    @mb.program(input_specs=[mb.TensorSpec((1, 8), mil.types.fp32)], opset_version=mil.ct.target.iOS18)
    def program(x: Any) -> Any:
        y = mb.relu(x=mb.linear(x=x, weight=np.ones((4, 8), np.float32), name="product"), name="positive")
        part = mb.slice_by_index(x=y, begin=[0, 1], end=[1, 4], name="part")
        return mb.identity(x=part, name="y")

    return Path(save(program, tmp_path_factory.mktemp("package") / "net.mlpackage"))


@pytest.fixture
def package(original: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(original, tmp_path / "net.mlpackage"))


def one_line(caught: pytest.ExceptionInfo[MilError], *parts: str) -> None:
    text = str(caught.value)
    assert "\n" not in text and all(part in text for part in parts), text
    assert isinstance(caught.value, InputError) and caught.value.exit_code == 3


def weight_offset(package: Path) -> int:
    for operation in MilProgram.open(package).constants():
        value = operation.inputs["val"][0]
        if isinstance(value, Blob) and value.type.shape == (4, 8):
            return value.offset
    raise AssertionError("the weight is not in weight.bin")


def test_the_undamaged_package_runs(package: Path) -> None:
    assert run_mlpackage(package, INPUTS)["y"].tolist() == [[8.0, 8.0, 8.0]]


def test_one_altered_weight_byte_changes_the_result(package: Path) -> None:
    data = bytearray((package / WEIGHTS).read_bytes())
    payload = int.from_bytes(data[weight_offset(package) + 16 :][:8], "little")
    data[payload + 8 * 4 + 3] ^= 0x40  # the exponent of W[1, 0]
    (package / WEIGHTS).write_bytes(data)
    assert run_mlpackage(package, INPUTS)["y"].tolist() != [[8.0, 8.0, 8.0]]


def test_a_missing_weight_file(package: Path) -> None:
    (package / WEIGHTS).unlink()
    with pytest.raises(BlobError) as caught:
        run_mlpackage(package, INPUTS)
    one_line(caught, "net.mlpackage", "const", "weights/weight.bin is missing")


def test_a_truncated_weight_file(package: Path) -> None:
    (package / WEIGHTS).write_bytes((package / WEIGHTS).read_bytes()[:-200])
    with pytest.raises(BlobError) as caught:
        run_mlpackage(package, INPUTS)
    one_line(caught, "net.mlpackage", "weight.bin")


def test_a_wrong_blob_offset(package: Path, edit: Any) -> None:
    def shift(spec: Any) -> None:
        for operation in all_operations(spec):
            if operation.type == "const" and operation.attributes["val"].HasField("blobFileValue"):
                operation.attributes["val"].blobFileValue.offset += 64

    edit(package, shift)
    with pytest.raises(BlobError) as caught:
        run_mlpackage(package, INPUTS)
    one_line(caught, "net.mlpackage", "weight.bin at offset")


def all_operations(spec: Any) -> Any:
    function = spec.mlProgram.functions["main"]
    return function.block_specializations[function.opset].operations


def test_an_unknown_operator_is_refused_before_anything_runs(package: Path, edit: Any, find: Any) -> None:
    def rename(spec: Any) -> None:
        find(spec, "relu").type = "relu_squared"

    edit(package, rename)
    with pytest.raises(UnknownOperatorError) as caught:
        MilProgram.open(package)
    one_line(caught, "net.mlpackage", "relu_squared ('positive')")


@pytest.mark.parametrize("kind", ["linear", "relu", "slice_by_index"])
@pytest.mark.parametrize("change", ["size", "rank", "dtype"])
def test_a_wrong_declaration(package: Path, edit: Any, find: Any, kind: str, change: str) -> None:
    def declare(spec: Any) -> None:
        declared = find(spec, kind).outputs[0].type.tensorType
        if change == "size":
            declared.dimensions[1].constant.size += 1
        elif change == "rank":
            declared.rank = 1
            del declared.dimensions[0]
        else:
            declared.dataType = 10  # FLOAT16

    edit(package, declare)
    with pytest.raises(DeclarationError) as caught:
        run_mlpackage(package, INPUTS)
    one_line(caught, "net.mlpackage", f"{kind} '", "is declared")


def test_rank_and_dimensions_that_disagree(package: Path, edit: Any, find: Any) -> None:
    def declare(spec: Any) -> None:
        find(spec, "relu").outputs[0].type.tensorType.rank = 5

    edit(package, declare)
    with pytest.raises(PackageError, match="declares rank 5 and 2 dimensions"):
        MilProgram.open(package)


def test_an_unknown_dimension_admits_any_size(package: Path, edit: Any, find: Any) -> None:
    def loosen(spec: Any) -> None:
        find(spec, "relu").outputs[0].type.tensorType.dimensions[1].unknown.variadic = False

    edit(package, loosen)
    assert run_mlpackage(package, INPUTS)["y"].tolist() == [[8.0, 8.0, 8.0]]


def test_a_slice_beyond_its_tensor_is_not_clamped(package: Path, edit: Any, find: Any) -> None:
    def stretch(spec: Any) -> None:
        name = find(spec, "slice_by_index").inputs["end"].arguments[0].name
        for operation in all_operations(spec):
            if operation.type == "const" and operation.outputs[0].name == name:
                operation.attributes["val"].immediateValue.tensor.ints.values[1] = 5

    edit(package, stretch)
    with pytest.raises(ExecutionError) as caught:
        run_mlpackage(package, INPUTS)
    one_line(caught, "slice_by_index 'part'", "'end' 5 is out of range for axis 1 of size 4")


def test_torch_failures_name_operation_and_shapes(package: Path, edit: Any, find: Any) -> None:
    def wrong_bias(spec: Any) -> None:
        linear = find(spec, "linear")
        linear.inputs["bias"].arguments[0].name = linear.inputs["weight"].arguments[0].name

    edit(package, wrong_bias)
    with pytest.raises(ExecutionError) as caught:
        run_mlpackage(package, INPUTS)
    one_line(caught, "linear 'product'", "weight [4, 8]")


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda p: (p / "Manifest.json").unlink(), PackageError, "no Manifest.json"),
        (lambda p: (p / "Manifest.json").write_text("{"), PackageError, "not valid JSON"),
        (lambda p: (p / "Manifest.json").write_text("{}"), PackageError, "names no root model"),
        (lambda p: (p / "Manifest.json").write_text("[]"), PackageError, "names no root model"),
        (lambda p: redirect(p, "../../escape.mlmodel"), PackageError, "outside of the package"),
        (lambda p: (p / MODEL).unlink(), PackageError, "that Manifest.json names is missing"),
        (lambda p: (p / MODEL).write_bytes(b"\xff" * 40), PackageError, "no Core ML specification"),
        (lambda p: (p / MODEL).write_bytes(b""), PackageError, "only an ML Program can be executed"),
        (lambda p: (p / WEIGHTS).write_bytes(b""), BlobError, "empty"),
    ],
)
def test_damaged_packages(package: Path, damage: Callable[[Path], Any], error: type[MilError], message: str) -> None:
    damage(package)
    with pytest.raises(error, match=message) as caught:
        run_mlpackage(package, INPUTS)
    one_line(caught)


def redirect(package: Path, target: str) -> None:
    manifest = json.loads((package / "Manifest.json").read_text())
    manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"] = target
    (package / "Manifest.json").write_text(json.dumps(manifest))


def set_fields(spec: Any, **fields: str) -> None:
    spec.description.input[0].name = fields.get("input", "x")
    spec.description.output[0].name = fields.get("output", "y")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda s: set_fields(s, input="z"), DeclarationError, r"inputs \['z'\], the program \['x'\]"),
        (lambda s: set_fields(s, output="z"), DeclarationError, r"outputs \['z'\], the program \['y'\]"),
        (lambda s: setattr(s.description.input[0].type.multiArrayType, "dataType", 65552), DeclarationError, "fp16"),
        (lambda s: s.description.input[0].type.multiArrayType.shape.append(3), DeclarationError, "in the description"),
        (lambda s: s.description.input[0].type.imageType.SetInParent(), PackageError, "is a imageType"),
        (lambda s: setattr(s.description, "defaultFunctionName", "other"), PackageError, "no default function 'other'"),
        (lambda s: setattr(s.mlProgram.functions["main"], "opset", "CoreML99"), PackageError, "no block for its opset"),
        (lambda s: all_operations(s).pop(-1), PackageError, "the output 'y' is defined by nothing"),
        (lambda s: all_operations(s)[-1].inputs["x"].arguments.pop(), ExecutionError, "'x' is missing"),
        (
            lambda s: setattr(all_operations(s)[-1].inputs["x"].arguments[0], "name", "ghost"),
            PackageError,
            "reads 'ghost', which nothing defines",
        ),
        (lambda s: escape(s), BlobError, "lies outside of the package"),
    ],
)
def test_specifications_that_contradict_themselves(
    package: Path, edit: Any, change: Callable[[Any], Any], error: type[MilError], message: str
) -> None:
    edit(package, change)
    with pytest.raises(error, match=message) as caught:
        run_mlpackage(package, INPUTS)
    one_line(caught, "net.mlpackage")


def escape(spec: Any) -> None:
    for operation in all_operations(spec):
        if operation.type == "const" and operation.attributes["val"].HasField("blobFileValue"):
            operation.attributes["val"].blobFileValue.fileName = "@model_path/../../../weight.bin"


def test_an_output_that_breaks_its_description(package: Path, edit: Any) -> None:
    def promise(spec: Any) -> None:
        spec.description.output[0].type.multiArrayType.shape[:] = [1, 7]

    edit(package, promise)
    with pytest.raises(DeclarationError, match=r"output 'y' is .* the description has fp32 \[1, 7\]"):
        run_mlpackage(package, INPUTS)


def test_states_that_core_ml_would_not_take(mil: Any, save: Any, edit: Any, tmp_path: Path) -> None:
    mb = mil.mb

    @mb.program(
        input_specs=[mb.TensorSpec((2,), mil.types.fp16), mb.StateTensorSpec((2,), mil.types.fp16)],
        opset_version=mil.ct.target.iOS18,
    )
    def program(x: Any, s: Any) -> Any:
        return mb.add(x=x, y=mb.read_state(input=s), name="y")

    path = save(program, tmp_path / "state.mlpackage")

    def widen(spec: Any) -> None:
        spec.mlProgram.functions["main"].inputs[1].type.stateType.wrappedType.tensorType.dataType = 11
        spec.description.state[0].type.stateType.arrayType.dataType = 65568

    edit(path, widen)
    with pytest.raises(DeclarationError, match="Core ML states are fp16 of a fixed shape"):
        MilProgram.open(path)


def test_a_select_that_broadcasts_beyond_its_declaration_is_caught(mil: Any, save: Any, tmp_path: Path) -> None:
    """The converter declares rank 0 for a select of two numbers, whatever the condition's shape."""
    mb = mil.mb

    @mb.program(input_specs=[mb.TensorSpec((3,), mil.types.fp32)], opset_version=mil.ct.target.iOS18)
    def program(x: Any) -> Any:
        condition = mb.greater(x=x, y=np.float32(0))
        chosen = mb.select(cond=condition, a=np.float32(0), b=np.float32(-30000), name="mask")
        return mb.add(x=x, y=chosen, name="y")

    with pytest.raises(
        DeclarationError, match=r"select 'mask': 'mask' is declared fp32 \[\], the result is fp32 \[3\]"
    ):
        run_mlpackage(save(program, tmp_path / "select.mlpackage"), {"x": torch.ones(3)})
