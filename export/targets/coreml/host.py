"""Runs Core ML artifacts here: the calls that an app makes, in the order in which it makes them.

host = CoreMLHost(folder, loop_form="stages", geometry=geometry)
logits = host.run(ids, loops=8)                        # (positions, vocabulary); the states now hold `ids`

On Linux the package is executed by the MIL interpreter, on macOS by Core ML itself (engine.py).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from export.targets.coreml.engine import Engine, Interpreter, open_engine
from export.targets.coreml.mil.interpreter import MilProgram
from export.targets.host import CacheGeometry, Chunk, Host
from parcae_mobile.errors import UsageError
from parcae_mobile.manifest import Manifest

PACKAGE = "model.mlpackage"


class CoreMLHost(Host):
    """One artifact and one conversation's states."""

    def __init__(self, folder: Path, loop_form: str, geometry: CacheGeometry) -> None:
        super().__init__(geometry)
        self.folder, self.loop_form = folder, loop_form
        self.exits_early = self.takes_state = loop_form == "stages"
        self._engine = self.open_engine(folder / PACKAGE)
        self.forks = isinstance(self._engine, Interpreter)
        functions = MilProgram.open(folder / PACKAGE).functions
        lengths = {name: function.inputs[0].type.shape for name, function in functions.items()}
        self._lengths = {  # chunk length -> suffix of the functions for it
            shape[1]: name.removeprefix("prelude")
            for name, shape in lengths.items()
            if name.startswith("prelude") and shape is not None and shape[1] is not None
        }
        self.prefill_chunk = max(self._lengths, default=self.prefill_chunk)
        self._loops_of = np.zeros(geometry.context, np.int32)  # of each token that is held

    def open_engine(self, package: Path) -> Engine:
        """What executes the package."""
        return open_engine(package)

    def reset(self) -> None:
        super().reset()
        self._engine.reset()

    def rest(self) -> None:
        self._engine.rest()

    def rewind(self, length: int) -> None:
        super().rewind(length)
        if self.loop_form == "unrolled":  # stock clients give it no position: it counts for itself
            self._engine.write("position", np.array([length], np.float16))

    @property
    def cache_bytes(self) -> int:
        """Bytes of the two cache states, which are allocated for the whole context at once."""
        return sum(self._engine.read(name).nbytes for name in ("keyCache", "valueCache"))

    @property
    def largest_fp16(self) -> float:
        """The greatest |value| among fp16 results so far; 0 where nothing lets them be seen."""
        return self._engine.largest

    @property
    def largest_fp16_at(self) -> str:
        """The operation that it came from."""
        return self._engine.largest_at

    def _check(self, chunk: Chunk) -> None:
        super()._check(chunk)
        if self.loop_form == "unrolled" and chunk.loops != self.geometry.max_loops:
            raise UsageError(f"loops = {chunk.loops}: this artifact has {self.geometry.max_loops} loops built in")

    def _run(self, chunk: Chunk) -> np.ndarray:
        self._deepen(chunk.start, chunk.loops)
        logits = self._run_pieces(chunk) if self.loop_form == "stages" else self._run_whole(chunk)
        return logits[chunk.positions].astype(np.float32)

    def _run_whole(self, chunk: Chunk) -> np.ndarray:
        """The unrolled and the while form: one call, whatever the chunk's length."""
        tokens = chunk.tokens.astype(np.int32)
        if self.loop_form == "unrolled":
            outputs = self._engine.predict("main", {"inputIds": tokens})
        else:
            inputs = {"input_ids": tokens, "position": _scalar(chunk.start), "loops": _scalar(chunk.loops)}
            outputs = self._engine.predict("main", inputs)
            if chunk.on_state is not None:
                chunk.on_state(chunk.loops - 1, outputs["state"])
        self._loops_of[chunk.start : chunk.total] = chunk.loops
        return outputs["logits"][0]

    def _run_pieces(self, chunk: Chunk) -> np.ndarray:
        """The stages form: pieces of the long functions' length, padded, and single tokens at the context's end."""
        logits, done, longest = [], 0, max(self._lengths)
        seen: list[list[np.ndarray]] = []  # by piece: the state after each loop
        while done < chunk.length:
            left, start = chunk.length - done, chunk.start + done
            length = longest if left > 1 and start + longest <= self.geometry.context else 1
            part = slice(done, done + min(length, left))
            rows, states = self._run_piece(chunk, part, length)
            self._loops_of[start : chunk.start + part.stop] = len(states)
            logits.append(rows)
            seen.append(states)
            done = part.stop
        self.loops_used = max(map(len, seen))
        if chunk.on_state is not None:
            for loop in range(min(map(len, seen))):
                chunk.on_state(loop, np.concatenate([states[loop] for states in seen], axis=1))
        return np.concatenate(logits)

    def _run_piece(self, chunk: Chunk, part: slice, padded: int) -> tuple[np.ndarray, list[np.ndarray]]:
        """One call of prelude and coda with `padded` tokens, up to `loops` of recur.

        Returns logits (tokens, padded vocabulary) and the state after each loop that ran.
        """
        suffix, length = self._lengths[padded], part.stop - part.start
        tokens = np.zeros((1, padded), np.int32)
        tokens[:, :length] = chunk.tokens[:, part]
        state = np.zeros((1, padded, self.geometry.state_width), np.float32)
        if chunk.state is not None:
            state[:, :length] = chunk.state[:, part]
        at = {"position": _scalar(chunk.start + part.start)}
        first, layers = self.geometry.layers["prelude"], self.geometry.layers["core_block"]
        hoisted = self._predict("prelude" + suffix, {"input_ids": tokens, **at})
        states: list[np.ndarray] = []
        for loop in range(chunk.loops):
            slot, before = _scalar(first + layers * self.slot_of("core_block", loop)), state
            state = self._predict("recur" + suffix, {"state": state, **hoisted, **at, "slot": slot})["next_state"]
            states.append(state[:, :length])
            if self.may_leave(chunk, loop + 1, before[:, :length], states[-1]):
                break
        logits = self._predict("coda" + suffix, {"state": state, "input_ids": tokens, **at})["logits"]
        return logits[0, :length], states

    def _predict(self, function: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """A stage without layers has no caches and wants no position."""
        if self.geometry.layers[function.split("_")[0].replace("recur", "core_block")] == 0:
            inputs = {name: value for name, value in inputs.items() if name not in ("position", "slot")}
        return self._engine.predict(function, inputs)

    def _deepen(self, length: int, loops: int) -> None:
        """Give tokens that were computed at fewer loops their last loop's keys and values in the slots above."""
        computed = self._loops_of[:length]
        last = self.slot_of("core_block", loops - 1)
        tokens = np.flatnonzero(computed < loops)
        if not len(tokens):
            return
        before, layers = self.geometry.layers["prelude"], self.geometry.layers["core_block"]
        for name in ("keyCache", "valueCache"):
            cache = self._engine.read(name).copy()
            for token in tokens:
                source = self.slot_of("core_block", int(computed[token]) - 1)
                for slot in range(source + 1, last + 1):
                    for layer in range(layers):
                        to, of = (before + at * layers + layer for at in (slot, source))
                        cache[to, :, :, token] = cache[of, :, :, token]
            self._engine.write(name, cache)
        computed[tokens] = loops


def _scalar(value: int) -> np.ndarray:
    return np.array([value], np.int32)


def open_host(folder: Path, manifest: Manifest, threads: int = 0) -> CoreMLHost:
    """The artifact of a folder. `threads` is for the interpreter's matrix products (0: as many as there are)."""
    if threads:
        import torch

        torch.set_num_threads(threads)
    return CoreMLHost(folder, manifest.loop_form, CacheGeometry.from_manifest(manifest))
