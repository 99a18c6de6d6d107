"""What may be said of loops: their number, the cache slots that they share, the threshold at which they end early.

    check_loops(8, most=16); policy_slots("shared", max_loops=16); check_threshold(0.05)

Apart from the configuration, so that a host runtime on a small device imports nothing else of the package.
"""

from __future__ import annotations

from .errors import UsageError

LOOPS = (1, 2, 4, 8, 16)  # the loop counts at which a model or a dynamic artifact is judged
# How many loops keep keys and values of their own; the later ones share a slot in which the last one's win.
KV_POLICIES = {"full": None, "shared": 0, "first1+shared": 1, "first2+shared": 2}
KV_BYTES = {"fp32": 4, "fp16": 2, "int8": 1}  # of one number in a cache


def policy_slots(policy: str, max_loops: int) -> int:
    """Cache slots of a recurrent layer under a KV policy (the original's compress-s1, compress-first1, -first2)."""
    apart = KV_POLICIES[policy]
    return max_loops if apart is None else min(apart + 1, max_loops)


def check_loops(loops: int, most: int | None = None, least: int = 1) -> None:
    """Raise `UsageError` unless least <= loops <= most; below `least` an artifact failed its gates."""
    if loops < 1:
        raise UsageError(f"loops = {loops}: the recurrent block runs at least once; give {least} or more")
    if loops < least:
        raise UsageError(f"loops = {loops} is below the least of {least} at which this artifact passed; give it more")
    if most is not None and loops > most:
        raise UsageError(f"loops = {loops} is above the maximum of {most}; raise --max-loops or lower the loops")


def check_threshold(threshold: float) -> None:
    """Raise `UsageError` unless 0 <= threshold < 1: a share of the norm of the state, 0 is off."""
    if not 0 <= threshold < 1:
        raise UsageError(f"--exit-threshold {threshold}: give a share of the state's norm, 0 (off) to below 1")
