"""Runs ExecuTorch artifacts here, through the runtime of the executorch package; caches live in the runtime.

    host = ExecutorchHost(folder / "model.pte", geometry, threads=1)
    logits = host.run(ids, loops=8)                        # (positions, vocabulary); the caches now hold `ids`

The loop of a dynamic file is the one that an app writes: prelude once, recur once per loop with its cache slot, coda.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch

from export.targets.host import CacheGeometry, Host
from parcae_mobile.errors import InputError, ToolMissingError, UsageError
from parcae_mobile.manifest import Manifest

try:
    from executorch.extension.pybindings import _portable_lib
except ImportError:
    raise ToolMissingError("executorch is not installed: pip install 'parcae-mobile[executorch]'") from None

for _name in ("torchao", "torch.utils._pytree"):  # at import they tell of optional parts that are not there
    logging.getLogger(_name).setLevel(logging.ERROR)

MODEL = "model.pte"
StateCallback = Callable[[int, np.ndarray], None]
KERNELS = (
    ("executorch.extension.llm.custom_ops", "libcustom_ops_aot_lib.so"),
    ("executorch.kernels.quantized", "libquantized_ops_aot_lib.so"),
)


def open_host(folder: Path, manifest: Manifest, threads: int = 0) -> Host:
    """The executorch package's own runtime, on this machine's CPU."""
    return ExecutorchHost(folder / MODEL, CacheGeometry.from_manifest(manifest), threads)


def load_kernels() -> None:
    """Register the cache, attention and quantized-embedding kernels with the runtime of this process."""
    for package, library in KERNELS:
        path = resources.files(package).joinpath(library)
        torch.ops.load_library(str(path))


def set_threads(count: int) -> None:
    """Start the runtime's pool, which the process has one of, with `count` threads; 0 leaves the number to it."""
    with silent_stderr():
        if count:
            _portable_lib._unsafe_reset_threadpool(count)
        else:
            _portable_lib._threadpool_get_thread_count()


def load_module(path: Path, threads: int = 0) -> Any:
    """A program with the kernels that it needs.

    Raises `InputError` for a file that the runtime does not take.
    """
    load_kernels()
    set_threads(threads)
    try:
        # Not `_load_program`: it gives all methods one arena, so that each would overwrite the others' caches.
        module = _portable_lib._load_for_executorch(str(path))
        module.method_names()  # the file is not read before
    except RuntimeError as error:
        raise InputError(f"{path}: the ExecuTorch runtime does not load it ({error}); export it again") from None
    return module


