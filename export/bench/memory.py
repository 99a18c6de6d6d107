"""Memory of one model in a process of its own: `python -m export.bench.memory KIND FOLDER LOOPS PROMPT TOKENS THREADS`.

Prints one JSON object in bytes: resident memory after the libraries, after loading, after a prompt, after some more
tokens, and the most there ever was. It is its own program because memory that another model touched would be counted
too, and it imports no more than the model's runtime does.
"""

from __future__ import annotations

import json
import re
import resource
import sys
import time
from pathlib import Path

from export.bench.runners import opener

VOCABULARY = 256  # ids below the vocabulary of any model that is measured


def resident() -> int:
    """Resident bytes of this process."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except FileNotFoundError:  # not Linux; there the library would be counted too
        import psutil

        return int(psutil.Process().memory_info().rss)
    return pages * resource.getpagesize()


def peak() -> int:
    """The most resident bytes that this program ever had."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except FileNotFoundError:  # macOS, which counts in bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Not `ru_maxrss` on Linux: a program that was started by a larger one inherits the other's.
    return int(re.findall(r"VmHWM:\s*(\d+) kB", status)[0]) * 1024


def measure(kind: str, folder: Path, loops: int, prompt: int, tokens: int, threads: int) -> dict[str, float]:
    """Load the model, give it `prompt` made-up ids and then `tokens` more, one at a time."""
    ids = [place * 7919 % VOCABULARY for place in range(prompt + tokens)]  # numpy's generator would cost 5 MB
    start = opener(kind, folder, loops, threads)
    measured: dict[str, float] = {"libraries": resident()}
    started = time.perf_counter()
    runner = start()
    measured["load_seconds"] = time.perf_counter() - started
    measured["loaded"] = resident()
    runner.prefill(ids[:prompt])
    measured["prompted"] = resident()
    for token in ids[prompt:]:
        runner.step(token)
    measured["end"] = resident()
    measured["peak"] = peak()
    return measured


if __name__ == "__main__":
    numbers = [int(value) for value in sys.argv[3:7]]
    print(json.dumps(measure(sys.argv[1], Path(sys.argv[2]), *numbers)))
