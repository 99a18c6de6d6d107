"""What a cache's policy and type cost, by the pieces in which a text is given: the table behind `docs/kv-cache.md`.

    rows = study_cache(model, windows, loops=8, pieces=(0, 16, 1), scales=scales)
    rows[0].policy, rows[0].piece, rows[0].distance.kl_mean

The reference is the forward pass over the whole text without a cache. Within a piece a token sees the keys of its own
loop, of earlier pieces the policy's; so a piece is what decides how much of the past a token sees through the policy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from export.targets.host import CacheGeometry
from parcae_mobile.kv_cache import CacheScales, CacheSpec
from parcae_mobile.loops import KV_POLICIES
from parcae_mobile.model import Parcae
from parcae_mobile.parity import Distance, compare

PIECES = (0, 64, 16, 4, 1)  # tokens at once; 0: the whole text
SKIPPED = 32  # first tokens of a window, which see too little of the past to tell policies apart


@dataclass(frozen=True)
class StudyRow:
    """One policy, type and piece against the whole text at once without a cache."""

    policy: str
    dtype: str
    piece: int
    distance: Distance
    bytes_per_token: int

    def to_dict(self) -> dict[str, float | int | str]:
        return {
            "policy": self.policy,
            "dtype": self.dtype,
            "piece": self.piece,
            "kl_mean": self.distance.kl_mean,
            "kl_sem": self.distance.kl_sem,
            "top1": self.distance.top1,
            "max_abs": self.distance.max_abs,
            "bytes_per_token": self.bytes_per_token,
        }


@torch.no_grad()
def study_cache(
    model: Parcae,
    windows: Tensor,
    loops: int,
    pieces: Sequence[int] = PIECES,
    scales: CacheScales | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> list[StudyRow]:
    """Every policy in fp32 (and in int8 where `scales` are given) over (n, length) held-out ids."""
    whole = model(windows, loops)[:, SKIPPED:]
    rows = []
    for dtype, item in (("fp32", 4), ("int8", 1))[: 1 if scales is None else 2]:
        for policy in KV_POLICIES:
            spec = CacheSpec(policy, dtype, scales if dtype == "int8" else None)
            per_token = CacheGeometry.of(model.config, loops, policy=policy).bytes_per_token(loops, item)
            for piece in pieces:
                progress(f"{policy} {dtype}, pieces of {piece or 'all'}")
                logits = read_in_pieces(model, windows, loops, spec, piece)[:, SKIPPED:]
                distance = compare(whole, logits, keep=model.config.vocab_size)
                rows.append(StudyRow(policy, dtype, piece, distance, per_token))
    return rows


@torch.no_grad()
def read_in_pieces(model: Parcae, windows: Tensor, loops: int, spec: CacheSpec, piece: int) -> Tensor:
    """Logits (n, length, padded vocabulary) of (n, length) ids, given `piece` at a time (0: all at once)."""
    count, length = windows.shape
    cache = spec.make(model.config, loops, length, batch=count)
    return torch.cat([model(part, loops, cache=cache) for part in windows.split(piece or length, dim=1)], dim=1)
