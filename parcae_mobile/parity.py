"""How far logits are from a reference, and sweeps over loop counts that share their loops.

    distance = compare(reference_logits, logits, targets)  # KL in nats, top-1 agreement, greatest difference, ...
    for loops, state, logits in sweep(model, input_ids, (1, 2, 4, 8)): ...

Two gates use these numbers and are never mixed: the lowering gate compares an artifact with the eager model that has
the same quantized weights; the compression gate compares that eager model with the fp32 one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .kv_cache import KVCache
from .model import Parcae

ROWS_AT_ONCE = 64  # positions of one step: what it makes stays in the processor's cache


@dataclass(frozen=True)
class Distance:
    """Logits against reference logits over some positions."""

    positions: int
    kl_mean: float  # KL(reference || other) in nats
    kl_sem: float  # standard error of the mean
    kl_p95: float
    kl_p99: float
    top1: float  # share of positions with the same most likely token
    flips: int  # positions where it differs although the reference's margin exceeds the largest difference
    max_abs: float
    cosine: float  # least over positions
    perplexity_ratio: float | None  # other / reference on the targets, None without targets

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def compare(reference: Tensor, other: Tensor, targets: Tensor | None = None, keep: int | None = None) -> Distance:
    """Distance of (..., vocabulary) logits; `targets` (...,) int64 add perplexities.

    `keep` is the real vocabulary where the tables are padded. Non-finite logits give infinite distances.
    """
    p = reference.reshape(-1, reference.shape[-1])[:, :keep].float()
    q = other.reshape(-1, other.shape[-1])[:, :keep].float()
    kl, cosine, largest, same, margins = [], [], 0.0, [], []
    nll_p = nll_q = 0.0
    flat = None if targets is None else targets.reshape(-1)
    for start in range(0, len(p), ROWS_AT_ONCE):
        a, b = p[start : start + ROWS_AT_ONCE].double(), q[start : start + ROWS_AT_ONCE].double()
        (weights, log_sum_a), (_, log_sum_b) = _exponentials(a), _exponentials(b)
        apart = a - b
        gap = apart.abs().amax()
        kl.append((weights * (apart + (log_sum_b - log_sum_a))).sum(-1) / weights.sum(-1))
        norms = a.norm(dim=-1).clamp_min(1e-8) * b.norm(dim=-1).clamp_min(1e-8)
        cosine.append((a * b).sum(-1) / norms)
        largest = max(largest, float(gap)) if math.isfinite(float(gap)) else math.inf
        same.append(a.argmax(-1) == b.argmax(-1))
        top = a.topk(2, -1).values
        margins.append(top[:, 0] - top[:, 1])
        if flat is not None:
            chunk = flat[start : start + ROWS_AT_ONCE, None]
            nll_p += float((log_sum_a - a.gather(1, chunk)).sum())
            nll_q += float((log_sum_b - b.gather(1, chunk)).sum())
    kls = torch.nan_to_num(torch.cat(kl), nan=math.inf, posinf=math.inf)
    equal, margin = torch.cat(same), torch.cat(margins)
    percentile = kls.sort().values
    return Distance(
        positions=len(kls),
        kl_mean=float(kls.mean()),
        kl_sem=float(kls.std() / math.sqrt(len(kls))) if len(kls) > 1 else 0.0,
        kl_p95=float(percentile[min(len(kls) - 1, int(0.95 * len(kls)))]),
        kl_p99=float(percentile[min(len(kls) - 1, int(0.99 * len(kls)))]),
        top1=float(equal.float().mean()),
        flips=int((~equal & (margin > largest)).sum()) if math.isfinite(largest) else int((~equal).sum()),
        max_abs=largest,
        cosine=float(torch.nan_to_num(torch.cat(cosine), nan=-1.0).min()),
        perplexity_ratio=None if flat is None else math.exp(min((nll_q - nll_p) / len(kls), 700.0)),
    )


def _exponentials(logits: Tensor) -> tuple[Tensor, Tensor]:
    """exp(logits - greatest) and the logarithm of the sum of exp(logits), of (n, vocabulary) and (n, 1).

    One exponential for each logit: softmax and its logarithm would take three, which is most of a comparison's time.
    """
    top = logits.amax(-1, keepdim=True)
    weights = (logits - top).exp_()
    return weights, top + weights.sum(-1, keepdim=True).log()


def perplexity(logits: Tensor, targets: Tensor) -> float:
    """exp of the mean negative log-likelihood of `targets` (...,) under (..., vocabulary) logits."""
    return math.exp(float(F.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1))))


@torch.no_grad()
def sweep(model: Parcae, input_ids: Tensor, loops: Sequence[int] | None = None) -> Iterator[tuple[int, Tensor, Tensor]]:
    """(T, state, logits) for each T of `loops`, over (batch, sequence) ids given as a whole; loops are run once."""
    wanted = set(model.config.judged_loops if loops is None else loops)
    for done, state in enumerate(model.states(input_ids, max(wanted)), 1):
        if done in wanted:
            yield done, state, model.coda(state, input_ids, model.slots("coda", input_ids))


def state_error(reference: Tensor, other: Tensor) -> float:
    """Mean over positions of |other - reference| / |reference|, for states (..., width)."""
    return float(((other - reference).norm(dim=-1) / reference.norm(dim=-1).clamp_min(1e-12)).mean())


@torch.no_grad()
def state_changes(model: Parcae, input_ids: Tensor, loops: int) -> list[float]:
    """Mean relative change of the state at each loop after the first: how far the loop is from its fixed point."""
    changes, previous = [], None
    for state in model.states(input_ids, loops):
        if previous is not None:
            changes.append(state_error(state, previous))
        previous = state
    return changes


@torch.no_grad()
def greedy(model: Parcae, prompt: Sequence[int], tokens: int, loops: int, cache: KVCache | None = None) -> list[int]:
    """`tokens` greedy tokens after `prompt`, through an empty `cache` (full, fp32 if none). Ties go to the lower id."""
    device = model.rope.device
    if cache is None:
        cache = KVCache(model.config, loops, context=len(prompt) + tokens, device=device)
    ids, out = torch.tensor([list(prompt)], device=device), []
    for _ in range(tokens):
        logits = model(ids, loops, cache=cache, positions=torch.tensor([ids.shape[1] - 1], device=device))
        out.append(int(logits[0, -1, : model.config.vocab_size].argmax()))
        ids = torch.tensor([out[-1:]], device=device)
    return out
