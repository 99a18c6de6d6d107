"""What does rounding cost? The artifact as published, against the eager model that rounds no activation.

    budget = ROUNDING["int8"]
    failures = rounding_failures(8, measured, budget)

It is no test of the function: a matrix that is 5 % off can hide in the rounding of activations to int8.
"""

from __future__ import annotations

from export.gates.probes import Measured

# By what activations are computed in. `state_mean` is the mean relative error of the state after the worst loop.
ROUNDING: dict[str, dict[str, float]] = {
    "fp16": {"kl_mean": 1e-4, "kl_p99": 1e-3, "top1": 0.995, "state_mean": 0.02},
    "int8": {"kl_mean": 1e-3, "kl_p99": 1e-2, "state_mean": 0.05},
}


def rounding_budget(compute: str, trained: bool) -> dict[str, float]:
    """The bounds of what an artifact computes in; logits of random weights are too flat for top-1 to say anything."""
    return {key: bound for key, bound in ROUNDING[compute].items() if trained or key != "top1"}


def rounding_failures(loops: int, measured: Measured, budget: dict[str, float]) -> list[str]:
    """One line for each bound that is exceeded."""
    values = measured.distance.to_dict() | {"state_mean": max(measured.state_mean.values(), default=0.0)}
    lines = []
    for key, bound in budget.items():
        if key in values and not (values[key] >= bound if key == "top1" else values[key] <= bound):
            lines.append(f"T={loops}: {key} {values[key]:.3g} is {'below' if key == 'top1' else 'above'} {bound:.3g}")
    return lines
