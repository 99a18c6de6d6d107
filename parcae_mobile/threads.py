"""How many threads compute where `--threads` does not say.

A product of a narrow model takes microseconds: handing parts of it to other threads costs more than they save, and
beside other busy programs every product waits for the slowest of them. Apart from torch, as `loops.py` is.
"""

from __future__ import annotations

NARROW = 512  # a state of fewer channels: one thread; the released models have 768 and more


def default_threads(width: int) -> int:
    """Threads for a model whose recurrent state has `width` channels: 1, or 0 for as many as the library takes."""
    return 1 if width < NARROW else 0
