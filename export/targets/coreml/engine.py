"""What executes a Core ML package here: the MIL interpreter on any machine, Core ML itself on macOS.

    engine = open_engine(package)
    outputs = engine.predict("recur", {"state": x, ...})   # numpy in, numpy out; states stay with the engine

Both give the same two things: predictions of a function on one set of states, and those states' keys and values.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from export.targets.coreml.mil.interpreter import MilProgram
from export.targets.coreml.mil.program import Operation
from parcae_mobile.errors import ToolMissingError

# Weights are checked when they are written; what a cache holds was seen as the update that was put into it.
SEEN = frozenset({"const", "read_state", "write_state", "coreml_update_state", "slice_update"})


class Engine(Protocol):
    """One package with one set of states. `largest` is the greatest |value| among fp16 results that were seen, and
    `largest_at` the operation that it came from."""

    largest: float
    largest_at: str

    def predict(self, function: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]: ...

    def reset(self) -> None:
        """All states zero again."""
        ...

    def rest(self) -> None:
        """Let go of what was made for speed alone."""
        ...

    def read(self, state: str) -> np.ndarray: ...

    def write(self, state: str, value: np.ndarray) -> None: ...


class Interpreter:
    """The MIL interpreter, with a probe of the range of fp16 results."""

    def __init__(self, package: Path) -> None:
        self.program = MilProgram.open(package)
        self.largest, self.largest_at = 0.0, ""
        self._weights: set[tuple[str, str]] = set()  # of a function, which are the same in each prediction
        self.reset()

    def reset(self) -> None:
        self.state = self.program.make_state()

    def rest(self) -> None:
        self.program.rest()

    def predict(self, function: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        observe = partial(self._observe, function)
        outputs = self.program.predict(inputs, self.state, function, observer=observe, bounded=True)
        return {name: tensor.numpy() for name, tensor in outputs.items()}

    def read(self, state: str) -> np.ndarray:
        return self.state[state].numpy()

    def write(self, state: str, value: np.ndarray) -> None:
        self.state[state] = torch.from_numpy(value)

    def _observe(self, function: str, operation: Operation, results: tuple[torch.Tensor, ...]) -> None:
        if operation.type in SEEN or operation.name.startswith("mask"):
            return  # the mask is meant to be large
        if operation.type.startswith("constexpr_"):
            if (function, operation.name) in self._weights:
                return
            self._weights.add((function, operation.name))
        for result in results:
            if result.dtype == torch.float16 and result.numel():
                low, high = result.aminmax()
                largest = max(-float(low), float(high))
                if self.largest < math.inf and not largest <= self.largest:  # a NaN too: no comparison holds for it
                    self.largest = largest if largest == largest else math.inf
                    self.largest_at = f"{operation.type} '{operation.name}' of function {function}"


class CoreML:
    """Core ML through coremltools; needs macOS 15. Functions of a package share one set of states."""

    largest, largest_at = 0.0, ""  # Core ML shows no intermediate results

    def __init__(self, package: Path) -> None:
        from export.targets.coreml.noise import importing

        with importing():
            import coremltools as ct
        functions = MilProgram.open(package).functions
        single = len(functions) == 1
        self._models = {
            name: ct.models.MLModel(str(package), function_name=None if single else name) for name in functions
        }
        self._stateful = [name for name, function in functions.items() if function.states]
        self.reset()

    def reset(self) -> None:
        self.state = self._models[self._stateful[0]].make_state()

    def rest(self) -> None:
        pass  # what Core ML holds is its own affair

    def predict(self, function: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        state = self.state if function in self._stateful else None
        return dict(self._models[function].predict(dict(inputs), state=state))

    def read(self, state: str) -> np.ndarray:
        return np.asarray(self.state.read_state(state))

    def write(self, state: str, value: np.ndarray) -> None:
        self.state.write_state(state, value)


def open_engine(package: Path) -> Engine:
    """Core ML where there is one, else the interpreter. Raises `ToolMissingError` without coremltools on macOS."""
    if sys.platform != "darwin":
        return Interpreter(package)
    try:
        return CoreML(package)
    except ImportError:
        raise ToolMissingError("coremltools is not installed: pip install 'parcae-mobile[coreml]'") from None