class ExecutorchHost(Host):
    """One program in memory. Not thread-safe: it owns one conversation's cache."""

    def __init__(self, path: Path, geometry: CacheGeometry, threads: int = 0) -> None:
        super().__init__(geometry)
        self._held_loops, self._exit_threshold = geometry.max_loops, 0.0
        self._module = load_module(path, threads)
        methods = set(self._module.method_names())
        self.dynamic = {"prelude", "recur", "coda"} <= methods
        if not self.dynamic and "forward" not in methods:
            raise InputError(f"{path}: neither forward nor prelude, recur and coda; export it again")
        self._at_once = self._constant("get_positions_at_once") if self.dynamic else 1
        self._chunk = self._constant("get_max_seq_len")

    def run(
        self,
        ids: Sequence[int],
        loops: int,
        positions: Sequence[int] | None = None,
        initial_state: np.ndarray | None = None,
        on_state: StateCallback | None = None,
        exit_threshold: float = 0.0,
    ) -> np.ndarray:
        self.check(len(ids), loops)
        self._check_slots(loops, exit_threshold)
        self._exit_threshold, self.loops_used = exit_threshold, 0
        wanted = list(range(len(ids))) if positions is None else list(positions)
        state = None if initial_state is None else torch.from_numpy(np.ascontiguousarray(initial_state, np.float32))
        rows: dict[int, np.ndarray] = {}
        states: dict[int, list[np.ndarray]] = {}
        for start, end in self._pieces(len(ids), wanted):
            inside = [place for place in sorted(set(wanted)) if start <= place < end]
            piece = torch.tensor([list(ids[start:end])], dtype=torch.int64)
            begin = None if state is None else state[:, start:end].contiguous()
            logits = self._run_piece(piece, loops, [place - start for place in inside], begin, states)
            rows |= dict(zip(inside, logits, strict=True))
            self.length += end - start
        if on_state is not None:
            for loop, parts in sorted(states.items()):
                on_state(loop, np.concatenate(parts, axis=1))
        return np.stack([rows[place] for place in wanted])

    def reset(self) -> None:
        super().reset()
        self._held_loops = self.geometry.max_loops

    @property
    def cache_bytes(self) -> int:
        """Bytes of the runtime's caches, for the full context: all of them are resident once the methods are loaded."""
        shapes = {stage: math.prod(self.geometry.shape(stage)) for stage in self.geometry.layers}
        return sum(2 * 4 * count * shapes[stage] for stage, count in self.geometry.layers.items())

    def _check_slots(self, loops: int, exit_threshold: float) -> None:
        """A slot that a token of the past never wrote must not be read: the runtime's caches cannot be copied."""
        apart = self.geometry.slots == self.geometry.max_loops > 1
        if exit_threshold and (apart or not self.dynamic):
            raise UsageError(
                "early exit with ExecuTorch needs a dynamic artifact whose loops share a cache slot; "
                "export with --kv shared or first1+shared"
            )
        if self.length and min(loops, self.geometry.slots) > self._held_loops:
            raise UsageError(
                f"loops = {loops}: the tokens before were computed with {self._held_loops}; start again, "
                "or export with --kv shared"
            )
        self._held_loops = min(loops, self._held_loops) if self.length else loops

    def _pieces(self, length: int, wanted: list[int]) -> Iterator[tuple[int, int]]:
        """Parts of a chunk that one call can take: a static file gives logits of the last place alone."""
        step = self._chunk if not self.dynamic or len(set(wanted)) <= self._at_once else self._at_once
        cuts = {*range(step, length, step), length}
        ends = sorted(cuts if self.dynamic else cuts | {place + 1 for place in wanted})
        yield from zip([0, *ends[:-1]], ends, strict=True)

    def _run_piece(
        self,
        ids: torch.Tensor,
        loops: int,
        positions: list[int],
        state: torch.Tensor | None,
        states: dict[int, list[np.ndarray]],
    ) -> list[np.ndarray]:
        past = torch.tensor([self.length])
        if not self.dynamic:
            if loops != self.geometry.max_loops:
                raise UsageError(f"loops = {loops}: this artifact is built for {self.geometry.max_loops}")
            if state is not None and bool(state.any()):
                raise UsageError("a static ExecuTorch artifact starts from zero; use a dynamic one for another state")
            self.loops_used = loops
            logits = self._call("forward", ids, past)[0]
            return list(logits[0].numpy()) if positions else []
        injected, *values = self._call("prelude", ids, past)
        if state is None:
            state = torch.zeros(1, ids.shape[1], self.geometry.state_width)
        for loop in range(loops):
            slot, before = torch.tensor([self.slot_of("core_block", loop)]), state
            (state,) = self._call("recur", state, injected, past, slot, *values)
            states.setdefault(loop, []).append(state.numpy())
            self.loops_used = max(self.loops_used, loop + 1)
            # Every slot must be written before a token may leave.
            may_leave = self._exit_threshold and loop + 1 >= self.geometry.slots
            if may_leave and self.converged(before.numpy(), state.numpy(), self._exit_threshold):
                break
        chosen = torch.tensor(positions or [ids.shape[1] - 1])
        logits = self._call("coda", state, ids, past, chosen)[0]
        return list(logits[0].numpy()) if positions else []

    def _constant(self, method: str) -> int:
        return int(self._module.run_method(method, ())[0])

    def _call(self, method: str, *inputs: torch.Tensor) -> list[torch.Tensor]:
        try:
            outputs: list[torch.Tensor] = self._module.run_method(method, inputs)
        except RuntimeError as error:
            raise InputError(
                f"the ExecuTorch runtime cannot run {method} of this file ({error}); export it again"
            ) from None
        return outputs


@contextlib.contextmanager
def silent_stderr() -> Iterator[None]:
    """Drop what native code writes to stderr meanwhile (the thread pool lists processors that it does not find)."""
    sys.stderr.flush()
    kept, sink = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(sink)
