"""Sampler vectors: the random generator, and tokens drawn by every setting, none of them near an edge.

`exp` differs between languages in its last bit. So a case is kept only if every draw, and every cut by top-p and
min-p, is further from its edge than `MARGIN` (a share of the sum of weights), and if logits that are not equal differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from parcae_mobile.sampling import RECENT, Random, Sampler, Sampling

from .files import Cases

MARGIN = 1e-9
SEEDS = (0, 1, 2, 42, 2**31 - 1, 2**31, 2**32 - 1)
SMALL = [2.0, 1.0, 0.5, 0.25, 0.0, -0.5, -1.0, -4.0]
TIES = [1.0, 3.0, 3.0, -2.0, 3.0, 1.0, 0.0, 1.0]
STEEP = [40.0, 12.5, 39.0, -30.25, 7.0, 38.5, 0.125, 2.0]
MASKED = [0.5, None, 2.0, None, 1.5, None, None, 1.0]
NEGATIVE = [-3.5, -1.25, -2.0, -8.0, -1.5, -6.0, -0.75, -5.0]
ROWS: list[tuple[str, list[Any]]] = [
    ("small", SMALL),
    ("ties", TIES),
    ("steep", STEEP),
    ("masked", MASKED),
    ("negative", NEGATIVE),
]
SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("greedy", {}),
    ("greedy, other settings do nothing", {"top_k": 3, "top_p": 0.5, "min_p": 0.2, "seed": 9}),
    ("temperature 1", {"temperature": 1.0, "seed": 1}),
    ("temperature 0.7", {"temperature": 0.7, "seed": 2}),
    ("temperature 3", {"temperature": 3.0, "seed": 3}),
    ("nearly greedy", {"temperature": 1e-6, "seed": 4}),
    ("top-k 1", {"temperature": 1.0, "top_k": 1, "seed": 5}),
    ("top-k 3", {"temperature": 1.5, "top_k": 3, "seed": 6}),
    ("top-k above the vocabulary", {"temperature": 1.0, "top_k": 1000, "seed": 7}),
    ("top-p 0.5", {"temperature": 1.0, "top_p": 0.5, "seed": 8}),
    ("top-p 0.9", {"temperature": 2.0, "top_p": 0.9, "seed": 9}),
    ("top-p tiny", {"temperature": 1.0, "top_p": 1e-3, "seed": 10}),
    ("min-p 0.1", {"temperature": 1.0, "min_p": 0.1, "seed": 11}),
    ("min-p 1", {"temperature": 1.0, "min_p": 1.0, "seed": 12}),
    ("all cuts", {"temperature": 1.3, "top_k": 6, "top_p": 0.85, "min_p": 0.05, "seed": 13}),
    ("largest seed", {"temperature": 1.0, "seed": 2**32 - 1}),
]
SETTINGS_OF_MANY: list[tuple[str, dict[str, Any]]] = [
    ("greedy", {}),
    ("temperature 0.8", {"temperature": 0.8, "seed": 21}),
    ("top-k 40", {"temperature": 0.8, "top_k": 40, "seed": 22}),
    ("top-p 0.95", {"temperature": 0.8, "top_p": 0.95, "seed": 23}),
    ("min-p 0.05", {"temperature": 1.0, "min_p": 0.05, "seed": 24}),
    ("all", {"temperature": 0.9, "top_k": 200, "top_p": 0.9, "min_p": 0.02, "repetition_penalty": 1.1}),
]
BAD_SETTINGS: list[tuple[str, float]] = [
    ("temperature", -0.5),
    ("top_k", -1),
    ("top_p", 0.0),
    ("top_p", 1.5),
    ("min_p", -0.1),
    ("min_p", 1.5),
    ("repetition_penalty", 0.0),
    ("repetition_penalty", -1.0),
    ("seed", -1),
    ("seed", 2**32),
]
BAD_LOGITS: list[dict[str, Any]] = [
    {"case": "a NaN", "logits": [1.0, "nan", 0.0]},
    {"case": "an infinity", "logits": [1.0, "inf", 0.0]},
    {"case": "all masked", "logits": ["-inf", "-inf"]},
]
DEFAULTS = {"temperature": 0.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0, "seed": 0}


def drawn_logits(seed: int, count: int, scale: float = 20.0, offset: float = -10.0) -> np.ndarray:
    """(count,) fp32: `uniform() * scale + offset`, rounded to fp32, of the kit's own generator."""
    random = Random(seed)
    return np.array([random.uniform() * scale + offset for _ in range(count)], np.float64).astype(np.float32)


