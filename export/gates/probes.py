"""What an artifact is asked, what the eager model answers, and how far apart the two are.

    for probe in function_probes(model, texts, context): ...
    measured = measure(host, model, probe, loops=8, cache=CacheSpec())

A probe is a text in one piece or in several, from the deployed first state or from one far from it. A loop that has
converged gives the same logits at T and at T + 1; from a far state it has not, so a wrong loop count and a wrong cache
slot show at every T.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from export.targets.host import Host
from parcae_mobile.kv_cache import CacheSpec, KVCache
from parcae_mobile.model import Parcae
from parcae_mobile.parity import Distance, compare

PIECES = (33, 1, 1, 1, 21, 1, 6)  # a prompt, decoding, a second prompt, decoding: chunks begin at odd places
SEED = 20


@dataclass(frozen=True)
class Probe:
    """(texts, length) ids with their targets, given in `pieces` that add up to the length (one if empty)."""

    name: str
    ids: Tensor
    targets: Tensor | None = None
    pieces: tuple[int, ...] = ()
    state: Tensor | None = None  # (1, length, state width), of every text

    def parts(self) -> list[slice]:
        """Where each piece lies."""
        ends = np.cumsum(self.pieces or (self.ids.shape[1],)).tolist()
        return [slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]


@dataclass(frozen=True)
class Measured:
    """One probe at one loop count. State errors |other - reference| / |reference| by loop, where they are seen."""

    distance: Distance
    state_mean: dict[int, float] = field(default_factory=dict)
    state_max: dict[int, float] = field(default_factory=dict)

    @property
    def worst_state(self) -> float:
        return max(self.state_max.values(), default=0.0)


def far_state(model: Parcae, length: int) -> Tensor:
    """(1, length, state width): seeded noise as large as a state, which no loop comes to by itself."""
    noise = torch.randn(
        1, length, model.config.recurrent_embedding_dimension, generator=torch.Generator().manual_seed(SEED)
    )
    ids = torch.arange(min(8, length))[None] % model.config.vocab_size
    with torch.no_grad():
        (first,) = model.states(ids, 1)
    return noise * first.square().mean().sqrt()


def split(length: int, pieces: Sequence[int] = PIECES) -> tuple[int, ...]:
    """`pieces` cut off at `length`, or with one more at the end."""
    taken: list[int] = []
    for piece in pieces:
        taken.append(min(piece, length - sum(taken)))
    taken.append(length - sum(taken))
    return tuple(piece for piece in taken if piece)


@torch.no_grad()
def eager(
    model: Parcae,
    ids: Tensor,
    loops: int,
    cache: KVCache | None = None,
    state: Tensor | None = None,
    known: Sequence[Tensor] = (),
) -> tuple[Tensor, list[Tensor]]:
    """Logits (texts, length, vocabulary) and the state after each loop, of one piece.

    `known` are the states after its first loops, where it was asked with fewer loops and without a cache.
    """
    injected, values = model.prelude(ids, model.slots("prelude", ids, cache))
    current = model.zero_state(injected) if state is None else state.expand(len(ids), -1, -1)
    states = list(known[:loops])
    current = states[-1] if states else current
    for loop in range(len(states), loops):
        current = model.recur(current, injected, values, model.slots("core_block", ids, cache, loop))
        states.append(current)
    logits = model.coda(current, ids, model.slots("coda", ids, cache))
    if cache is not None:
        cache.advance(ids.shape[1], loops)
    return logits, states


def expected(
    model: Parcae, probe: Probe, loops: int, spec: CacheSpec, known: Sequence[Tensor] = ()
) -> tuple[Tensor, list[Tensor]]:
    """What the eager model answers: logits and states over the whole length.

    A text in one piece needs no cache unless the cache rounds: a chunk sees its own loop's keys under every policy.
    Then `known`, the states that it answered for fewer loops, need not be computed again.
    """
    if not probe.pieces and spec.dtype == "fp32":
        return eager(model, probe.ids, loops, None, probe.state, known)
    cache = spec.make(model.config, loops, probe.ids.shape[1], batch=len(probe.ids))
    logits, states = [], []
    for part in probe.parts():
        first_state = None if probe.state is None else probe.state[:, part]
        piece, seen = eager(model, probe.ids[:, part], loops, cache, first_state)
        logits.append(piece)
        states.append(seen)
    return torch.cat(logits, dim=1), [torch.cat(loop, dim=1) for loop in zip(*states, strict=True)]


def answered(host: Host, probe: Probe, loops: int) -> tuple[Tensor, dict[int, Tensor]]:
    """What the artifact answers; states by loop where the form lets them be seen."""
    logits, states = [], []
    for ids in probe.ids.tolist():
        host.reset()
        rows: list[np.ndarray] = []
        seen: dict[int, list[np.ndarray]] = {}

        def keep(loop: int, state: np.ndarray, seen: dict[int, list[np.ndarray]] = seen) -> None:
            seen.setdefault(loop, []).append(state)

        for part in probe.parts():
            first_state = None if probe.state is None else probe.state[:, part].numpy()
            rows.append(host.run(ids[part], loops, initial_state=first_state, on_state=keep))
        logits.append(torch.from_numpy(np.concatenate(rows)))
        states.append({loop: torch.from_numpy(np.concatenate(parts, axis=1)) for loop, parts in seen.items()})
    return torch.stack(logits), {loop: torch.cat([text[loop] for text in states]) for loop in states[0]}


def distances(
    wanted: tuple[Tensor, list[Tensor]], got: tuple[Tensor, dict[int, Tensor]], probe: Probe, loops: int
) -> Measured:
    """Logits and states side by side. A host that ran another number of loops than `loops` has infinite errors."""
    mean, most = {}, {}
    for loop, state in sorted(got[1].items()):
        if loop >= loops or state.shape != wanted[1][loop].shape:
            mean[loop] = most[loop] = float("inf")
            continue
        reference = wanted[1][loop]
        error = (state.float() - reference).norm(dim=-1) / reference.norm(dim=-1).clamp_min(1e-12)
        error = torch.nan_to_num(error, nan=float("inf"))
        mean[loop], most[loop] = float(error.mean()), float(error.max())
    if got[1] and loops - 1 not in got[1]:
        mean[loops - 1] = most[loops - 1] = float("inf")
    return Measured(compare(wanted[0], got[0].float(), probe.targets), mean, most)


def measure(
    host: Host, model: Parcae, probe: Probe, loops: int, spec: CacheSpec, known: dict[str, list[Tensor]] | None = None
) -> Measured:
    """One probe at one loop count. `known` holds by probe the eager model's states so far, for other loop counts."""
    states = {} if known is None else known
    wanted = expected(model, probe, loops, spec, states.get(probe.name, ()))
    states[probe.name] = wanted[1]
    return distances(wanted, answered(host, probe, loops), probe, loops)
