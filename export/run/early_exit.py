"""What early exit saves and what it costs, beside fixed loop counts, by decoding held-out text token by token.

    table = measure_exit(EagerReader(model, "shared"), windows, loops=8, thresholds=(0.2, 0.1, 0.05))
    table.recommended, table.rows[0].average_loops, table.rows[0].fixed_kl

Everything is compared with all loops under the same cache policy. A row of early exit carries what a fixed loop count
of the same average costs: between two whole numbers that is the mean of their costs weighted by how often each would
run (3.4 loops: 4 loops for four tokens of ten, 3 for the others), which a host could do without looking at the state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from export.targets.host import Host
from parcae_mobile.early_exit import decode_step
from parcae_mobile.kv_cache import KVCache
from parcae_mobile.model import Parcae
from parcae_mobile.parity import Distance, compare

PROMPT = 32  # tokens that are given at once, at all loops
WINDOWS, LENGTH = 16, 128
MOST_KL = 2e-3
THRESHOLDS = (0.3, 0.2, 0.15, 0.12, 0.1, 0.09, 0.08, 0.07, 0.05, 0.03, 0.02, 0.01)


@dataclass(frozen=True)
class Decoded:
    """Logits (windows, tokens, padded vocabulary) of every token after the prompts, and its loops (windows, tokens)."""

    logits: Tensor
    loops: Tensor


class Reader(Protocol):
    """Something that decodes windows: the eager model, or an artifact through its host runtime."""

    @property
    def vocab_size(self) -> int:
        """Without padding."""
        ...

    @property
    def least(self) -> int:
        """The fewest loops that it may run."""
        ...

    def read(self, windows: Tensor, prompt_loops: int, loops: int, threshold: float) -> Decoded:
        """Give `PROMPT` tokens of each (n, length) window at once at `prompt_loops`, then the others one by one."""
        ...


@dataclass
class EagerReader:
    """The eager model with a cache of a policy; windows are decoded side by side."""

    model: Parcae
    policy: str = "full"

    @property
    def vocab_size(self) -> int:
        return self.model.config.vocab_size

    @property
    def least(self) -> int:
        return 1

    @torch.no_grad()
    def read(self, windows: Tensor, prompt_loops: int, loops: int, threshold: float) -> Decoded:
        count, length = windows.shape
        most = max(loops, prompt_loops)
        cache = KVCache(self.model.config, most, batch=count, context=length, policy=self.policy)
        self.model(windows[:, :PROMPT], prompt_loops, cache=cache, positions=torch.tensor([PROMPT - 1]))
        steps = [
            decode_step(self.model, windows[:, place : place + 1], loops, threshold, cache)
            for place in range(PROMPT, length)
        ]
        return Decoded(torch.cat([logits for logits, _ in steps], 1), torch.stack([used for _, used in steps], 1))


@dataclass
class HostReader:
    """An artifact: windows one after another, as an app would."""

    host: Host

    @property
    def vocab_size(self) -> int:
        return self.host.geometry.vocab_size

    @property
    def least(self) -> int:
        return self.host.geometry.min_loops

    def read(self, windows: Tensor, prompt_loops: int, loops: int, threshold: float) -> Decoded:
        logits, used = [], []
        for window in windows.tolist():
            self.host.reset()
            self.host.run(window[:PROMPT], prompt_loops, positions=[PROMPT - 1])
            for token in window[PROMPT:]:
                logits.append(torch.from_numpy(self.host.run([token], loops, exit_threshold=threshold)[0].copy()))
                used.append(self.host.loops_used)
        shape = (len(windows), -1)
        return Decoded(torch.stack(logits).unflatten(0, shape), torch.tensor(used).view(shape))


@dataclass(frozen=True)
class ExitRow:
    """One threshold (0: a fixed loop count) against all loops."""

    threshold: float
    average_loops: float
    distance: Distance
    fixed_kl: float  # of a fixed loop count of this average

    def to_dict(self) -> dict[str, float]:
        return {
            "threshold": self.threshold,
            "average_loops": self.average_loops,
            "kl_mean": self.distance.kl_mean,
            "kl_sem": self.distance.kl_sem,
            "top1": self.distance.top1,
            "fixed_kl_mean": self.fixed_kl,
        }


@dataclass(frozen=True)
class ExitTable:
    """Fixed loop counts up to `loops`, and early exit out of `loops`, fewest loops first."""

    loops: int
    positions: int
    fixed: list[ExitRow]
    rows: list[ExitRow]

    @property
    def recommended(self) -> ExitRow | None:
        """The threshold with the fewest loops whose KL stays within 2e-3; None if none does."""
        return min(
            (row for row in self.rows if row.distance.kl_mean <= MOST_KL), key=lambda r: r.average_loops, default=None
        )

    @property
    def recommended_fixed(self) -> ExitRow:
        """The least fixed loop count whose KL stays within 2e-3."""
        return next(row for row in self.fixed if row.distance.kl_mean <= MOST_KL)

    def to_dict(self) -> dict[str, Any]:
        chosen = self.recommended
        return {
            "loops": self.loops,
            "positions": self.positions,
            "fixed": [row.to_dict() for row in self.fixed],
            "early_exit": [row.to_dict() for row in self.rows],
            "recommended_threshold": None if chosen is None else chosen.threshold,
            "recommended_fixed": round(self.recommended_fixed.average_loops),
        }


def measure_exit(
    reader: Reader,
    windows: Tensor,
    loops: int,
    thresholds: Sequence[float] = THRESHOLDS,
    prompt_at_all: bool = True,
    progress: Callable[[str], None] = lambda line: None,
) -> ExitTable:
    """Decode (n, length) held-out ids at every fixed loop count that may run up to `loops` and with every threshold.

    Prompts run all `loops` (as they do under early exit), or, with `prompt_at_all` False, the fixed count as well.
    """
    progress(f"all {loops} loops")
    every = reader.read(windows, loops, loops, 0.0).logits

    def against(logits: Tensor) -> Distance:
        return compare(every, logits, keep=reader.vocab_size)

    costs: dict[int, Distance] = {}
    for count in range(reader.least, loops + 1):
        progress(f"{count} loops")
        read = reader.read(windows, loops if prompt_at_all else count, count, 0.0)
        costs[count] = against(read.logits)
    rows = []
    for threshold in thresholds:
        progress(f"threshold {threshold:g}")
        read = reader.read(windows, loops, loops, threshold)
        average = float(read.loops.double().mean())
        rows.append(ExitRow(threshold, average, against(read.logits), _between(costs, average)))
    fixed = [ExitRow(0.0, float(count), cost, cost.kl_mean) for count, cost in costs.items()]
    return ExitTable(loops, costs[loops].positions, fixed, sorted(rows, key=lambda row: row.average_loops))


def _between(costs: Mapping[int, Distance], average: float) -> float:
    """KL of running floor(average) or one loop more, as often as the average says."""
    low = int(average)
    high = min(low + 1, max(costs))
    share = average - low
    return (1 - share) * costs[low].kl_mean + share * costs[high].kl_mean
