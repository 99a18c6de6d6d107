"""Every position's logits from a static ONNX artifact that gives the last position's only, for gates and self-tests.

host = LastPositionHost(OnnxHost(folder, "unrolled", geometry))
"""

from __future__ import annotations

import numpy as np

from export.targets.host import Chunk, Host
from export.targets.onnx.runtime.host import OnnxHost


class LastPositionHost(Host):
    """A host around a host: where more than the last position is wanted, a chunk is given several times.

    At last it is given as a whole, which is what the last row comes from and what the cache holds afterwards, so that a
    comparison of all positions sees decoding and prefill.
    """

    def __init__(self, inner: OnnxHost) -> None:
        super().__init__(inner.geometry)
        self.inner = inner
        self.prefill_chunk = inner.prefill_chunk
        self.exits_early, self.takes_state = inner.exits_early, inner.takes_state

    def reset(self) -> None:
        super().reset()
        self.inner.reset()

    def rewind(self, length: int) -> None:
        super().rewind(length)
        self.inner.rewind(length)

    @property
    def cache_bytes(self) -> int:
        return self.inner.cache_bytes

    def _run(self, chunk: Chunk) -> np.ndarray:
        ids, last = chunk.tokens[0].tolist(), chunk.length - 1
        earlier = sorted({*chunk.positions.tolist()} - {last})
        rows: dict[int, np.ndarray] = {}
        if earlier:
            shared = self.geometry.slots < chunk.loops
            rows = self._by_prefixes(ids, chunk, earlier) if shared else self._by_tokens(ids[: earlier[-1] + 1], chunk)
            self.inner.rewind(chunk.start)
        rows[last] = self.inner.run(ids, chunk.loops, [last], chunk.state, chunk.on_state, chunk.exit_threshold)
        self.loops_used = self.inner.loops_used
        return np.concatenate([rows[position] for position in chunk.positions.tolist()])

    def _by_tokens(self, ids: list[int], chunk: Chunk) -> dict[int, np.ndarray]:
        """Rows by position, (1, padded vocabulary) each: the tokens one by one."""
        return {position: self.inner.run([token], chunk.loops) for position, token in enumerate(ids)}

    def _by_prefixes(self, ids: list[int], chunk: Chunk, positions: list[int]) -> dict[int, np.ndarray]:
        """Rows by position, each from the chunk up to it, given at once.

        Where loops share a cache slot, the pieces of a text are part of what is computed.
        """
        rows = {}
        for position in positions:
            self.inner.rewind(chunk.start)
            rows[position] = self.inner.run(ids[: position + 1], chunk.loops, [position])
        return rows
