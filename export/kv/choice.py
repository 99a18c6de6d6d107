"""`--kv auto`: what sharing cache slots between loops costs on held-out text, and the smallest policy that is free.

    choice = choose_policy(model, windows, loops=8)
    choice.policy, choice.measured["shared"].kl_mean

Policies differ only when decoding: within a chunk a token sees the keys of the same loop, of the past it sees what the
policy kept. So windows are given as a prompt and then token by token, under each policy, and compared with `full`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from export.targets.host import CacheGeometry
from parcae_mobile.kv_cache import KVCache
from parcae_mobile.loops import KV_POLICIES
from parcae_mobile.model import Parcae
from parcae_mobile.parity import Distance, compare

MOST_KL = 1e-3
PROMPT = 32
WINDOWS, LENGTH = 8, 128
JUDGED_LOOPS = 8


@dataclass(frozen=True)
class PolicyCost:
    """One policy against `full`: distance of logits (decoded with fp32 caches) and bytes, at the judged loops."""

    distance: Distance
    bytes_per_token: int
    bytes_at_context: int

    def to_dict(self) -> dict[str, float]:
        return {
            "kl_mean": self.distance.kl_mean,
            "kl_sem": self.distance.kl_sem,
            "top1": self.distance.top1,
            "bytes_per_token": self.bytes_per_token,
            "bytes_at_context": self.bytes_at_context,
        }


@dataclass(frozen=True)
class PolicyChoice:
    """The policies that may be used, smallest first, what was measured, and at which loop count.

    `failed` are smaller ones whose artifact did not pass its gates.
    """

    fitting: tuple[str, ...]
    loops: int
    measured: dict[str, PolicyCost]
    failed: tuple[str, ...] = ()

    @property
    def policy(self) -> str:
        """The one to use."""
        return self.fitting[0]

    @property
    def note(self) -> str:
        """What failed, in a line; empty where nothing did."""
        if not self.failed:
            return ""
        named = " and ".join(self.failed)
        return f"the gates failed with the cache policy {named}, which is smaller, so {self.policy} was taken"

    def next(self) -> PolicyChoice | None:
        """The choice after the first policy failed; None if it was the last one."""
        if len(self.fitting) == 1:
            return None
        return replace(self, fitting=self.fitting[1:], failed=(*self.failed, self.policy))


def choose_policy(model: Parcae, windows: Tensor, max_loops: int, context: int, item: int = 4) -> PolicyChoice:
    """Measure every policy on (n, length) held-out ids; the one with the fewest slots and KL below 1e-3 wins.

    Bytes are those of a cache with `item` bytes for each number.
    """
    loops = min(JUDGED_LOOPS, max_loops)
    full = decode(model, windows, loops, "full")
    measured = {}
    for policy in KV_POLICIES:
        geometry = CacheGeometry.of(model.config, max_loops, context, policy)
        logits = full if policy == "full" else decode(model, windows, loops, policy)
        per_token = geometry.bytes_per_token(loops, item)
        measured[policy] = PolicyCost(compare(full, logits), per_token, per_token * context)
    fitting = [policy for policy, cost in measured.items() if cost.distance.kl_mean < MOST_KL]
    fitting.sort(key=lambda policy: measured[policy].bytes_per_token)
    return PolicyChoice(tuple(fitting), loops, measured)


@torch.no_grad()
def decode(model: Parcae, windows: Tensor, loops: int, policy: str) -> Tensor:
    """Logits (n, length - prompt, vocabulary) of the tokens after a prompt, each given alone."""
    count, length = windows.shape
    prompt = min(PROMPT, length // 2)
    cache = KVCache(model.config, loops, batch=count, context=length, policy=policy)
    model(windows[:, :prompt], loops, cache=cache, positions=torch.tensor([prompt - 1]))
    steps = [model(windows[:, place : place + 1], loops, cache=cache) for place in range(prompt, length)]
    return torch.cat(steps, dim=1)
