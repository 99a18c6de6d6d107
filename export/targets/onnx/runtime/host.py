"""Runs ONNX artifacts here, through onnxruntime, with caches that are allocated once and updated in place.

host = OnnxHost(folder, loop_form="stages", geometry=geometry, threads=1)
logits = host.run(ids, loops=8)                        # (positions, vocabulary); the cache now holds `ids`

Chunks of one token, which is decoding, find their inputs and outputs bound already. Longer chunks are a prompt's: what
they needed beyond the cache is given back when they are done.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from export.targets.host import CacheGeometry, Chunk, Host
from export.targets.onnx.runtime.mapped_file import WEIGHTS, give_back_pages
from parcae_mobile.errors import ToolMissingError, UsageError
from parcae_mobile.heap import give_back_heap
from parcae_mobile.stage_names import STAGES

try:
    import onnxruntime as ort
except ImportError:
    raise ToolMissingError("onnxruntime is not installed: pip install 'parcae-mobile[onnx]'") from None

from export.targets.onnx.runtime.buffers import Bound, Buffers, refusals

LEAST_CAPACITY = 256  # tokens that the caches hold at first
GIVE_BACK_EVERY = 64  # decoded tokens between two times that pages of the weights file are given back
# Each session has a pool of threads, which wait by spinning: those of one stage would slow the next one's.
SPINNING = {"session.force_spinning_stop": "1"}


class Workspace:
    """Buffers of chunks of one length, and the sessions bound to them and to the caches."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self.sizes, self.buffers = sizes, Buffers(sizes)
        self.states: tuple[np.ndarray, ...] = ()
        self.bound: dict[tuple[str | int, ...], Bound] = {}

    def fill(self, chunk: Chunk) -> None:
        """Write a chunk's inputs where the sessions read them."""
        values = {"input_ids": chunk.tokens, "total": chunk.total, "positions": chunk.positions}
        for name, value in values.items():
            if name in self.buffers.arrays:
                self.buffers.arrays[name][...] = value


