"""`--kv auto`: what sharing cache slots between loops costs on held-out text, and the smallest policy that is free.

    choice = choose_policy(model, windows, loops=8)
    choice.policy, choice.measured["shared"].kl_mean

Policies differ only when decoding: within a chunk a token sees the keys of the same loop, of the past it sees what the
policy kept. So windows are given as a prompt and then token by token, under each policy, and compared with `full`. The
policies decode side by side, as rows of one batch: a step takes as long for a small model whatever its rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from export.targets.host import CacheGeometry
from parcae_mobile.config import ParcaeConfig
from parcae_mobile.kv_cache import KVCache
from parcae_mobile.loops import KV_POLICIES, policy_slots
from parcae_mobile.model import Parcae
from parcae_mobile.parity import Distance, compare

MOST_KL = 1e-3
PROMPT = 32
WINDOWS, LENGTH = 8, 128
JUDGED_LOOPS = 8
BYTES_AT_ONCE = 256_000_000  # of caches of policies that decode side by side


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
    return choice_from(policy_distances(model, windows, loops), model.config, loops, max_loops, context, item)


def policy_distances(model: Parcae, windows: Tensor, loops: int) -> dict[str, Distance]:
    """By policy the distance to `full` of what it decodes of (n, length) held-out ids: all that the model decides."""
    per_policy = CacheGeometry.of(model.config, loops).bytes_per_token(loops, 4) * windows.numel()
    decoded: dict[str, Tensor] = {}
    for group in _groups(list(KV_POLICIES), max(1, BYTES_AT_ONCE // per_policy)):
        decoded |= decode(model, windows, loops, group)
    return {policy: compare(decoded["full"], logits) for policy, logits in decoded.items()}


def choice_from(
    distances: dict[str, Distance], config: ParcaeConfig, loops: int, max_loops: int, context: int, item: int = 4
) -> PolicyChoice:
    """The choice by what was measured at `loops`, for a cache of up to `max_loops` loops and `context` tokens."""
    measured = {}
    for policy, distance in distances.items():
        geometry = CacheGeometry.of(config, max_loops, context, policy)
        per_token = geometry.bytes_per_token(loops, item)
        measured[policy] = PolicyCost(distance, per_token, per_token * context)
    fitting = [policy for policy, cost in measured.items() if cost.distance.kl_mean < MOST_KL]
    fitting.sort(key=lambda policy: measured[policy].bytes_per_token)
    return PolicyChoice(tuple(fitting), loops, measured)


class SideBySide(KVCache):
    """Caches of several policies as rows of one batch, `rows` for each, in slots for every loop.

    Where a policy keeps one slot for several loops, a token that is done leaves its last loop's keys and values in each
    of them; so all loops must run.
    """

    def __init__(self, config: ParcaeConfig, loops: int, policies: Sequence[str], rows: int, context: int) -> None:
        super().__init__(config, loops, batch=rows * len(policies), context=context)
        self.kept = [policy_slots(policy, loops) for policy in policies]
        self.rows = rows

    def advance(self, length: int, loops: int) -> None:
        for tensors in (self.keys["core_block"], self.values["core_block"]):
            for place, slots in enumerate(self.kept):
                rows = slice(place * self.rows, (place + 1) * self.rows)
                chunk = tensors[:, :, rows, :, self.length : self.length + length]
                chunk[slots - 1 : -1] = chunk[-1]
        super().advance(length, loops)


@torch.no_grad()
def decode(model: Parcae, windows: Tensor, loops: int, policies: Sequence[str]) -> dict[str, Tensor]:
    """By policy the logits (n, length - prompt, vocabulary) of the tokens after a prompt, each given alone."""
    count, length = windows.shape
    prompt = min(PROMPT, length // 2)
    ids = windows.repeat(len(policies), 1)
    cache = SideBySide(model.config, loops, policies, count, length)
    model(ids[:, :prompt], loops, cache=cache, positions=torch.tensor([prompt - 1]))
    steps = [model(ids[:, place : place + 1], loops, cache=cache) for place in range(prompt, length)]
    return dict(zip(policies, torch.cat(steps, dim=1).split(count), strict=True))


def _groups(policies: list[str], at_once: int) -> list[list[str]]:
    return [policies[first : first + at_once] for first in range(0, len(policies), at_once)]
