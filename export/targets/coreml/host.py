"""Runs Core ML artifacts here: the calls that an app makes, in the order in which it makes them.

host = CoreMLHost(folder, loop_form="stages", geometry=geometry)
logits = host.run(ids, loops=8)                        # (positions, vocabulary); the states now hold `ids`

On Linux the package is executed by the MIL interpreter, on macOS by Core ML itself (engine.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from export.targets.coreml.engine import open_engine
from export.targets.coreml.mil.interpreter import MilProgram
from export.targets.host import CacheGeometry, Host
from parcae_mobile.errors import UsageError
from parcae_mobile.manifest import Manifest

PACKAGE = "model.mlpackage"
StateCallback = Callable[[int, np.ndarray], None]


class CoreMLHost(Host):
    """One artifact and one conversation's states. Not thread-safe."""

    def __init__(self, folder: Path, loop_form: str, geometry: CacheGeometry) -> None:
        super().__init__(geometry)
        self.folder, self.loop_form = folder, loop_form
        self._engine = open_engine(folder / PACKAGE)
        functions = MilProgram.open(folder / PACKAGE).functions
        lengths = {name: function.inputs[0].type.shape for name, function in functions.items()}
        self._chunks = {  # chunk length -> suffix of the functions for it
            shape[1]: name.removeprefix("prelude")
            for name, shape in lengths.items()
            if name.startswith("prelude") and shape is not None and shape[1] is not None
        }
        self._values = [n for n in functions["prelude"].block.outputs if n.startswith("value_")] if self._chunks else []
        self._loops_of = np.zeros(geometry.context, np.int32)  # of each token that is held

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
        if self.loop_form != "stages" and (exit_threshold or initial_state is not None):
            raise UsageError(f"early exit and a first state need the stages form: this artifact is {self.loop_form}")
        if self.loop_form == "unrolled" and loops != self.geometry.max_loops:
            raise UsageError(f"loops = {loops}: this artifact has {self.geometry.max_loops} loops built in")
        self._deepen(loops)
        self.loops_used = loops
        tokens = np.array([ids], np.int32)
        if self.loop_form == "stages":
            logits = self._run_chunks(tokens, loops, initial_state, on_state, exit_threshold)
        else:
            logits = self._run_whole(tokens, loops, on_state)
        wanted = logits if positions is None else logits[np.array(positions)]
        return wanted.astype(np.float32)

    def reset(self) -> None:
        super().reset()
        self._engine.reset()

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

    def _run_whole(self, tokens: np.ndarray, loops: int, on_state: StateCallback | None) -> np.ndarray:
        """The unrolled and the while form: one call, whatever the chunk's length."""
        if self.loop_form == "unrolled":
            outputs = self._engine.predict("main", {"inputIds": tokens})
        else:
            inputs = {"input_ids": tokens, "position": _scalar(self.length), "loops": _scalar(loops)}
            outputs = self._engine.predict("main", inputs)
            if on_state is not None:
                on_state(loops - 1, outputs["state"])
        self._hold(tokens.shape[1], loops)
        return outputs["logits"][0]

    def _run_chunks(
        self,
        tokens: np.ndarray,
        loops: int,
        first: np.ndarray | None,
        on_state: StateCallback | None,
        threshold: float,
    ) -> np.ndarray:
        """The stages form: chunks of the long functions' length, padded, and single tokens at the context's end."""
        pieces, done, longest = [], 0, max(self._chunks)
        states: dict[int, list[np.ndarray]] = {}
        while done < tokens.shape[1]:
            left = tokens.shape[1] - done
            chunk = longest if left > 1 and self.length + longest <= self.geometry.context else 1
            part = slice(done, done + min(chunk, left))
            piece, seen = self._run_chunk(tokens[:, part], chunk, loops, _part(first, part), threshold)
            pieces.append(piece)
            for loop, state in enumerate(seen):
                states.setdefault(loop, []).append(state)
            done = part.stop
        if on_state is not None:
            for loop, parts in states.items():
                on_state(loop, np.concatenate(parts, axis=1))
        return np.concatenate(pieces)

    def _run_chunk(
        self, tokens: np.ndarray, chunk: int, loops: int, first: np.ndarray | None, threshold: float
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """One call of prelude and coda, up to `loops` of recur; returns logits (tokens, vocabulary) and states."""
        suffix, length = self._chunks[chunk], tokens.shape[1]
        padded = np.zeros((1, chunk), np.int32)
        padded[:, :length] = tokens
        state = np.zeros((1, chunk, self.geometry.state_width), np.float32)
        if first is not None:
            state[:, :length] = first
        at = {"position": _scalar(self.length)}
        before, layers = self.geometry.layers["prelude"], self.geometry.layers["core_block"]
        hoisted = self._predict("prelude" + suffix, {"input_ids": padded, **at})
        seen: list[np.ndarray] = []
        for loop in range(loops):
            slot = _scalar(before + layers * self.slot_of("core_block", loop))
            following = self._predict("recur" + suffix, {"state": state, **hoisted, **at, "slot": slot})["next_state"]
            seen.append(following[:, :length])
            self.loops_used = loop + 1
            done = bool(threshold) and self.converged(state[:, :length], following[:, :length], threshold)
            state = following
            if done:
                break
        logits = self._predict("coda" + suffix, {"state": state, "input_ids": padded, **at})["logits"]
        self._hold(length, self.loops_used)
        return logits[0, :length], seen

    def _predict(self, function: str, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """A stage without layers has no caches and wants no position."""
        if self.geometry.layers[function.split("_")[0].replace("recur", "core_block")] == 0:
            given = {name: value for name, value in given.items() if name not in ("position", "slot")}
        return self._engine.predict(function, given)

    def _hold(self, length: int, loops: int) -> None:
        self._loops_of[self.length : self.length + length] = loops
        self.length += length

    def _deepen(self, loops: int) -> None:
        """Give tokens that were computed at fewer loops their last loop's keys and values in the slots above."""
        held = self._loops_of[: self.length]
        last = self.slot_of("core_block", loops - 1)
        tokens = np.flatnonzero(held < loops)
        if not len(tokens):
            return
        before, layers = self.geometry.layers["prelude"], self.geometry.layers["core_block"]
        for name in ("keyCache", "valueCache"):
            cache = self._engine.read(name).copy()
            for token in tokens:
                source = self.slot_of("core_block", int(held[token]) - 1)
                for slot in range(source + 1, last + 1):
                    for layer in range(layers):
                        to, of = (before + at * layers + layer for at in (slot, source))
                        cache[to, :, :, token] = cache[of, :, :, token]
            self._engine.write(name, cache)
        held[tokens] = loops


def _scalar(value: int) -> np.ndarray:
    return np.array([value], np.int32)


def _part(state: np.ndarray | None, part: slice) -> np.ndarray | None:
    return None if state is None else state[:, part]


def open_host(folder: Path, manifest: Manifest, threads: int = 0) -> CoreMLHost:
    """The artifact of a folder. `threads` is for the interpreter's matrix products (0: as many as there are)."""
    if threads:
        import torch

        torch.set_num_threads(threads)
    return CoreMLHost(folder, manifest.loop_form, CacheGeometry.from_manifest(manifest))
