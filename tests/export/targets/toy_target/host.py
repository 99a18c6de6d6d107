"""Runs it: all that a host computes is in `_run`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from export.targets.host import CacheGeometry, Chunk, Host
from parcae_mobile import KVCache
from parcae_mobile.manifest import Manifest
from toy_target.writer import read


class ToyHost(Host):
    """The eager model with its cache."""

    exits_early = False

    def __init__(self, folder: Path, geometry: CacheGeometry) -> None:
        super().__init__(geometry)
        self.model = read(folder)
        self.cache = KVCache(self.model.config, geometry.max_loops, context=geometry.context)

    @property
    def cache_bytes(self) -> int:
        return self.cache.nbytes

    @torch.no_grad()
    def _run(self, chunk: Chunk) -> np.ndarray:
        self.cache.length = chunk.start
        tokens, positions = torch.from_numpy(chunk.tokens), torch.from_numpy(chunk.positions)
        state = None if chunk.state is None else torch.from_numpy(chunk.state)
        logits = self.model(tokens, chunk.loops, initial_state=state, cache=self.cache, positions=positions)
        rows: np.ndarray = logits[0].numpy()
        return rows


def rewrite(folder: Path, to: Path) -> str | None:
    """No tool rewrites its artifacts."""
    return None


def open_host(folder: Path, manifest: Manifest, threads: int = 0) -> ToyHost:
    return ToyHost(folder, CacheGeometry.from_manifest(manifest))