def sampler_vectors() -> tuple[Cases, dict[str, Any]]:
    """Cases and the facts that hold for all of them."""
    many = {"seed": 77, "count": 4096}
    chosen = [choose_case(f"{row}: {name}", values, settings) for row, values in ROWS for name, settings in SETTINGS]
    chosen += penalty_cases()
    chosen += [choose_case(f"4096 tokens: {name}", many, settings, draws=12) for name, settings in SETTINGS_OF_MANY]
    cases: Cases = {
        "random": [random_case(seed) for seed in SEEDS],
        "choose": chosen,
        "bad_settings": [{"case": f"{name} {value}", "settings": {name: value}} for name, value in BAD_SETTINGS],
        "bad_logits": BAD_LOGITS,
    }
    return cases, {"recent": RECENT, "margin": MARGIN, "defaults": DEFAULTS}


def random_case(seed: int) -> dict[str, Any]:
    words, uniforms = Random(seed), Random(seed)
    return {"seed": seed, "words": [words.word() for _ in range(8)], "uniforms": [uniforms.uniform() for _ in range(8)]}


def penalty_cases() -> list[dict[str, Any]]:
    penalty = {"temperature": 1.0, "repetition_penalty": 1.3, "seed": 31}
    strong, cuts = {"repetition_penalty": 9.0}, {"top_k": 5, "top_p": 0.99, "min_p": 0.001}
    return [
        choose_case("penalty, greedy: a repeated token loses", SMALL, {"repetition_penalty": 3.0}, history=[0, 0, 0]),
        choose_case("penalty grows with the answer", SMALL, {"repetition_penalty": 1.5}),
        choose_case("penalty on negative logits multiplies", NEGATIVE, penalty, history=[6, 1]),
        choose_case("penalty counts a token once", SMALL, penalty, history=[1, 1, 1, 1]),
        choose_case("penalty below 1 favours", SMALL, penalty | {"repetition_penalty": 0.5}, history=[4, 5]),
        choose_case("penalty looks 64 tokens back", SMALL, strong, history=[0, *[7] * (RECENT - 1)]),
        choose_case("penalty looks no further", SMALL, strong, history=[0, *[7] * RECENT]),
        choose_case("penalty, then all cuts", STEEP, penalty | cuts, history=[7, *[3] * RECENT]),
    ]


def values_of(logits: Any) -> np.ndarray:
    """fp32 logits of a case: numbers (null is minus infinity), or what the kit's generator draws."""
    if isinstance(logits, dict):
        return drawn_logits(logits["seed"], logits["count"])
    return np.array([-np.inf if value is None else float(value) for value in logits], np.float32)


def choose_case(
    name: str, logits: Any, settings: dict[str, Any], history: Sequence[int] = (), draws: int = 16
) -> dict[str, Any]:
    """Tokens drawn one after another from the same logits; each joins the history. Raises if one is near an edge."""
    values, sampling = values_of(logits), Sampling(**settings)
    sampler, past, tokens = Sampler(sampling), list(history), []
    shadow = Random(sampling.seed)
    for _ in range(draws):
        if sampling.temperature:
            check_margin(name, values, sampling, past, shadow.uniform())
        tokens.append(sampler.choose(values, past))
        past.append(tokens[-1])
    return {"case": name, "logits": logits, "history": list(history), "settings": settings, "tokens": tokens}


def check_margin(name: str, logits: np.ndarray, sampling: Sampling, history: Sequence[int], uniform: float) -> None:
    """The definition once more, step by step in plain Python, with the distance to each edge."""
    scores = [float(value) for value in logits]
    for token in set(history[-RECENT:]):
        score = scores[token]
        scores[token] = score / sampling.repetition_penalty if score > 0 else score * sampling.repetition_penalty
    order = sorted(range(len(scores)), key=lambda token: (-scores[token], token))
    order = order[: sampling.top_k or len(order)]
    weights = [float(np.exp((scores[token] - scores[order[0]]) / sampling.temperature)) for token in order]
    sums = np.cumsum(weights)
    edges = [abs(sums - sampling.top_p * sums[-1]).min() / sums[-1]] if sampling.top_p < 1 else []
    count = next(i for i, total in enumerate(sums) if total >= sampling.top_p * sums[-1]) + 1 if edges else len(order)
    if 0 < sampling.min_p < 1:
        edges.append(min(abs(weight - sampling.min_p) for weight in weights))
    count = sum(weight >= sampling.min_p for weight in weights[:count])
    edges.append(abs(sums[: count - 1] - uniform * sums[count - 1]).min() / sums[count - 1] if count > 1 else 1.0)
    if min(edges) < MARGIN:
        raise ValueError(f"{name}: a decision is {min(edges):.1e} from its edge; choose another seed")
