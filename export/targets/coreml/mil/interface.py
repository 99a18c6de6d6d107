"""The interface of a function: what the package says of its inputs, outputs and states, and checks of what is passed.

A package says it twice, in the program (types) and in the model description (features with size ranges). Both are
checked against each other when the package is opened.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from export.targets.coreml.mil.dtypes import BOOL, BY_NAME, FP16, DType, round_to
from export.targets.coreml.mil.errors import DeclarationError, FeatureError, LimitError, PackageError
from export.targets.coreml.mil.program import Function, Named
from parcae_mobile.zeros import zeros_on_demand

MOST_OF_A_STATE = 2**31  # values; of a state that is not written to, no memory is taken but addresses
# ArrayFeatureType.ArrayDataType
FEATURE_DTYPES = {65568: "fp32", 65600: "fp64", 131104: "int32", 65552: "fp16", 131080: "int8"}


@dataclass(frozen=True)
class Feature:
    """An input, output or state as the description has it.

    `ranges` are lower and upper size per axis (None is open), `shapes` the enumerated ones.
    """

    name: str
    dtype: str | None
    shape: tuple[int, ...]
    ranges: tuple[tuple[int, int | None], ...]
    shapes: tuple[tuple[int, ...], ...]
    optional: bool

    def admits(self, shape: tuple[int, ...]) -> bool:
        if self.shapes:
            return shape in self.shapes
        if self.ranges:
            return len(shape) == len(self.ranges) and all(
                low <= size and (high is None or size <= high)
                for size, (low, high) in zip(shape, self.ranges, strict=True)
            )
        return not self.shape or shape == self.shape

    def __str__(self) -> str:
        if self.shapes:
            return " or ".join(str(list(shape)) for shape in self.shapes)
        if self.ranges:
            sizes = (str(low) if low == high else f"{low}..{'' if high is None else high}" for low, high in self.ranges)
            return f"[{', '.join(sizes)}]"
        return str(list(self.shape))


def read_feature(message: Any, where: str) -> Feature:
    """A protobuf FeatureDescription. Raises PackageError for anything but a multi array or a state."""
    kind = message.type.WhichOneof("Type")
    if kind not in ("multiArrayType", "stateType"):
        raise PackageError(f"{where}: '{message.name}' is a {kind}, only multi arrays are supported")
    array = message.type.multiArrayType if kind == "multiArrayType" else message.type.stateType.arrayType
    ranges = tuple(
        (int(item.lowerBound), None if item.upperBound < 0 else int(item.upperBound))
        for item in array.shapeRange.sizeRanges
    )
    shapes = tuple(tuple(int(size) for size in item.shape) for item in array.enumeratedShapes.shapes)
    return Feature(
        message.name,
        FEATURE_DTYPES.get(array.dataType),
        tuple(int(size) for size in array.shape),
        ranges,
        shapes,
        bool(message.type.isOptional),
    )


class Interface:
    """Inputs, outputs and states of one function, checked against the model description."""

    def __init__(self, function: Function, description: Any, package: str) -> None:
        self.function = function
        self.where = f"{package}, function '{function.name}'"
        self.features = self._agreed(description.input, function.inputs, "inputs")
        self._agreed(description.state, function.states, "states")
        outputs = [read_feature(item, self.where) for item in description.output]
        if {item.name for item in outputs} != set(function.block.outputs):
            raise DeclarationError(
                f"{self.where}: the description has outputs {sorted(item.name for item in outputs)}, "
                f"the program {sorted(function.block.outputs)}"
            )
        self.outputs = {item.name: item for item in outputs}
        for state in function.states:
            if state.type.dtype is not FP16 or state.type.shape is None or None in state.type.shape:
                raise DeclarationError(
                    f"{self.where}: state '{state.name}' is {state.type}; Core ML states are fp16 of a fixed shape"
                )
            sizes = [size or 0 for size in state.type.shape]
            if min(sizes, default=0) < 0 or math.prod(sizes) > MOST_OF_A_STATE:
                raise LimitError(f"{self.where}: state '{state.name}' is {state.type}; no cache is that large")

    def _agreed(self, messages: Any, named: tuple[Named, ...], what: str) -> dict[str, Feature]:
        features = {item.name: read_feature(item, self.where) for item in messages}
        if set(features) != {item.name for item in named}:
            raise DeclarationError(
                f"{self.where}: the description has {what} {sorted(features)}, "
                f"the program {sorted(item.name for item in named)}"
            )
        for item in named:
            feature = features[item.name]
            sizes = feature.shapes or ((feature.shape,) if feature.shape else ())
            if feature.dtype != item.type.dtype.name or not all(item.type.admits(shape) for shape in sizes):
                raise DeclarationError(
                    f"{self.where}: '{item.name}' is {item.type} in the program, "
                    f"{feature.dtype} {feature} in the description"
                )
        return features

    def check_inputs(self, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
        """Copies of the inputs as tensors. Raises FeatureError: missing, unexpected, wrong dtype, wrong shape."""
        names = [item.name for item in self.function.inputs]
        missing = [name for name in names if name not in inputs]
        unexpected = [name for name in inputs if name not in names]
        if missing or unexpected:
            verdict = f"missing {missing}" if missing else f"unexpected {unexpected}"
            raise FeatureError(f"{self.where}: {verdict}; its inputs are {names}")
        checked = {}
        for item in self.function.inputs:
            tensor, dtype = as_tensor(inputs[item.name])
            shape, feature = tuple(tensor.shape), self.features[item.name]
            if dtype != item.type.dtype:
                raise FeatureError(
                    f"{self.where}: input '{item.name}' is {dtype or tensor.dtype}, want {item.type.dtype}"
                )
            if not item.type.admits(shape) or not feature.admits(shape):
                raise FeatureError(f"{self.where}: input '{item.name}' has shape {list(shape)}, want {feature}")
            checked[item.name] = tensor.clone()
        return checked

    def check_states(self, states: Mapping[str, Tensor]) -> None:
        """Raises FeatureError for a state that is missing or of another shape or dtype."""
        for item in self.function.states:
            if item.name not in states:
                raise FeatureError(f"{self.where}: state '{item.name}' is missing; make one with make_state()")
            state = states[item.name]
            if state.dtype != item.type.dtype.carrier or not item.type.admits(tuple(state.shape)):
                raise FeatureError(
                    f"{self.where}: state '{item.name}' is {state.dtype} {list(state.shape)}, want {item.type}"
                )

    def check_outputs(self, outputs: dict[str, Tensor]) -> None:
        """Raises DeclarationError where an output is not what the description promises."""
        for name, tensor in outputs.items():
            feature = self.outputs[name]
            dtype = BY_NAME[feature.dtype] if feature.dtype else None
            if (dtype is not None and dtype.carrier != tensor.dtype) or not feature.admits(tuple(tensor.shape)):
                raise DeclarationError(
                    f"{self.where}: output '{name}' is {tensor.dtype} {list(tensor.shape)}, "
                    f"the description has {feature.dtype} {feature}"
                )


def zeros(state: Named, dtype: torch.dtype | None = None) -> Tensor:
    """A state as it is at first, in its declared dtype or another: what is never written to takes no memory."""
    return zeros_on_demand([size or 0 for size in state.type.shape or ()], dtype or state.type.dtype.carrier)


def as_tensor(value: Any) -> tuple[Tensor, DType | None]:
    """A tensor, array, number or list as a tensor and its MIL dtype (None where MIL has none for it)."""
    if isinstance(value, Tensor):
        by_carrier = {item.carrier: item for item in BY_NAME.values() if item.bits >= 8 and item.signed}
        by_carrier |= {torch.bool: BOOL, torch.uint8: BY_NAME["uint8"]}
        return value.detach().cpu(), by_carrier.get(value.dtype)
    array = np.asarray(value)
    if not isinstance(value, (np.ndarray, np.generic)):
        # Python numbers carry no width: integers are int32 and floats fp32, as Core ML's own are.
        array = array.astype({"i": np.int32, "f": np.float32}.get(array.dtype.kind, array.dtype))
    name = {"float16": "fp16", "float32": "fp32", "float64": "fp64"}.get(array.dtype.name, array.dtype.name)
    dtype = BY_NAME.get(name)
    if dtype is None:
        return torch.zeros(array.shape), None
    data = array.astype(np.int64) if dtype.name in ("uint16", "uint32") else np.array(array)
    return round_to(torch.from_numpy(data), dtype), dtype
