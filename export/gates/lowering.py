"""Gate 1: the finished artifact against the eager model that has the same quantized weights.

    verdict = lowering_gate(host, quantized.model, texts, loops=(1, 2, 4, 8, 16), compute="fp32")

It says that the files compute the function that PyTorch computes, and nothing about what quantization cost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from export.targets.host import Host
from parcae_mobile.kv_cache import CacheSpec
from parcae_mobile.manifest import Verdict
from parcae_mobile.model import Parcae
from parcae_mobile.parity import Distance, compare, greedy, state_error, sweep

TEXT_TOKENS = 64
GREEDY_TOKENS = 64
PROMPT_TOKENS = 16
FULL_FP32 = CacheSpec()
CACHED_PREFILL = 40  # the first text is given in one piece up to here, then token by token

FP16_CACHE = "fp32, fp16 cache"
# Bounds by what activations are computed in.
BUDGETS: dict[str, dict[str, float]] = {
    "fp32": {"max_abs": 1e-4, "cosine": 0.9999, "greedy_equal": GREEDY_TOKENS},
    "fp16": {"kl_mean": 1e-4, "top1": 0.995},
    "int8": {"kl_mean": 1e-3},
    # A key that another order of summation puts on the other side of an fp16 edge moves logits by more than 1e-4: fp32
    # and fp64 eager models, both with fp16 caches, differ by 1.0e-3 (T=4) to 2.5e-3 (T=16), at a KL below 1e-8.
    FP16_CACHE: {"max_abs": 5e-3, "kl_mean": 1e-7, "cosine": 0.9999, "greedy_equal": GREEDY_TOKENS},
}
LARGEST_FP16 = 65504 / 2  # results beyond it leave no room for texts that were not tried
_AT_LEAST = {"cosine", "top1", "greedy_equal"}


@dataclass
class LoweringVerdict:
    """The gate's result by loop count."""

    passed: bool
    by_loops: dict[int, Distance]
    state_errors: dict[int, list[float]]
    greedy_equal: dict[int, int]
    budget: dict[str, float]
    failures: list[str] = field(default_factory=list)
    largest_fp16: dict[int, float] = field(default_factory=dict)  # so far, where the host sees intermediate results

    def to_verdict(self) -> Verdict:
        """The form that the manifest keeps."""
        by_loops: dict[str, dict[str, Any]] = {}
        for loops, distance in self.by_loops.items():
            extra: dict[str, Any] = {"state_errors": self.state_errors[loops], "greedy_equal": self.greedy_equal[loops]}
            if self.largest_fp16.get(loops):
                extra["largest_fp16"] = self.largest_fp16[loops]
            by_loops[str(loops)] = distance.to_dict() | extra
        return Verdict(passed=self.passed, by_loops=by_loops, budget=self.budget, note="; ".join(self.failures))


def lowering_gate(
    host: Host,
    model: Parcae,
    texts: Tensor,
    loops: Sequence[int],
    compute: str,
    cache: CacheSpec = FULL_FP32,
    progress: Callable[[str], None] = lambda line: None,
) -> LoweringVerdict:
    """Compare on (texts, length + 1) ids at each loop count: logits, per-loop states, greedy continuations.

    The first text goes through the cache in pieces, the others in one piece. Both sides have a cache of the same kind;
    where it holds fp32, whole texts are compared with eager without one. Last ids of a window are targets only.
    """
    inputs, targets = texts[:, :-1], texts[:, 1:]
    whole = {count: logits for count, _, logits in sweep(model, inputs, loops)} if cache.dtype == "fp32" else {}
    states = [state[-1] for state in model.states(inputs, max(loops))]
    by_loops, errors, equal, largest, places = {}, {}, {}, {}, {}
    for count in loops:
        progress(f"lowering gate, T={count}")
        outputs = [_in_pieces(host, inputs[0].tolist(), count)]
        for ids in inputs[1:].tolist():
            host.reset()
            outputs.append(host.run(ids, count))
        others = whole[count][1:] if whole else _eager(model, inputs[1:], count, cache, inputs.shape[1])
        expected = torch.cat([_eager(model, inputs[:1], count, cache, CACHED_PREFILL), others])
        by_loops[count] = compare(expected, torch.from_numpy(np.stack(outputs)), targets)
        errors[count] = _state_errors(host, states, inputs[-1].tolist(), count)
        equal[count] = _greedy_agreement(host, model, inputs[0, :PROMPT_TOKENS].tolist(), count, cache)
        largest[count], places[count] = host.largest_fp16, host.largest_fp16_at
    budget = dict(BUDGETS[compute])
    if "greedy_equal" in budget:  # a short context has room for fewer
        budget["greedy_equal"] = min(GREEDY_TOKENS, host.geometry.context - min(PROMPT_TOKENS, inputs.shape[1]))
    failures = [line for count in loops for line in _failures(count, by_loops[count], equal[count], budget)]
    if overflowing := [count for count in loops if largest[count] > LARGEST_FP16]:
        failures.insert(0, _overflow(overflowing[0], largest, places, compute))
    return LoweringVerdict(not failures, by_loops, errors, equal, budget, failures, largest)


