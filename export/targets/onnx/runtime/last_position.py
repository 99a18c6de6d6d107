"""Every position's logits from a static ONNX artifact that gives the last position's only, for gates and self-tests.

host = LastPositionHost(OnnxHost(folder, "unrolled", geometry))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from export.targets.host import Host
from export.targets.onnx.runtime.host import OnnxHost


class LastPositionHost(Host):
    """A host around a host: where more than the last position is wanted, the chunk is given token by token.

    It is then given once more as a whole, which is what the last row comes from and what the cache holds afterwards, so
    that a comparison of all positions sees decoding and prefill. Where loops share a cache slot the pieces of a text
    are part of what is computed; there each position's row comes from the chunk up to it, given at once.
    """

    def __init__(self, inner: OnnxHost) -> None:
        super().__init__(inner.geometry)
        self.inner = inner

    def run(
        self,
        ids: Sequence[int],
        loops: int,
        positions: Sequence[int] | None = None,
        initial_state: np.ndarray | None = None,
        on_state: Callable[[int, np.ndarray], None] | None = None,
        exit_threshold: float = 0.0,
    ) -> np.ndarray:
        self.check(len(ids), loops)
        last, start = len(ids) - 1, self.length
        wanted = list(range(len(ids))) if positions is None else list(positions)
        rows: dict[int, np.ndarray] = {}
        if any(position != last for position in wanted):
            shared = self.geometry.slots < loops
            for position in sorted({*wanted} - {last}) if shared else range(last):
                if shared:
                    self.inner.rewind(start)
                piece = ids[0 if shared else position : position + 1]
                rows[position] = self.inner.run(piece, loops, [len(piece) - 1])
            self.inner.rewind(start)
        rows[last] = self.inner.run(ids, loops, [last], initial_state, on_state, exit_threshold)
        self.length, self.loops_used = self.inner.length, self.inner.loops_used
        return np.concatenate([rows[position] for position in wanted])

    def reset(self) -> None:
        super().reset()
        self.inner.reset()

    @property
    def cache_bytes(self) -> int:
        return self.inner.cache_bytes
