"""MIL programs that no converter writes, as protobuf without coremltools, and which error each must end in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from export.targets.coreml.engine import Interpreter
from export.targets.coreml.mil.errors import (
    BlobError,
    DeclarationError,
    ExecutionError,
    LimitError,
    MilError,
    PackageError,
    UnknownOperatorError,
)
from export.targets.coreml.mil.files.schema import model_message

FP16, FP32, INT32, BOOL, STRING = 10, 11, 23, 1, 2


class Package:
    """A package under construction: y is computed from x (1, 8) fp32 by the operations that are added."""

    def __init__(self) -> None:
        self.spec = model_message()()
        self.spec.specificationVersion = 9
        self.feature(self.spec.description.input.add(), "x", [1, 8])
        self.feature(self.spec.description.output.add(), "y", [])
        self.program = self.spec.mlProgram
        self.program.version = 1
        self.function = self.program.functions["main"]
        self.function.opset = "CoreML8"
        self.kind(self.function.inputs.add(name="x").type, FP32, [1, 8])
        self.block = self.function.block_specializations["CoreML8"]
        self.block.outputs.append("y")

    @staticmethod
    def feature(message: Any, name: str, shape: list[int]) -> None:
        message.name = name
        message.type.multiArrayType.dataType = 65568
        message.type.multiArrayType.shape.extend(shape)

    @staticmethod
    def kind(message: Any, code: int, shape: list[int | None]) -> None:
        """A tensor type; None is a size that nobody knows."""
        message.tensorType.dataType = code
        message.tensorType.rank = len(shape)
        for size in shape:
            dimension = message.tensorType.dimensions.add()
            if size is None:
                dimension.unknown.variadic = False
            else:
                dimension.constant.size = size

    def add(
        self, kind: str, name: str, shape: list[int | None], code: int = FP32, /, block: Any = None, **inputs: Any
    ) -> Any:
        """An operation; inputs are names, lists of whole numbers, numbers, or truth values."""
        operation = (self.block if block is None else block).operations.add(type=kind)
        for key, value in inputs.items():
            for item in value if isinstance(value, tuple) else (value,):
                argument = operation.inputs[key].arguments.add()
                if isinstance(item, str):
                    argument.name = item
                else:
                    self.literal(argument.value, item)
        self.kind(operation.outputs.add(name=name).type, code, shape)
        return operation

    def literal(self, message: Any, value: Any) -> None:
        tensor = message.immediateValue.tensor
        listed = value if isinstance(value, list) else [value]
        shape: list[int | None] = [len(value)] if isinstance(value, list) else []
        if isinstance(listed[0], bool):
            self.kind(message.type, BOOL, shape)
            tensor.bools.values.extend(listed)
        elif isinstance(listed[0], float):
            self.kind(message.type, FP32, shape)
            tensor.floats.values.extend(listed)
        else:
            self.kind(message.type, INT32, shape)
            tensor.ints.values.extend(listed)

    def blob(self, name: str, shape: list[int | None], file: str, offset: int) -> None:
        """A constant in a weight file."""
        operation = self.block.operations.add(type="const")
        self.kind(operation.outputs.add(name=name).type, FP32, shape)
        value = operation.attributes["val"]
        self.kind(value.type, FP32, shape)
        value.blobFileValue.fileName, value.blobFileValue.offset = file, offset

    def save(self, folder: Path, weights: bytes | None = None) -> Path:
        place = folder / "net.mlpackage"
        inner = place / "Data" / "com.apple.CoreML"
        (inner / "weights").mkdir(parents=True)
        entry = {"path": "com.apple.CoreML/model.mlmodel", "name": "model.mlmodel", "author": "x", "description": ""}
        manifest = {"fileFormatVersion": "1.0.0", "itemInfoEntries": {"M": entry}, "rootModelIdentifier": "M"}
        (place / "Manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
        (inner / "model.mlmodel").write_bytes(self.spec.SerializeToString())
        if weights is not None:
            (inner / "weights" / "weight.bin").write_bytes(weights)
        return place


def execute(package: Path) -> Any:
    """Open the package and run it once, as a host does."""
    return Interpreter(package).predict("main", {"x": torch.ones(1, 8).numpy()})


Build = Callable[[Package], Any]


def packaged(build: Build, weights: bytes | None = None) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        package = Package()
        build(package)
        return package.save(folder, weights)

    return make


def chain(*steps: tuple[str, dict[str, Any]]) -> Build:
    """Operations one after the other, each on the result of the one before; sizes are open."""

    def build(package: Package) -> None:
        before = "x"
        for place, (kind, inputs) in enumerate(steps):
            name = "y" if place == len(steps) - 1 else f"v{place}"
            package.add(kind, name, [None, None], **{k: before if v == "" else v for k, v in inputs.items()})
            before = name

    return build


def loop(package: Package, depth: int = 1) -> None:
    """Loops in each other that never end."""

    def nest(block: Any, left: int) -> None:
        operation = package.add(
            "while_loop", f"r{left}", [1, 8], block=block, loop_vars="x" if left == depth else f"i{left + 1}"
        )
        condition, body = operation.blocks.add(), operation.blocks.add()
        for part, name in ((condition, f"c{left}"), (body, f"i{left}")):
            package.kind(part.inputs.add(name=name).type, FP32, [1, 8])
        package.add("const", f"t{left}", [], BOOL, block=condition, val=True)
        condition.operations[0].attributes["val"].CopyFrom(condition.operations[0].inputs["val"].arguments[0].value)
        del condition.operations[0].inputs["val"]
        condition.outputs.append(f"t{left}")
        if left > 1:
            nest(body, left - 1)
            body.outputs.append(f"r{left - 1}")
        else:
            package.add("relu", "b", [1, 8], block=body, x=f"i{left}")
            body.outputs.append("b")

    nest(package.block, depth)
    package.add("relu", "y", [1, 8], x=f"r{depth}")


def many_operations(package: Package) -> None:
    for index in range(30_000):
        package.add("relu", f"v{index}", [1, 8], x="x" if not index else f"v{index - 1}")
    package.add("evil", "y", [1, 8], x="v29999")


def doubled(package: Package) -> None:
    """Each result is twice the one before, by thirty short lines."""
    before = "x"
    for index in range(30):
        package.add("concat", f"v{index}", [None, 8], values=(before, before), axis=0, interleave=False)
        before = f"v{index}"
    package.add("relu", "y", [None, 8], x=before)


def products(package: Package) -> None:
    """Large matrix products, one after the other."""
    package.add("fill", "a", [4000, 4000], shape=[4000, 4000], value=1.0)
    before = "a"
    for index in range(40):
        package.add("matmul", f"v{index}", [4000, 4000], x=before, y="a", transpose_x=False, transpose_y=False)
        before = f"v{index}"
    package.add("relu", "y", [4000, 4000], x=before)


def named(kind: str, **inputs: Any) -> Build:
    return chain((kind, {"x": "", **inputs}))


def stateful(shape: list[int | None]) -> Build:
    """A state that nothing reads."""

    def build(package: Package) -> None:
        item = package.function.inputs.add(name="s")
        package.kind(item.type.stateType.wrappedType, FP16, shape)
        state = package.spec.description.state.add(name="s")
        state.type.stateType.arrayType.dataType = 65552
        state.type.stateType.arrayType.shape.extend([size or 0 for size in shape])
        package.add("relu", "y", [1, 8], x="x")

    return build


BIG = 2**30
PROGRAMS: list[tuple[str, Build, type[MilError]]] = [
    ("a loop without an end", loop, ExecutionError),
    ("loops in loops without an end", lambda p: loop(p, 3), ExecutionError),
    ("thirty thousand operators and an unknown one", many_operations, UnknownOperatorError),
    ("results that double", doubled, LimitError),
    ("products of large matrices", products, LimitError),
    ("a tile of billions", named("tile", reps=[BIG, 1]), LimitError),
    ("a tile of a product of billions", named("tile", reps=[BIG, BIG]), LimitError),
    ("a tile of negative sizes", named("tile", reps=[-1, 1]), ExecutionError),
    ("a fill of billions", lambda p: p.add("fill", "y", [None, None], shape=[BIG, 8], value=1.0), LimitError),
    ("a fill of negative sizes", lambda p: p.add("fill", "y", [None, None], shape=[-1, 8], value=1.0), ExecutionError),
    ("a range of billions", lambda p: p.add("range_1d", "y", [None], start=0.0, end=1e12, step=1.0), LimitError),
    (
        "an endless range",
        lambda p: p.add("range_1d", "y", [None], start=0.0, end=float("inf"), step=1.0),
        ExecutionError,
    ),
    ("a range without a step", lambda p: p.add("range_1d", "y", [None], start=0.0, end=1.0, step=0.0), ExecutionError),
    ("a pad of billions", named("pad", pad=[BIG, 0, 0, 0], constant_val=0.0), LimitError),
    (
        "a one-hot of billions",
        lambda p: p.add("one_hot", "y", [None, None], INT32, indices=[1, 2], one_hot_vector_size=BIG),
        LimitError,
    ),
    (
        "a sum that broadcasts",
        lambda p: (
            p.add("fill", "a", [10**5, 1], shape=[10**5, 1], value=1.0),
            p.add("fill", "b", [1, 10**5], shape=[1, 10**5], value=1.0),
            p.add("add", "y", [None, None], x="a", y="b"),
        ),
        LimitError,
    ),
    (
        "a choice that broadcasts",
        lambda p: (
            p.add("fill", "a", [10**5, 1], shape=[10**5, 1], value=1.0),
            p.add("fill", "b", [1, 10**5], shape=[1, 10**5], value=1.0),
            p.add("less", "c", [1, 8], BOOL, x="x", y="x"),
            p.add("select", "y", [None, None], cond="c", a="a", b="b"),
        ),
        MilError,
    ),
    (
        "a gather of billions",
        lambda p: (
            p.add("fill", "i", [10**8], INT32, shape=[10**8], value=0),
            p.add("gather", "y", [None, None], x="x", indices="i", axis=0),
        ),
        LimitError,
    ),
    (
        "a gather outside of its tensor",
        lambda p: p.add("gather", "y", [None, None], x="x", indices=[9], axis=0),
        ExecutionError,
    ),
    ("an axis that is not there", named("softmax", axis=7), ExecutionError),
    ("an axis of billions", named("reverse", axes=[BIG]), ExecutionError),
    ("a reshape to another size", named("reshape", shape=[3, 3]), ExecutionError),
    ("a reshape of a product that overflows", named("reshape", shape=[2**31 - 1, 2**31 - 1]), ExecutionError),
    (
        "a division of whole numbers by zero",
        lambda p: (p.add("floor_div", "q", [2], INT32, x=[1, 2], y=[0, 0]), p.add("relu", "y", [1, 8], x="x")),
        ExecutionError,
    ),
    (
        "a cast that does not fit",
        lambda p: (p.add("real_div", "q", [None, None], x="x", y=0.0), p.add("relu", "y", [1, 8], x="nowhere")),
        PackageError,
    ),
    ("a split into billions", named("split", num_splits=BIG, axis=1), MilError),
    ("a stride of zero", named("slice_by_index", begin=[0, 0], end=[1, 8], stride=[1, 0]), ExecutionError),
    ("a slice beyond its tensor", named("slice_by_index", begin=[0, 0], end=[1, 99]), ExecutionError),
    ("a convolution without strides", named("conv", weight="x", strides=[0]), ExecutionError),
    ("a result of another shape", lambda p: p.add("relu", "y", [1, 9], x="x"), DeclarationError),
    ("a result of another type", lambda p: p.add("relu", "y", [1, 8], FP16, x="x"), DeclarationError),
    ("an unknown type", lambda p: p.add("relu", "y", [1, 8], 99, x="x"), PackageError),
    ("a size of 2^63", lambda p: p.add("relu", "y", [2**63, 8], x="x"), MilError),
    ("a name that nothing defines", lambda p: p.add("relu", "y", [1, 8], x="nowhere"), PackageError),
    (
        "a name defined twice",
        lambda p: (p.add("relu", "y", [1, 8], x="x"), p.add("relu", "y", [1, 8], x="x")),
        PackageError,
    ),
    (
        "a result that is read before it is there",
        lambda p: (p.add("relu", "y", [1, 8], x="z"), p.add("relu", "z", [1, 8], x="x")),
        PackageError,
    ),
    ("an output that nothing defines", lambda p: p.add("relu", "z", [1, 8], x="x"), PackageError),
    ("no operations", lambda p: None, MilError),
    ("a parameter that is missing", lambda p: p.add("relu", "y", [1, 8]), ExecutionError),
    ("a parameter given twice", lambda p: p.add("relu", "y", [1, 8], x=("x", "x")), ExecutionError),
    ("an unknown operator", lambda p: p.add("evil", "y", [1, 8], x="x"), UnknownOperatorError),
    ("a loop of one block", lambda p: p.add("while_loop", "y", [1, 8], loop_vars="x"), PackageError),
    ("an opset of its own", lambda p: setattr(p.function, "opset", "Evil"), PackageError),
    ("no function", lambda p: p.program.functions.clear(), PackageError),
    ("another kind of model", lambda p: p.spec.neuralNetwork.layers.add(name="evil"), PackageError),
    ("a state of terabytes", stateful([2**20, 2**20]), LimitError),
    ("a state of no fixed size", stateful([None, 8]), MilError),
    (
        "a weight outside of the package",
        lambda p: (p.blob("w", [8], "@model_path/../../../../evil", 64), p.add("add", "y", [1, 8], x="x", y="w")),
        BlobError,
    ),
    (
        "a weight at an absolute place",
        lambda p: (p.blob("w", [8], "/etc/passwd", 64), p.add("add", "y", [1, 8], x="x", y="w")),
        BlobError,
    ),
    (
        "a weight of a zero byte",
        lambda p: (p.blob("w", [8], "@model_path/a\0b", 64), p.add("add", "y", [1, 8], x="x", y="w")),
        BlobError,
    ),
    (
        "a weight in no file",
        lambda p: (p.blob("w", [8], "@model_path/weights/none.bin", 64), p.add("add", "y", [1, 8], x="x", y="w")),
        BlobError,
    ),
]
