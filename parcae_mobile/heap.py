"""Memory that was freed and that the C library keeps: given back to the system.

    give_back_heap()                                       # after something large is done with
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache


def give_back_heap() -> None:
    """Return freed memory that the C library keeps for later; a library that keeps none has no such function."""
    if sys.platform == "linux" and hasattr(libc(), "malloc_trim"):
        libc().malloc_trim(0)


@cache
def libc() -> ctypes.CDLL:
    """The C library of this process."""
    return ctypes.CDLL(None, use_errno=True)
