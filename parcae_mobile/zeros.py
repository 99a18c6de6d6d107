"""Zeros that take memory where they are written to.

    cache = zeros_on_demand((16, 12, 2048, 64), torch.float16)
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence

import torch
from torch import Tensor


def zeros_on_demand(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Zeros of which only those pages take memory that are written to.

    numpy asks for pages of 2 MB, and a cache that holds a few tokens has something in each of them. Raises
    `MemoryError` where there are not even addresses for so much.
    """
    count = math.prod(shape)
    if not count or not hasattr(mmap, "MAP_PRIVATE"):
        return torch.zeros(tuple(shape), dtype=dtype)
    try:
        pages = mmap.mmap(-1, count * dtype.itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError) as error:
        raise MemoryError(f"{count} zeros: {error}") from None
    return torch.frombuffer(pages, dtype=dtype).reshape(tuple(shape))
