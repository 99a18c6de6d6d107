"""Runs portable ONNX artifacts: standard operators, so the static form's caches grow instead of being updated in place.

host = PortableHost(folder, "unrolled", geometry, threads=1, graphs={4: "model.onnx"})
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from export.targets.host import CacheGeometry, Chunk
from export.targets.onnx.runtime.host import OnnxHost
from parcae_mobile.errors import UsageError

# onnxruntime fuses DequantizeLinear and MatMul and then rounds activations to int8 unless it is told otherwise.
SETTINGS = {
    "fp32": {"session.qdq_matmulnbits_accuracy_level": "1"},
    "int8": {"session.qdq_matmulnbits_accuracy_level": "4"},
}


class PortableHost(OnnxHost):
    """One portable artifact in memory. A conversation of the static form keeps its loop count."""

    def __init__(
        self,
        folder: Path,
        loop_form: str,
        geometry: CacheGeometry,
        threads: int = 0,
        graphs: Mapping[int, str] | None = None,
        compute: str = "fp32",
    ) -> None:
        super().__init__(folder, loop_form, geometry, threads, graphs=graphs, settings=SETTINGS[compute])
        self._grown: dict[str, np.ndarray] = {}
        self._loops = 0  # of the conversation

    def reset(self) -> None:
        super().reset()
        self._grown.clear()

    def rewind(self, length: int) -> None:
        super().rewind(length)
        self._grown = {name: cache[:, :, :length] for name, cache in self._grown.items()}

    @property
    def cache_bytes(self) -> int:
        return super().cache_bytes + sum(cache.nbytes for cache in self._grown.values())

    def _run_unrolled(self, chunk: Chunk) -> np.ndarray:
        if chunk.start and chunk.loops != self._loops:
            raise UsageError(f"loops = {chunk.loops}: this conversation began with {self._loops}; start a new one")
        self._loops = chunk.loops
        session = self._unrolled(chunk.loops)
        pasts = {value.name: value.shape for value in session.get_inputs() if value.name.startswith("past")}
        if not chunk.start:
            self._grown = {name: np.zeros((1, shape[1], 0, shape[3]), np.float32) for name, shape in pasts.items()}
        inputs = {"input_ids": chunk.tokens, "attention_mask": np.ones((1, chunk.total), np.int64), **self._grown}
        outputs = ["logits", *(name.replace("past_key_values", "present") for name in pasts)]
        logits, *grown = session.run(outputs, inputs)
        self._grown = dict(zip(pasts, grown, strict=True))
        return logits if logits.shape[1] == len(chunk.positions) else logits[:, chunk.positions]
