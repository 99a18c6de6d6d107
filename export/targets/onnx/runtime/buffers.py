"""Inputs and outputs of onnxruntime sessions at fixed places in memory, so that a decoding step binds nothing anew.

buffers = Buffers({"sequence": 1, "positions": 1})
stage = Bound(session, lambda port: buffers[port])          # every input and output, once
buffers.arrays["input_ids"][:] = token
stage.run()
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import onnxruntime as ort

from parcae_mobile.errors import InputError, ParcaeError

DTYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int8)": np.int8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}
MOST_VALUES = 2**28  # of one port: logits of a prompt's chunk over a vocabulary of a million
GIVE_BACK = ("memory.enable_memory_arena_shrinkage", "cpu:0")


@contextlib.contextmanager
def refusals(what: str) -> Iterator[None]:
    """What onnxruntime says of a graph that it does not take, as one line; `what` begins it.

    The runtime's exceptions have no common class but Exception; a graph of strangers may also name ports and sizes that
    nobody knows. Errors of ours pass.
    """
    try:
        yield
    except ParcaeError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(f"{what} ({reason}); export the artifact again") from error


class Buffers:
    """Arrays by the names of the ports that share them, shaped as declared with `sizes` for the open dimensions."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self.sizes = sizes
        self.arrays: dict[str, np.ndarray] = {}

    def __getitem__(self, port: ort.NodeArg) -> np.ndarray:
        if port.name not in self.arrays:
            shape = [dim if isinstance(dim, int) else self.sizes[dim] for dim in port.shape]
            if math.prod(shape) > MOST_VALUES:
                raise InputError(f"{port.name} has shape {shape}; no graph of ours does. Export the artifact again")
            self.arrays[port.name] = np.zeros(shape, DTYPES[port.type])
        return self.arrays[port.name]


class Bound:
    """A session whose inputs and outputs all lie in the arrays that `place` names for them."""

    def __init__(self, session: ort.InferenceSession, place: Callable[[ort.NodeArg], np.ndarray]) -> None:
        self._session, self._binding = session, session.io_binding()
        self._held: dict[str, np.ndarray] = {}  # onnxruntime keeps addresses, not arrays
        for port in session.get_inputs():
            self.bind_input(port.name, place(port))
        for port in session.get_outputs():
            array = self._held[port.name] = place(port)
            self._binding.bind_output(port.name, *_place(array))

    def bind_input(self, name: str, array: np.ndarray) -> None:
        """Move one input to another array."""
        self._held[name] = array
        self._binding.bind_input(name, *_place(array))

    def run(self, give_back: bool = False) -> None:
        """Compute; with `give_back` the session returns the memory of its intermediate results afterwards."""
        options = None
        if give_back:
            options = ort.RunOptions()
            options.add_run_config_entry(*GIVE_BACK)
        self._session.run_with_iobinding(self._binding, options)


def _place(array: np.ndarray) -> tuple[Any, ...]:
    return "cpu", 0, array.dtype.type, array.shape, array.ctypes.data
