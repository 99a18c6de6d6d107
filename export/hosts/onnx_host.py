"""Runs ONNX artifacts here, through onnxruntime, with caches that are allocated once and updated in place.

host = OnnxHost(folder, loop_form="stages", geometry=geometry, threads=1)
logits = host.run(ids, loops=8)                        # (positions, vocabulary); the cache now holds `ids`
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from parcae_mobile.errors import ToolMissingError, UsageError
from parcae_mobile.manifest import Manifest

from .base import CacheGeometry, Host

try:
    import onnxruntime as ort
except ImportError:
    raise ToolMissingError("onnxruntime is not installed: pip install 'parcae-mobile[onnx]'") from None

LEAST_CAPACITY = 256  # tokens that the caches hold at first
StateCallback = Callable[[int, np.ndarray], None]


class OnnxHost(Host):
    """One artifact in memory. Not thread-safe: it owns one conversation's cache."""

    def __init__(
        self, folder: Path, loop_form: str, geometry: CacheGeometry, threads: int = 0, kv_dtype: str = "fp32"
    ) -> None:
        super().__init__(geometry)
        self._kv_dtype = {"fp32": np.float32, "int8": np.int8}[kv_dtype]
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        files = ("prelude", "recur", "coda") if loop_form == "stages" else ("",)
        self._sessions = {
            name: ort.InferenceSession(
                str(folder / f"model{'_' * bool(name)}{name}.onnx"), options, providers=["CPUExecutionProvider"]
            )
            for name in files
        }
        self._values = [o.name for o in self._sessions[files[0]].get_outputs() if o.name.startswith("value_embedding")]
        self.loop_form = loop_form
        self._caches: dict[str, np.ndarray] = {}
        self._capacity = self._slots = 0
        self._exit_threshold = 0.0

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
        if exit_threshold and self.loop_form != "stages":
            raise UsageError(
                f"early exit needs a host that runs the loop: this artifact's loop form is {self.loop_form}"
            )
        self._exit_threshold, self.loops_used = exit_threshold, loops
        self._reserve(self.length + len(ids), loops)
        length, total = len(ids), np.array(self.length + len(ids), np.int32)
        chosen = np.arange(length) if positions is None else np.array(positions)
        tokens = np.array([ids], np.int64)
        state = initial_state
        if state is None:
            state = np.zeros((1, length, self.geometry.state_width), np.float32)
        forms = {"stages": self._run_stages, "scan": self._run_scan, "unrolled": self._run_unrolled}
        logits = forms[self.loop_form](
            tokens, total, chosen.astype(np.int64), state.astype(np.float32), loops, on_state
        )
        self._fill_above(self.loops_used, self.length, int(total))
        self.length += length
        return logits[0]

    def reset(self) -> None:
        super().reset()
        self._caches.clear()
        self._capacity = self._slots = 0

    @property
    def cache_bytes(self) -> int:
        """Bytes of the cache arrays that are bound."""
        return sum(cache.nbytes for cache in self._caches.values())

    def _run_stages(
        self,
        tokens: np.ndarray,
        total: np.ndarray,
        positions: np.ndarray,
        state: np.ndarray,
        loops: int,
        on_state: StateCallback | None,
    ) -> np.ndarray:
        injected, *values = self._call(
            "prelude", {"input_ids": tokens, "total": total}, ["injected", *self._values], "prelude", 0
        )
        given = dict(zip(self._values, values, strict=True)) | {"injected": injected, "total": total}
        for loop in range(loops):
            before = state
            (state,) = self._call("recur", {"state": before, **given}, ["next_state"], "core_block", loop)
            if on_state is not None:
                on_state(loop, _array(state))
            if self._exit_threshold and self.converged(_array(before), _array(state), self._exit_threshold):
                self.loops_used = loop + 1
                break
        inputs = {"state": state, "input_ids": tokens, "positions": positions, "total": total}
        return self._call("coda", inputs, ["logits"], "coda", 0)[0].numpy()

    def _run_scan(
        self,
        tokens: np.ndarray,
        total: np.ndarray,
        positions: np.ndarray,
        state: np.ndarray,
        loops: int,
        on_state: StateCallback | None,
    ) -> np.ndarray:
        session = self._sessions[""]
        binding = session.io_binding()
        inputs = {"input_ids": tokens, "positions": positions, "total": total, "initial_state": state}
        for name, value in inputs.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(value))
        for stage, label in (("prelude", "prelude"), ("core_block", "recur"), ("coda", "coda")):
            for index in range(self.geometry.layers[stage]):
                for part in ("key", "value"):
                    cache = self._cache(stage, index, part)
                    view = cache[:loops] if stage == "core_block" else cache[0]
                    self._bind(binding, f"{label}.{index}.{part}", view)
        binding.bind_output("logits", "cpu")
        binding.bind_output("final_state", "cpu")
        session.run_with_iobinding(binding)
        logits, final = (value.numpy() for value in binding.get_outputs()[-2:])
        if on_state is not None:
            on_state(loops - 1, final)
        return logits

    def _run_unrolled(
        self,
        tokens: np.ndarray,
        total: np.ndarray,
        positions: np.ndarray,
        state: np.ndarray,
        loops: int,
        on_state: StateCallback | None,
    ) -> np.ndarray:
        session = self._sessions[""]
        binding = session.io_binding()
        binding.bind_cpu_input("input_ids", tokens)
        binding.bind_cpu_input("attention_mask", np.ones((1, int(total)), np.int64))
        layer = 0
        for stage, passes in (("prelude", 1), ("core_block", loops), ("coda", 1)):
            for loop in range(passes):
                for index in range(self.geometry.layers[stage]):
                    for part in ("key", "value"):
                        view = self._cache(stage, index, part)[self.slot_of(stage, loop)]
                        self._bind(binding, f"{layer}.{part}", view, past="past_key_values")
                    layer += 1
        binding.bind_output("logits", "cpu")
        session.run_with_iobinding(binding)
        logits = binding.get_outputs()[-1].numpy()
        return logits if logits.shape[1] == len(positions) else logits[:, positions]

    def _call(
        self, name: str, inputs: Mapping[str, Any], outputs: list[str], stage: str, loop: int
    ) -> list[ort.OrtValue]:
        """Run one stage on the caches of `loop`; returns its outputs without copying them."""
        session = self._sessions[name]
        binding = session.io_binding()
        for key, value in inputs.items():
            if isinstance(value, np.ndarray):
                binding.bind_cpu_input(key, value)
            else:
                binding.bind_ortvalue_input(key, value)
        for key in outputs:
            binding.bind_output(key, "cpu")
        for index in range(self.geometry.layers[stage]):
            for part in ("key", "value"):
                self._bind(binding, f"{index}.{part}", self._cache(stage, index, part)[self.slot_of(stage, loop)])
        session.run_with_iobinding(binding)
        return list(binding.get_outputs()[: len(outputs)])

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
        self._capacity, self._slots = capacity, slots
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

    @staticmethod
    def _bind(binding: ort.IOBinding, name: str, view: np.ndarray, past: str = "past") -> None:
        """Bind one array as both past and present, so that attention appends in place."""
        place = ("cpu", 0, view.dtype.type, view.shape, view.ctypes.data)
        binding.bind_input(f"{past}.{name}", *place)
        binding.bind_output(f"present.{name}", *place)


def _array(value: Any) -> np.ndarray:
    return value if isinstance(value, np.ndarray) else value.numpy()


def open_host(folder: Path, manifest: Manifest, threads: int = 0) -> OnnxHost:
    """The artifact of a folder on this machine's CPU."""
    return OnnxHost(folder, manifest.loop_form, CacheGeometry.from_manifest(manifest), threads, manifest.kv.dtype)
