"""Text that a model writes by itself: calibration text without end and without a licence, there for every checkpoint.

    pages = SelfWritten(model, first_token=tokenizer.bos, length=256, seed=0)
    windows = pages.take(4)                                # (4, 256) ids, the next ones at each call

Pages of windows are written as they are used up, each page at another loop count and temperature, so that the states of
few and of many loops occur. A page depends on the seed and its number alone: `pages.taken` is all that a resumed run
needs. The same seed gives the same text on the same machine; on another one a rounding may change a drawn token.
"""

from __future__ import annotations

import torch
from torch import Tensor

from parcae_mobile.kv_cache import KVCache
from parcae_mobile.model import Parcae

VOICES = ((4, 1.0), (4, 0.8), (8, 1.0), (2, 1.0))  # loop count and temperature of a page
PAGE = 64  # windows that are written together
USES = 4  # times that a page is gone through before the next is written, for writing costs nearly what learning does


class SelfWritten:
    """An endless run of windows. `taken` counts those that were handed out and may be set."""

    def __init__(self, model: Parcae, first_token: int, length: int, seed: int = 0) -> None:
        self.model, self.first_token, self.length, self.seed = model, first_token, length, seed
        self.taken = 0
        self._number, self._page = -1, torch.empty(0)

    def take(self, count: int) -> Tensor:
        """(count, length) int64 ids on the model's device."""
        rows = []
        for _ in range(count):
            number, row = self.taken // (PAGE * USES), self.taken % PAGE
            if number != self._number:
                self._number, self._page = number, self._write(number)
            rows.append(self._page[row])
            self.taken += 1
        return torch.stack(rows)

    def _write(self, number: int) -> Tensor:
        loops, temperature = VOICES[number % len(VOICES)]
        seed = self.seed * 1_000_003 + number
        return write(self.model, self.first_token, PAGE, self.length, loops, temperature, seed)


@torch.no_grad()
def write(
    model: Parcae, first_token: int, count: int, length: int, loops: int, temperature: float, seed: int
) -> Tensor:
    """(count, length) int64 ids drawn from the model, each window from `first_token` on; nothing is cut off."""
    device, keep = model.rope.device, model.config.vocab_size
    generator = torch.Generator().manual_seed(seed)
    cache = KVCache(model.config, loops, batch=count, context=length, policy="shared", device=device)
    chunk = torch.full((count, 1), first_token, device=device)
    ids = [chunk]
    for _ in range(length - 1):
        logits = model(chunk, loops, cache=cache)[:, -1, :keep].cpu()
        drawn = torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)
        chunk = drawn.to(device)
        ids.append(chunk)
    return torch.cat(ids, 1)
