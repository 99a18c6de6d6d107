"""Figures of a model on text: bits per byte, which compare across tokenizers, perplexity and state change by loop."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from parcae_mobile.injection import DiagonalInjection
from parcae_mobile.model import Parcae
from parcae_mobile.tokenizer import TextTokenizer


@dataclass(frozen=True)
class Score:
    """Negative log-likelihood of texts: nats in all, over tokens and over UTF-8 bytes."""

    nats: float
    tokens: int
    bytes: int

    @property
    def bits_per_byte(self) -> float:
        return self.nats / math.log(2) / self.bytes

    @property
    def perplexity(self) -> float:
        """Per token, so comparable only between models of one tokenizer."""
        return math.exp(self.nats / self.tokens)


def cut(document: str, tokenizers: Sequence[TextTokenizer], most: int) -> list[str]:
    """Windows of whole lines that together are the document; none is above `most` tokens in any tokenizer.

    A single line that is too long is left out, and the next window begins after it.
    """
    windows, current = [], ""
    for line in document.splitlines(keepends=True):
        longer = max(len(t.encode(current + line)) for t in tokenizers)
        if longer <= most:
            current += line
            continue
        if current:
            windows.append(current)
        alone = max(len(t.encode(line)) for t in tokenizers)
        current = line if alone <= most else ""
    return [*windows, current] if current else windows


@torch.no_grad()
def score(model: Parcae, tokenizer: TextTokenizer, windows: Sequence[str], loops: Sequence[int]) -> dict[int, Score]:
    """By loop count, the likelihood of every token of each window after an id that begins a text; zero first state."""
    nats = dict.fromkeys(loops, 0.0)
    tokens = 0
    for window in windows:
        ids = torch.tensor([[tokenizer.bos, *tokenizer.encode(window)]])
        tokens += ids.shape[1] - 1
        inputs, targets = ids[:, :-1], ids[0, 1:]
        for loop, state in enumerate(model.states(inputs, max(loops)), start=1):
            if loop in nats:
                logits = model.coda(state, inputs, model.slots("coda", inputs))
                nats[loop] += F.cross_entropy(logits[0], targets, reduction="sum").item()
    size = sum(len(window.encode("utf-8")) for window in windows)
    return {loop: Score(total, tokens, size) for loop, total in nats.items()}


@torch.no_grad()
def state_changes(model: Parcae, ids: Tensor, loops: int) -> list[float]:
    """Mean over tokens of |state_t - state_(t-1)| / |state_t| for t = 2 to `loops`; `ids` (batch, sequence)."""
    changes, before = [], None
    for state in model.states(ids, loops):
        if before is not None:
            changes.append(((state - before).norm(dim=-1) / state.norm(dim=-1)).mean().item())
        before = state
    return changes


def decay_range(model: Parcae) -> tuple[float, float, float]:
    """Least, median and greatest decay of a diagonal injection."""
    injection = model.transformer["adapter"]
    assert isinstance(injection, DiagonalInjection)
    decay = injection.decay().detach()
    return decay.min().item(), decay.median().item(), decay.max().item()
