"""Loop vectors: which T a message runs at, the calls that T makes, and when a token leaves the loop early."""

from __future__ import annotations

from typing import Any

import numpy as np

from parcae_mobile.app_manifest import Loops
from parcae_mobile.errors import ParcaeError
from parcae_mobile.sampling import Random

from .files import Cases

FLOOR = 1e-12
CLEAR = 1e-3  # a change is at least this share of the threshold away from it


def loop_vectors() -> tuple[Cases, dict[str, Any]]:
    """Cases and the facts that hold for all."""
    dynamic = {"form": "stages", "min": 1, "max": 16, "trained": 6, "built": []}
    above, between = dynamic | {"min": 2}, dynamic | {"min": 4, "max": 8}  # others failed the gates
    static = {"form": "unrolled", "min": 2, "max": 8, "trained": 4, "built": [2, 4, 8]}
    short = dynamic | {"max": 4}
    choices = [(dynamic, asked) for asked in (None, 1, 6, 16, 0, 17, -1)]
    choices += [(above, asked) for asked in (None, 1, 2)]
    choices += [(between, asked) for asked in (None, 3, 4, 8, 9)]
    choices += [(static, asked) for asked in (None, 2, 8, 3, 16)]
    choices += [(short, asked) for asked in (None, 4, 5)]
    choices += [(static | {"trained": 5}, None)]
    calls = [call_case(loops, used) for loops, used in ((1, 1), (2, 2), (4, 4), (8, 3), (8, 8))]
    exits = [
        exit_case("a state that settles", settling(1, 8, 6, 0.35), 8, 0.05),
        exit_case("another threshold", settling(1, 8, 6, 0.35), 8, 0.2),
        exit_case("off", settling(1, 8, 6, 0.35), 8, 0.0),
        exit_case("never settles", settling(1, 8, 6, 0.95), 8, 0.01),
        exit_case("fewer loops than it needs", settling(1, 3, 6, 0.5), 3, 0.05),
        exit_case("the first loop never ends it", settling(1, 4, 6, 0.0), 4, 0.99),
        exit_case("all tokens of a chunk have to be still", settling(3, 8, 4, 0.3, slow=0.7), 8, 0.05),
        exit_case("a state of zeros is still at once", np.zeros((4, 1, 4)), 4, 0.05),
        exit_case("not before the third loop", settling(1, 8, 6, 0.05), 8, 0.2, exit_from=3),
        exit_case("large numbers", settling(1, 8, 6, 0.4) * 2.0**60, 8, 0.05),
        exit_case("small numbers", settling(1, 8, 6, 0.4) * 2.0**-30, 8, 0.05),
    ]
    bad = [{"case": f"threshold {value}", "threshold": value} for value in (-0.1, 1.0, 2.0)]
    cases = {"choose": [choose_case(*choice) for choice in choices], "calls": calls, "exit": exits}
    return cases | {"bad_thresholds": bad}, {"floor": FLOOR, "tolerance": 1e-6}


def choose_case(loops: dict[str, Any], asked: int | None) -> dict[str, Any]:
    """The loop count that a message runs at, null where asking is an error."""
    try:
        chosen = Loops.model_validate(loops | {"early_exit": False}).choose(asked)
    except ParcaeError:
        chosen = None
    return {"loops": loops, "asked": asked, "chosen": chosen}


def call_case(loops: int, used: int) -> dict[str, Any]:
    """The calls of one chunk, if the loop ends after `used`. `state` 0 is read first and holds zeros."""
    calls: list[dict[str, Any]] = [{"graph": "prelude"}]
    for loop in range(1, used + 1):
        calls.append({"graph": "recur", "loop": loop, "reads_state": loop - 1, "writes_state": loop})
    return {"loops": loops, "used": used, "calls": [*calls, {"graph": "coda", "reads_state": used}]}


def settling(tokens: int, loops: int, width: int, rate: float, slow: float | None = None) -> np.ndarray:
    """(loops, tokens, width): states that near their limits by `rate` a loop, the last token's by `slow`."""
    random = Random(tokens * 1000 + loops * 100 + width)
    limit, start = (
        np.array([[random.uniform() * 2 - 1 for _ in range(width)] for _ in range(tokens)]) for _ in range(2)
    )
    rates = np.full((tokens, 1), rate)
    if slow is not None:
        rates[-1] = slow
    states = [limit + (start - limit) * rates**loop for loop in range(1, loops + 1)]
    return np.round(np.array(states) * 4096) / 4096  # exact in fp32


def exit_case(name: str, states: np.ndarray, loops: int, threshold: float, exit_from: int = 1) -> dict[str, Any]:
    """States after each loop, the largest change of each loop, and the loops that were used."""
    changes: list[float] = []
    before = np.zeros_like(states[0])
    used = loops
    for loop, after in enumerate(states[:loops], start=1):
        change = np.sqrt(((after - before) ** 2).sum(-1)) / np.maximum(np.sqrt((after**2).sum(-1)), FLOOR)
        changes.append(float(change.max()))
        if threshold and abs(changes[-1] - threshold) < CLEAR * threshold:
            raise ValueError(f"{name}: the change of loop {loop} is too near the threshold")
        if changes[-1] < threshold and loop >= exit_from:
            used = loop
            break
        before = after
    given = {"case": name, "loops": loops, "threshold": threshold, "exit_from": exit_from, "states": states.tolist()}
    return given | {
        "changes": changes,
        "used": used,
    }
