"""Pages of a memory-mapped weights file that the process holds, given back to the page cache.

give_back_pages(folder / "weights.data")

onnxruntime maps the file and reads single rows of its embedding tables. Linux then maps the neighbourhood of each row
that it finds in the page cache, 64 KiB at a time, so a prompt soon counts whole tables as resident. The pages are clean
copies of the file: without them the next look-up reads the page cache again.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

from parcae_mobile.heap import libc

WEIGHTS = "weights.data"  # beside the graphs, which all read it
MADV_DONTNEED = 4  # the value on every Linux


def give_back_pages(path: Path) -> int:
    """Drop this process's clean pages of a mapped file; returns bytes of mappings treated. Does nothing off Linux."""
    if sys.platform != "linux":
        return 0
    name, returned = os.path.realpath(path), 0
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        lines = [line for line in maps if line.endswith(f" {name}\n")]
    for line in lines:
        start, end = (int(address, 16) for address in line.split(" ", 1)[0].split("-"))
        if libc().madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), MADV_DONTNEED) == 0:
            returned += end - start
    return returned

