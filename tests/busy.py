"""How long an export takes on a quiet machine and beside two busy processes on two cores.

    python -m tests.busy                      # minutes; nothing else should run on the machine

The embedded model, each command as a user types it, in a process of its own that sees two cores. The first run of a
command computes everything, the second has what the first one kept (quantized tensors, and answers that no target has
a part in), and so has the one beside busy processes. Exit code 1 if a quiet run with what was kept takes longer than
15 s, or a busy one 2.5 times that.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

COMMANDS = ([], ["--target", "coreml", "--loops", "4"])
CORES = BUSY = 2
MOST_SECONDS, MOST_RATIO = 15.0, 2.5
SPIN = "while True: pass"


def main() -> int:
    """Measure each command; prints a row for each run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", type=int, action="append", choices=range(len(COMMANDS)), help="one of the commands")
    asked = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):  # macOS has no such call, and takes all cores
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    print(f"{'command':40} {'first':>7} {'again':>7} {'busy':>7} {'busy/again':>10}  outcome (elapsed s)")
    fine = True
    for number in asked.only or range(len(COMMANDS)):
        fine &= measure(COMMANDS[number])
    return int(not fine)


def measure(options: list[str]) -> bool:
    """One command three times, and its row; whether it stayed within both bounds."""
    with tempfile.TemporaryDirectory(prefix="parcae-busy-") as work:
        first, again = seconds(options, Path(work)), seconds(options, Path(work))
        with busy():
            beside = seconds(options, Path(work))
    missed = [
        *([f"{again:.0f} s is above {MOST_SECONDS:.0f}"] if again > MOST_SECONDS else []),
        *([f"{beside / again:.1f} is above {MOST_RATIO}"] if beside > MOST_RATIO * again else []),
    ]
    figures = f"{first:>7.1f} {again:>7.1f} {beside:>7.1f} {beside / again:>10.2f}"
    print(f"{' '.join(['parcae-export', *options]):40} {figures}  {'; '.join(missed) or 'ok'}", flush=True)
    return not missed


def seconds(options: list[str], work: Path) -> float:
    """Elapsed seconds of one export. Raises `CalledProcessError` if it fails."""
    line = [sys.executable, "-m", "export.cli.main", *options, "--out", str(work / "dist"), "--force", "--quiet"]
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    subprocess.run(line, env={**os.environ, "PARCAE_CACHE": str(work / "cache")}, check=True)
    elapsed, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - spent.ru_utime - spent.ru_stime
    print(f"  {elapsed:.1f} s elapsed, {used:.1f} s of the processor", file=sys.stderr, flush=True)
    return elapsed


@contextmanager
def busy() -> Iterator[None]:
    """Processes that compute all the time, as many as there are cores."""
    processes = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(BUSY)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


if __name__ == "__main__":
    sys.exit(main())
