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
import struct
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch

from export.targets.host import CacheGeometry, Chunk, Host
from parcae_mobile.errors import InputError, ToolMissingError, UsageError
from parcae_mobile.given_file import check_regular
from parcae_mobile.loops import KV_BYTES
from parcae_mobile.manifest import Manifest
from parcae_mobile.stage_names import STAGES

try:
    from executorch.extension.pybindings import _portable_lib
except ImportError:
    raise ToolMissingError("executorch is not installed: pip install 'parcae-mobile[executorch]'") from None

for _name in ("torchao", "torch.utils._pytree"):  # at import they tell of optional parts that are not there
    logging.getLogger(_name).setLevel(logging.ERROR)

MODEL = "model.pte"
DAMAGED = "a damaged ExecuTorch program"
HEADER = struct.Struct("<4sIQQQ")  # magic, header length, program size, segment base, size of all segments
HEADER_AT = 8
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
    size = check_regular(path, InputError)
    with path.open("rb") as file:
        start = file.read(HEADER_AT + HEADER.size)
    try:
        check_extent(start, size)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    load_kernels()
    set_threads(threads)
    try:
        # Not `_load_program`: it gives all methods one arena, so that each would overwrite the others' caches.
        module = _portable_lib._load_for_executorch(str(path))
        module.method_names()  # the file is not read before
    except RuntimeError as error:
        raise InputError(f"{path}: the ExecuTorch runtime does not load it ({error}); export it again") from None
    return module


def check_extent(start: bytes, size: int) -> None:
    """Raise `InputError` unless the header in a program's first bytes asks for no more than the file's `size`.

    The runtime believes the header. So this is asked before native code sees the file.
    """
    if len(start) < HEADER_AT + HEADER.size or start[HEADER_AT : HEADER_AT + 4] != b"eh00":
        raise InputError("not an ExecuTorch program with segments; export it again")
    _, length, program, base, segments = HEADER.unpack_from(start, HEADER_AT)
    least = max(program, base + segments)
    starts = HEADER_AT + HEADER.size
    if length < HEADER.size or program < starts or least > size or (segments and base < program):
        raise InputError(f"{DAMAGED}: {size} bytes where its header asks for {least}; copy it again")


class ExecutorchHost(Host):
    """One program in memory."""

    def __init__(self, path: Path, geometry: CacheGeometry, threads: int = 0) -> None:
        super().__init__(geometry)
        self._written_loops = geometry.max_loops  # the fewest that a token in the caches was computed with
        self._module = load_module(path, threads)
        methods = set(self._module.method_names())
        self.dynamic = self.takes_state = set(STAGES) <= methods
        if not self.dynamic and "forward" not in methods:
            raise InputError(f"{path}: neither forward nor prelude, recur and coda; export it again")
        self._at_once = self._constant("get_positions_at_once") if self.dynamic else 1
        self._chunk = self._constant("get_max_seq_len")

    @property
    def cache_bytes(self) -> int:
        """Bytes of the runtime's caches, for the full context: all of them are resident once the methods are loaded."""
        shapes = {stage: math.prod(self.geometry.shape(stage)) for stage in self.geometry.layers}
        return sum(2 * KV_BYTES["fp32"] * count * shapes[stage] for stage, count in self.geometry.layers.items())

    def _check(self, chunk: Chunk) -> None:
        """Also that no slot is read that a token of the past never wrote: the runtime's caches cannot be copied."""
        super()._check(chunk)
        if not self.dynamic and chunk.loops != self.geometry.max_loops:
            raise UsageError(f"loops = {chunk.loops}: this artifact is built for {self.geometry.max_loops}")
        apart = self.geometry.slots >= self.geometry.max_loops > 1
        if chunk.exit_threshold and (apart or not self.dynamic):
            raise UsageError(
                "early exit with ExecuTorch needs a dynamic artifact whose loops share a cache slot; "
                "export with --kv shared or first1+shared"
            )
        if chunk.start and min(chunk.loops, self.geometry.slots) > self._written_loops:
            raise UsageError(
                f"loops = {chunk.loops}: the tokens before were computed with {self._written_loops}; start again, "
                "or export with --kv shared"
            )

    def _run(self, chunk: Chunk) -> np.ndarray:
        self._written_loops = min(chunk.loops, self._written_loops) if chunk.start else chunk.loops
        ids = torch.from_numpy(chunk.tokens)
        state = None if chunk.state is None else torch.from_numpy(chunk.state)
        wanted = sorted(set(chunk.positions.tolist()))
        rows: dict[int, np.ndarray] = {}
        seen: list[list[np.ndarray]] = []  # by piece: the state after each loop
        used = 0
        for start, end in self._pieces(chunk.length, wanted):
            places = [place for place in wanted if start <= place < end]
            past, piece, inside = chunk.start + start, ids[:, start:end].contiguous(), [p - start for p in places]
            if self.dynamic:
                begin = None if state is None else state[:, start:end].contiguous()
                logits, states = self._run_stages(piece, past, inside, begin, chunk)
                seen.append(states)
                used = max(used, len(states))
            else:
                logits, used = self._call("forward", piece, torch.tensor([past]))[0], chunk.loops
            if places:
                rows |= dict(zip(places, logits[0].numpy(), strict=True))
        self.loops_used = used
        if chunk.on_state is not None:
            for loop in range(min(map(len, seen), default=0)):
                chunk.on_state(loop, np.concatenate([states[loop] for states in seen], axis=1))
        return np.stack([rows[place] for place in chunk.positions.tolist()])

    def _pieces(self, length: int, wanted: list[int]) -> Iterator[tuple[int, int]]:
        """Parts of a chunk that one call can take: a static file gives logits of the last place alone."""
        cuts = {*range(self._chunk, length, self._chunk), length}
        ends = sorted(cuts if self.dynamic else cuts | {place + 1 for place in wanted})
        yield from zip([0, *ends[:-1]], ends, strict=True)

    def _run_stages(
        self, ids: torch.Tensor, start: int, positions: list[int], state: torch.Tensor | None, chunk: Chunk
    ) -> tuple[torch.Tensor, list[np.ndarray]]:
        """Logits (1, positions, padded vocabulary) of a piece, and its state after each loop that ran."""
        past = torch.tensor([start])
        injected, *values = self._call("prelude", ids, past)
        if state is None:
            state = torch.zeros(1, ids.shape[1], self.geometry.state_width)
        states: list[np.ndarray] = []
        for loop in range(chunk.loops):
            slot, before = torch.tensor([self.slot_of("core_block", loop)]), state
            (state,) = self._call("recur", state, injected, past, slot, *values)
            states.append(state.numpy())
            every_slot_is_written = loop + 1 >= self.geometry.slots
            if every_slot_is_written and self.may_leave(chunk, loop + 1, before.numpy(), states[-1]):
                break
        chosen = torch.tensor(positions or [ids.shape[1] - 1])
        # Called again, the coda writes what it wrote; a loop in more pieces would not, where slots are shared.
        logits = [self._call("coda", state, ids, past, some)[0] for some in chosen.split(self._at_once)]
        return torch.cat(logits, dim=1), states

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
    stderr, sink = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(sink)
