"""Peak memory of exports, measured: one process for each shape, target and recipe, with what was estimated beside it.

    python -m export.bench.resources --shape parcae-140m --out build/resources

Random weights, gates included unless --no-verify. Rows are printed as Markdown; docs/trust.md holds a run of it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from export.resources import estimate
from export.targets.registry import TARGETS
from parcae_mobile.config import RELEASED_SHAPES, released_config
from quantize.recipe import load_recipe

GATE_FAILED = 4  # exit code
BOUND = 14 * 2**30  # bytes that every released shape is meant to stay below
HEAD = ("shape", "target", "recipe", "peak GB", "estimated GB", "artifact MB", "seconds", "outcome")


def main() -> int:
    """Measure what was asked for; exit code 1 if a peak is above the bound or the estimate."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", action="append", choices=RELEASED_SHAPES)
    parser.add_argument("--target", action="append", choices=list(TARGETS))
    parser.add_argument("--quant", action="append")
    parser.add_argument("--no-verify", action="store_true")
    asked = parser.parse_args()
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}", flush=True)
    fine = True
    for shape in asked.shape or RELEASED_SHAPES:
        for target in asked.target or TARGETS:
            for quant in asked.quant or ("int4", "int8"):
                fine &= measure(shape, target, quant, not asked.no_verify)
    return int(not fine)


def measure(shape: str, target: str, quant: str, verify: bool) -> bool:
    """Run one export and print its row; whether it stayed below the bound and the estimate."""
    needs = estimate(released_config(shape), load_recipe(quant), {target})
    with tempfile.TemporaryDirectory() as out:
        line = [sys.executable, "-m", "export.cli.main", "--model", shape, "--random-weights", "--target", target]
        line += ["--quant", quant, "--out", out, "--no-cache", "--quiet", "--threads", "1"]
        line += [] if verify else ["--no-verify"]
        started = time.monotonic()
        process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        said = process.stderr.read().strip()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
        size = sum(path.stat().st_size for path in Path(out).rglob("*") if path.is_file())
    code = os.waitstatus_to_exitcode(status)
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)  # of the process or of its child
    within = code in (0, GATE_FAILED) and peak <= min(BOUND, needs.memory)  # random weights may fail a gate
    outcome = "ok" if within else f"exit code {code}: {said[-120:]}" if code else "ABOVE"
    outcome += ", and a gate failed" * (code == GATE_FAILED)
    cells = [shape, target, quant, f"{peak / 1e9:.2f}", f"{needs.memory / 1e9:.2f}", f"{size / 1e6:.1f}"]
    print(f"| {' | '.join([*cells, f'{seconds:.0f}', outcome])} |", flush=True)
    return within


if __name__ == "__main__":
    sys.exit(main())