def _overflow(loops: int, largest: dict[int, float], places: dict[int, str], compute: str) -> str:
    """What was too large at the first loop count that showed it, and what to do."""
    if compute == "fp16":
        remedy = "export with --compute fp32"
    else:  # only the cache is fp16 then
        remedy = "no cache of this target holds it: use --target onnx"
    return f"T={loops}: {places[loops]} gives {largest[loops]:.3g}, too near fp16's end at 65504; {remedy}"


def budget_name(compute: str, kv_dtype: str) -> str:
    """The budget of an artifact: where the cache rounds, a rounding on an edge moves a logit, not a token."""
    return "int8" if kv_dtype == "int8" else FP16_CACHE if (compute, kv_dtype) == ("fp32", "fp16") else compute


def _state_errors(host: Host, states: list[Tensor], ids: list[int], loops: int) -> list[float]:
    """Relative error of the recurrent state after each loop that the form lets be seen (the last one at least)."""
    seen: dict[int, np.ndarray] = {}
    host.reset()
    host.run(ids, loops, on_state=seen.__setitem__)
    return [state_error(states[loop], torch.from_numpy(state[0])) for loop, state in sorted(seen.items())]


def _in_pieces(host: Host, ids: list[int], loops: int) -> np.ndarray:
    host.reset()
    split = min(CACHED_PREFILL, len(ids))
    parts = [host.run(ids[:split], loops), *(host.run([token], loops) for token in ids[split:])]
    return np.concatenate(parts)


@torch.no_grad()
def _eager(model: Parcae, ids: Tensor, loops: int, spec: CacheSpec, prefill: int) -> Tensor:
    """Eager logits through a cache: `prefill` ids at once, then one by one."""
    length = ids.shape[1]
    cache = spec.make(model.config, loops, length, batch=len(ids))
    pieces = [ids[:, :prefill], *(ids[:, place : place + 1] for place in range(prefill, length))]
    return torch.cat([model(piece, loops, cache=cache) for piece in pieces], dim=1)


def _greedy_agreement(host: Host, model: Parcae, prompt: list[int], loops: int, spec: CacheSpec) -> int:
    """How many greedy tokens are the same before the first difference."""
    tokens = min(GREEDY_TOKENS, host.geometry.context - len(prompt))
    expected = greedy(model, prompt, tokens, loops, spec.make(model.config, loops, len(prompt) + tokens))
    host.reset()
    chunk = prompt
    for done, token in enumerate(expected):
        logits = host.run(chunk, loops, positions=[len(chunk) - 1])
        if int(logits[0, : host.geometry.vocab_size].argmax()) != token:
            return done
        chunk = [token]
    return len(expected)


def _failures(loops: int, distance: Distance, equal: int, budget: dict[str, float]) -> list[str]:
    measured = {**distance.to_dict(), "greedy_equal": equal}
    lines = []
    for key, bound in budget.items():
        value = measured[key]
        if not (value >= bound if key in _AT_LEAST else value <= bound):
            relation = "below" if key in _AT_LEAST else "above"
            lines.append(f"T={loops}: {key} {value:.3g} is {relation} {bound:.3g}")
    return lines
