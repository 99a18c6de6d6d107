"""How the next token is drawn: one definition, so that Python, JavaScript, Kotlin and Swift draw the same one.

    sampler = Sampler(Sampling(temperature=0.7, top_k=40, seed=1))
    token = sampler.choose(logits, history)                # logits (vocabulary,) fp32, history: ids so far

`docs/apps.md` spells the definition out, `app_kit/vectors/sampler.json` holds it to numbers. Free of torch, as a host
on a small device is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .errors import InputError, UsageError

RECENT = 64  # tokens that the repetition penalty looks back
_WORD = 0xFFFFFFFF


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Temperature 0 is greedy. `top_k` 0, `top_p` 1, `min_p` 0 and `repetition_penalty` 1 change nothing.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise UsageError(f"--temperature {self.temperature}: give 0 (greedy) or more")
        if self.top_k < 0 or not 0 < self.top_p <= 1:
            raise UsageError(f"--top-k {self.top_k} --top-p {self.top_p}: give top-k of at least 0 and top-p in (0, 1]")
        if not 0 <= self.min_p <= 1:
            raise UsageError(f"--min-p {self.min_p}: give a share of the likeliest token's probability, 0 (off) to 1")
        if not 0 < self.repetition_penalty < math.inf:
            raise UsageError(f"--repetition-penalty {self.repetition_penalty}: give 1 (off) or another positive number")
        if not 0 <= self.seed <= _WORD:
            raise UsageError(f"--seed {self.seed}: give a number from 0 to {_WORD}")


class Random:
    """xoshiro128** of Blackman and Vigna, seeded by four steps of SplitMix32 with the finalizer of MurmurHash3.

    It needs 32-bit words only, which every language multiplies alike (JavaScript: Math.imul).
    """

    def __init__(self, seed: int) -> None:
        self._state = [_mixed((seed + step * 0x9E3779B9) & _WORD) for step in (1, 2, 3, 4)]

    def word(self) -> int:
        """The next 32 bits."""
        a, b, c, d = self._state
        drawn = (_rotated(b * 5 & _WORD, 7) * 9) & _WORD
        shifted = b << 9 & _WORD
        c ^= a
        d ^= b
        b ^= c
        a ^= d
        c ^= shifted
        self._state = [a, b, c, _rotated(d, 11)]
        return drawn

    def uniform(self) -> float:
        """A number in [0, 1) of 53 bits: the upper 27 of one word, then the upper 26 of the next."""
        high, low = self.word() >> 5, self.word() >> 6
        return (high * 67108864 + low) / 9007199254740992


class Sampler:
    """Draws the tokens of one answer: settings, and the generator that its seed starts."""

    def __init__(self, sampling: Sampling) -> None:
        self.sampling, self.random = sampling, Random(sampling.seed)

    def choose(self, logits: np.ndarray, history: Sequence[int] = ()) -> int:
        """A token from (vocabulary,) fp32 logits; of `history` (ids given and generated so far) the last 64 count.

        Raises `InputError` for logits that are no numbers. A draw takes one `uniform`; greedy choice takes none.
        """
        sampling = self.sampling
        scores = logits.astype(np.float64)
        if not np.isfinite(scores.max()):  # the maximum of an array with NaN is NaN
            raise InputError("the model gave logits that are no numbers; run parcae-export verify on the artifact")
        if sampling.repetition_penalty != 1 and len(history):
            seen = np.unique(np.array(history[-RECENT:]))
            repeated, penalty = scores[seen], sampling.repetition_penalty
            scores[seen] = np.where(repeated > 0, repeated / penalty, repeated * penalty)
        if sampling.temperature == 0:
            return int(scores.argmax())
        order, cumulative = candidates(scores, sampling)
        drawn = int(np.searchsorted(cumulative, self.random.uniform() * cumulative[-1], side="right"))
        return int(order[min(drawn, len(order) - 1)])


def candidates(scores: np.ndarray, sampling: Sampling) -> tuple[np.ndarray, np.ndarray]:
    """The ids that may be drawn, likeliest first, and their running sums of weights, from (vocabulary,) fp64 scores."""
    order = np.argsort(-scores, kind="stable")
    if sampling.top_k:
        order = order[: sampling.top_k]
    with np.errstate(over="ignore"):  # at a temperature near 0 all but the likeliest are infinitely unlikely
        weights = np.exp((scores[order] - scores[order[0]]) / sampling.temperature)
    cumulative = np.cumsum(weights)
    if sampling.top_p < 1:
        count = int(np.searchsorted(cumulative, sampling.top_p * cumulative[-1])) + 1
        weights, cumulative = weights[:count], cumulative[:count]
    count = int((weights >= sampling.min_p).sum())
    return order[:count], cumulative[:count]


def _mixed(word: int) -> int:
    word ^= word >> 16
    word = word * 0x85EBCA6B & _WORD
    word ^= word >> 13
    word = word * 0xC2B2AE35 & _WORD
    return word ^ word >> 16


def _rotated(word: int, bits: int) -> int:
    return (word << bits | word >> (32 - bits)) & _WORD
