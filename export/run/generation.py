"""Text from an artifact: chunked prefill, then one token at a time, by any host runtime.

for step in generate(host, prompt_ids, Sampling(), loops=8, tokens=64, stop={eos}):
    step.token, step.seconds
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from export.targets.host import Host
from parcae_mobile.errors import PromptTooLongError, UsageError
from parcae_mobile.loops import check_threshold
from parcae_mobile.sampling import Sampler, Sampling


@dataclass(frozen=True)
class Step:
    """One generated token, the seconds since the one before (for the first: since the prompt was given), its loops."""

    token: int
    seconds: float
    loops: int


def generate(
    host: Host,
    prompt: list[int],
    sampling: Sampling,
    loops: int,
    tokens: int,
    stop: frozenset[int] = frozenset(),
    exit_threshold: float = 0.0,
) -> Iterator[Step]:
    """Up to `tokens` tokens; ends after a stop token. Raises `UsageError` and `PromptTooLongError` before any work.

    With an `exit_threshold` a token's loop ends once its state changes by less than that share; the prompt takes all.
    """
    check_threshold(exit_threshold)
    if not prompt:
        raise UsageError("the prompt is empty; give at least one token")
    room = host.geometry.context - host.length
    if len(prompt) + tokens > room + 1:
        raise PromptTooLongError(
            f"{len(prompt)} prompt tokens + {tokens} new ones do not fit the context of {host.geometry.context}; "
            "shorten the prompt or lower --tokens"
        )
    return _steps(host, prompt, sampling, loops, tokens, stop, exit_threshold)


def _steps(
    host: Host,
    prompt: list[int],
    sampling: Sampling,
    loops: int,
    tokens: int,
    stop: frozenset[int],
    exit_threshold: float,
) -> Iterator[Step]:
    sampler, history = Sampler(sampling), list(prompt)
    started = time.perf_counter()
    logits, used = host.prefill(prompt, loops), loops
    for done in range(1, tokens + 1):
        token = sampler.choose(logits[: host.geometry.vocab_size], history)
        history.append(token)
        now = time.perf_counter()
        yield Step(token, now - started, used)
        started = now
        if token in stop or done == tokens:
            return
        logits = host.run([token], loops, positions=[0], exit_threshold=exit_threshold)[0]
        used = host.loops_used
