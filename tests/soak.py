"""Does anything grow? Generations, exports and opened hosts in one process, watched by memory, descriptors and files.

    python -m tests.soak --generations 1000 --exports 200 --hosts 10000

The embedded model. Each kind of work runs a tenth of its count first, so that what is loaded once is loaded; then its
resident memory, open descriptors and temporary files are compared with those at the end. Exit code 1 if one grew. A
shorter run says what the full size would come to: growth for each step, and that times the full count.
"""

from __future__ import annotations

import argparse
import gc
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from export.pipeline import run_export
from export.request import ExportRequest
from export.run.session import Session
from export.targets.registry import find_target, load_host
from parcae_mobile.heap import give_back_heap
from parcae_mobile.manifest import read_manifest
from parcae_mobile.sampling import Sampling

TARGETS = ("onnx", "executorch", "coreml")
MOST_GROWTH = 0.02  # of resident memory, from the warm process to the end
LEAST_GROWTH = 8_000_000  # bytes that an allocator may keep
TOKENS = 24
FULL = {"generations": 1000, "exports": 200, "hosts": 10_000}


@dataclass(frozen=True)
class Held:
    """What the process holds: resident bytes, open descriptors, files below the temporary folder."""

    memory: int
    descriptors: int
    files: int

    @classmethod
    def now(cls, temporary: Path) -> Held:
        gc.collect()
        give_back_heap()
        process = psutil.Process()
        files = sum(1 for path in temporary.rglob("*") if path.is_file())
        return cls(process.memory_info().rss, process.num_fds(), files)


def main() -> int:
    """Run what was asked for; prints a row for each kind of work and target."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, count in FULL.items():
        parser.add_argument(f"--{name}", type=int, default=count)
    parser.add_argument("--target", action="append", choices=TARGETS, help="default: all")
    asked = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="parcae-soak-"))
    tempfile.tempdir = str(work / "tmp")
    os.environ |= {"TMPDIR": tempfile.tempdir, "PARCAE_CACHE": str(work / "cache")}
    (work / "tmp").mkdir()
    head = f"{'what':12} {'target':11} {'count':>6} {'s':>6} {'MB before':>10} {'MB after':>9} {'files open':>11}"
    print(f"{head} {'temporary':>10} {'kB a step':>10} {'MB in full':>10}  outcome")
    grew = False
    try:
        for target in asked.target or TARGETS:
            folder = export(work / target, target)
            kinds = {
                "generations": (asked.generations, generating(folder)),
                "hosts": (asked.hosts, opening(folder)),
                "exports": (asked.exports, lambda target=target: export(work / target, target)),
            }
            for name, (count, step) in kinds.items():
                grew |= watch(name, target, count, step, work / "tmp") if count else False
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return int(grew)


def watch(name: str, target: str, count: int, step: Callable[[], object], temporary: Path) -> bool:
    """Warm up, run, compare; whether something grew."""
    for _ in range(max(2, count // 10)):
        step()
    before, started = Held.now(temporary), time.monotonic()
    for _ in range(count):
        step()
    seconds, after = time.monotonic() - started, Held.now(temporary)
    more = after.memory - before.memory
    grown = [
        *(["memory"] if more > max(LEAST_GROWTH, MOST_GROWTH * before.memory) else []),
        *(["descriptors"] if after.descriptors > before.descriptors else []),
        *(["files"] if after.files > before.files else []),
    ]
    figures = f"{before.memory / 1e6:>10.1f} {after.memory / 1e6:>9.1f}"
    opened = f"{before.descriptors} -> {after.descriptors}"
    left = f"{before.files} -> {after.files}"
    outcome = f"GREW: {', '.join(grown)}" if grown else "steady"
    step_growth = f"{more / count / 1e3:>10.1f} {more / count * FULL[name] / 1e6:>10.0f}"
    row = f"{name:12} {target:11} {count:>6} {seconds:>6.1f} {figures} {opened:>11} {left:>10} {step_growth}"
    print(f"{row}  {outcome}", flush=True)
    return bool(grown)


def export(out: Path, target: str) -> Path:
    """One export of the embedded model, replacing what was there."""
    (result,) = run_export(
        ExportRequest(target=[target], algorithm="rtn", max_loops=4, out=out, force=True, verify=False, threads=1)
    )
    return result.path


def generating(folder: Path) -> Callable[[], object]:
    """One more text from one opened artifact."""
    session = Session.open(folder, threads=1)

    def step() -> object:
        return "".join(session.complete("import os\n", Sampling(), 2, TOKENS))

    return step


def opening(folder: Path) -> Callable[[], object]:
    """One host opened, asked for one token, and let go."""
    manifest = read_manifest(folder)
    open_host = load_host(find_target(manifest.target))
    return lambda: open_host(folder, manifest, 1).run([1, 2, 3], 1, [2])


if __name__ == "__main__":
    sys.exit(main())
