"""Training batches as a function of (seed, step) alone, so that a resumed run sees what an uninterrupted one would."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor


class Batches:
    """Windows of a token stream, each seen once per epoch; every epoch shifts the grid and shuffles anew."""

    def __init__(self, tokens: np.ndarray, sequence: int, batch: int, seed: int) -> None:
        self.tokens = torch.from_numpy(tokens.astype(np.int64))
        self.sequence, self.batch, self.seed = sequence, batch, seed
        self.per_epoch = (len(tokens) - sequence - 1) // sequence
        if self.per_epoch < batch:
            raise SystemExit(f"{len(tokens)} tokens are too few for {batch} windows of {sequence}; give more text")
        self._epoch, self._starts = -1, torch.empty(0, dtype=torch.int64)

    def __call__(self, step: int) -> Tensor:
        """int64 (batch, sequence + 1) of step 0, 1, ..."""
        first = step * self.batch
        return torch.stack([self._window(first + row) for row in range(self.batch)])

    def _window(self, index: int) -> Tensor:
        epoch, place = divmod(index, self.per_epoch)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(1_000_003 * self.seed + epoch)
            shift = int(torch.randint(0, self.sequence, (1,), generator=generator))
            self._starts = shift + self.sequence * torch.randperm(self.per_epoch, generator=generator)
            self._epoch = epoch
        start = int(self._starts[place])
        return self.tokens[start : start + self.sequence + 1]


def read_tokens(folder: Path, split: str) -> np.ndarray:
    """uint16 tokens of a split of a prepared corpus. Exits with a line that says how to prepare one."""
    path = folder / f"{split}.npy"
    if not path.exists():
        raise SystemExit(f"no {path}: prepare the text with python -m training.corpus --out {folder}")
    return np.load(path)


def even_windows(tokens: np.ndarray, sequence: int, count: int) -> Tensor:
    """int64 (count, sequence + 1) windows spread evenly over the tokens."""
    starts = np.linspace(0, len(tokens) - sequence - 1, count).astype(np.int64)
    return torch.from_numpy(np.stack([tokens[s : s + sequence + 1] for s in starts]).astype(np.int64))