class OnnxHost(Host):
    """One artifact in memory. Not thread-safe: it owns one conversation's cache."""

    prefill_chunk = 128  # attention computes a chunk's whole square, so smaller ones save what the mask hides

    def __init__(
        self,
        folder: Path,
        loop_form: str,
        geometry: CacheGeometry,
        threads: int = 0,
        kv_dtype: str = "fp32",
        graphs: Mapping[int, str] | None = None,
        settings: Mapping[str, str] | None = None,
        halves: bool = False,
    ) -> None:
        """`graphs` are the files of a static artifact's loop counts; `settings` are onnxruntime's session entries.

        `halves` says that matrices are stored in fp16, which loading has to widen.
        """
        super().__init__(geometry)
        self.loop_form, self._folder = loop_form, folder
        self.exits_early, self.takes_state = loop_form == "stages", loop_form != "unrolled"
        self._kv_dtype = {"fp32": np.float32, "int8": np.int8}[kv_dtype]
        self._options = ort.SessionOptions()
        self._options.log_severity_level = 3
        self._options.intra_op_num_threads = threads
        self._options.inter_op_num_threads = 1
        for name, value in (SPINNING | dict(settings or {})).items():
            self._options.add_session_config_entry(name, value)
        # onnxruntime keeps a plan of its memory for each new shape, and the static form's mask has one for each token.
        self._options.enable_mem_pattern = loop_form != "unrolled"
        # Graphs of contrib operators are written as they shall run, but for matrices in fp16: loading widens them once.
        if loop_form != "unrolled" and not settings and not halves:
            self._options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._graphs = graphs or {}
        self._sessions: dict[str, ort.InferenceSession] = {}
        if loop_form == "stages":
            for name in reversed(STAGES):  # coda first: loading the head takes the most, in passing
                self._session(f"model_{name}.onnx")
        else:
            self._session("model.onnx")
        give_back_heap()
        give_back_pages(folder / WEIGHTS)
        self._caches: dict[str, np.ndarray] = {}
        self._capacity = self._slots = 0
        self._step: Workspace | None = None

    def _run(self, chunk: Chunk) -> np.ndarray:
        with refusals(f"{self._folder}: onnxruntime does not run its graphs"):
            self._reserve(chunk.total, chunk.loops)
            logits = self._compute(chunk)[0]
        self._fill_above(self.loops_used, chunk.start, chunk.total)
        if chunk.is_prompt or chunk.total % GIVE_BACK_EVERY == 0:
            give_back_pages(self._folder / WEIGHTS)
        if chunk.is_prompt:
            give_back_heap()
        return logits

    def _compute(self, chunk: Chunk) -> np.ndarray:
        if self.loop_form == "stages":
            return self._run_stages(chunk)
        return self._run_scan(chunk) if self.loop_form == "scan" else self._run_unrolled(chunk)

    def reset(self) -> None:
        super().reset()
        self._caches.clear()
        self._capacity = self._slots = 0
        self._step = None

    @property
    def cache_bytes(self) -> int:
        """Bytes of the cache arrays that are bound."""
        return sum(cache.nbytes for cache in self._caches.values())

    def _run_stages(self, chunk: Chunk) -> np.ndarray:
        work = self._workspace(chunk)
        width = self.geometry.state_width
        if not work.states:
            work.states = tuple(np.zeros((1, chunk.length, width), np.float32) for _ in range(2))
        work.states[0][...] = 0 if chunk.state is None else chunk.state
        for name in ("coda", "prelude"):
            self._stage(work, name)  # its inputs are what `fill` writes
        work.fill(chunk)
        self._stage(work, "prelude").run(give_back=chunk.is_prompt)
        for loop in range(chunk.loops):
            before, after = (work.states[(loop + turn) % 2] for turn in (0, 1))
            last = loop + 1 == chunk.loops
            self._stage(work, "recur", self.slot_of("core_block", loop), loop % 2).run(last and chunk.is_prompt)
            if chunk.on_state is not None:
                chunk.on_state(loop, after.copy())
            if self.may_leave(chunk, loop + 1, before, after):
                self.loops_used = loop + 1
                break
        self._stage(work, "coda", turn=self.loops_used % 2).run(give_back=chunk.is_prompt)
        return work.buffers.arrays["logits"].copy()

    def _run_scan(self, chunk: Chunk) -> np.ndarray:
        work = self._workspace(chunk)
        key = ("scan", chunk.loops)
        if key not in work.bound:

            def place(port: ort.NodeArg) -> np.ndarray:
                kind, _, rest = port.name.partition(".")
                if kind not in ("past", "present"):
                    return work.buffers[port]
                graph, index, part = rest.split(".")
                cache = self._cache(STAGES[graph], int(index), part)
                return cache[: chunk.loops] if graph == "recur" else cache[0]

            work.bound[key] = Bound(self._session("model.onnx"), place)
        work.fill(chunk)
        arrays = work.buffers.arrays
        arrays["initial_state"][...] = 0 if chunk.state is None else chunk.state
        work.bound[key].run(give_back=chunk.is_prompt)
        if chunk.on_state is not None:
            chunk.on_state(chunk.loops - 1, arrays["final_state"].copy())
        return arrays["logits"].copy()

    def _run_unrolled(self, chunk: Chunk) -> np.ndarray:
        work = self._workspace(chunk)
        key, mask = ("unrolled", chunk.loops), np.ones((1, chunk.total), np.int64)
        if key not in work.bound:
            recurrent = self.slot_of("core_block", chunk.loops - 1) + 1
            slots = [
                (stage, slot, index)
                for stage, count in (("prelude", 1), ("core_block", recurrent), ("coda", 1))
                for slot in range(count)
                for index in range(self.geometry.layers[stage])
            ]

            def place(port: ort.NodeArg) -> np.ndarray:
                kind, _, rest = port.name.partition(".")
                if kind not in ("past_key_values", "present"):
                    return mask if kind == "attention_mask" else work.buffers[port]
                layer, part = rest.split(".")
                stage, slot, index = slots[int(layer)]
                return self._cache(stage, index, part)[slot]

            work.bound[key] = Bound(self._unrolled(chunk.loops), place)
        work.fill(chunk)
        work.bound[key].bind_input("attention_mask", mask)
        work.bound[key].run(give_back=chunk.is_prompt)
        logits = work.buffers.arrays["logits"]
        return logits.copy() if logits.shape[1] == len(chunk.positions) else logits[:, chunk.positions]

    def _stage(self, work: Workspace, name: str, slot: int = 0, turn: int = 0) -> Bound:
        """A stage on one cache slot; the recurrent state is read from the one array of `turn` and written to the other.

        (Loops and coda may then read a state that is still needed for comparison.)
        """
        key = (name, slot, turn)
        if key not in work.bound:

            def place(port: ort.NodeArg) -> np.ndarray:
                kind, _, rest = port.name.partition(".")
                if kind in ("past", "present"):
                    index, part = rest.split(".")
                    return self._cache(STAGES[name], int(index), part)[slot]
                turns = {"state": turn, "next_state": 1 - turn}
                return work.states[turns[kind]] if kind in turns else work.buffers[port]

            work.bound[key] = Bound(self._session(f"model_{name}.onnx"), place)
        return work.bound[key]

    def _workspace(self, chunk: Chunk) -> Workspace:
        """Buffers for this chunk: those of the last token if this is one more, new ones otherwise."""
        sizes = {"sequence": chunk.length, "positions": len(chunk.positions)}
        if chunk.is_prompt:
            return Workspace(sizes)
        if self._step is None or self._step.sizes != sizes:
            self._step = Workspace(sizes)
        return self._step

    def _session(self, file: str) -> ort.InferenceSession:
        if file not in self._sessions:
            path, providers = str(self._folder / file), ["CPUExecutionProvider"]
            with refusals(f"{path}: onnxruntime does not load it"):
                self._sessions[file] = ort.InferenceSession(path, self._options, providers=providers)
        return self._sessions[file]

    def _unrolled(self, loops: int) -> ort.InferenceSession:
        """The session of a static artifact's loop count. Raises `UsageError` for one that it was not built for."""
        if self._graphs and loops not in self._graphs:
            built = ", ".join(map(str, self._graphs))
            raise UsageError(f"loops = {loops}: this artifact was built for {built}; export that count too")
        return self._session(self._graphs.get(loops, "model.onnx"))

    def _reserve(self, tokens: int, loops: int) -> None:
        """Let the caches hold `tokens` of `loops` loops.

        Tokens grow by doubling, so that memory follows the text and copies stay rare. A loop that no token reached yet
        starts with the keys and values of the last one that was computed.
        """
        capacity = self._capacity or min(LEAST_CAPACITY, self.geometry.context)
        while capacity < tokens:
            capacity = min(2 * capacity, self.geometry.context)
        slots = max(self._slots, self.slot_of("core_block", loops - 1) + 1)
        if (capacity, slots) == (self._capacity, self._slots):
            return
        self._capacity, self._slots, self._step = capacity, slots, None
        for key, old in self._caches.items():
            grown = self._empty(key.split(".")[0])
            grown[: len(old), :, :, : old.shape[3]] = old
            grown[len(old) :, :, :, : old.shape[3]] = old[-1:]
            self._caches[key] = grown

    def _fill_above(self, loops: int, start: int, stop: int) -> None:
        """Give slots above the loops that were run the keys and values of the last loop, for the chunk's tokens."""
        last = self.slot_of("core_block", loops - 1)
        if last + 1 < self._slots:
            for key, cache in self._caches.items():
                if key.startswith("core_block"):
                    cache[last + 1 :, :, :, start:stop] = cache[last, :, :, start:stop]

    def _cache(self, stage: str, index: int, part: str) -> np.ndarray:
        """(slots, 1, heads, capacity, head size) of one layer."""
        key = f"{stage}.{index}.{part}"
        if key not in self._caches:
            self._caches[key] = self._empty(stage)
        return self._caches[key]

    def _empty(self, stage: str) -> np.ndarray:
        _, batch, heads, _, size = self.geometry.shape(stage)
        slots = self._slots if stage == "core_block" else 1
        return np.zeros((slots, batch, heads, self._capacity, size), self._kv_dtype)
