"""Peak memory, processor time and bytes of exports, measured: one process for each shape, target and recipe.

    python -m export.bench.resources --shape parcae-140m --no-verify      # measure, and keep the rows
    python -m export.bench.resources --show                               # the table of all that was kept

Random weights, rounded to nearest, one thread, gates included unless --no-verify. Rows are kept in --out as they come,
so that a table can be made in pieces; what is not there is listed as not run. A process that takes more than the
bound is stopped. docs/trust.md holds a table.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import psutil

from export.resources import Needs, estimate
from export.targets.registry import TARGETS
from parcae_mobile.atomic import write_text
from parcae_mobile.config import RELEASED_SHAPES, released_config
from quantize.recipe import load_recipe

RECIPES = ("int4", "int8")
GATE_FAILED = 4  # exit code
BOUND = 14 * 2**30  # bytes that every released shape is meant to stay below
LEFT_FREE = 10**9  # bytes of the machine's memory that are left to others
EVERY = 0.2  # seconds between two looks at a process
ROWS = "rows.json"
HEAD = (
    *("shape", "target", "recipe", "gates", "peak GB", "estimated", "processor s", "estimated", "elapsed s"),
    *("artifact MB", "outcome"),
)


@dataclass(frozen=True)
class Row:
    """One export: bytes and seconds as measured. `outcome` is "ok" or what went wrong."""

    shape: str
    target: str
    recipe: str
    gates: bool
    peak: int
    processor: float
    elapsed: float
    artifact: int
    outcome: str

    @property
    def key(self) -> tuple[str, str, str, bool]:
        return self.shape, self.target, self.recipe, self.gates

    @property
    def needs(self) -> Needs:
        """What is estimated of such an export today."""
        config, recipe = released_config(self.shape), load_recipe(self.recipe)
        return estimate(config, recipe, {self.target}, gates=self.gates, compared=False)

    @property
    def within(self) -> bool:
        """Whether it came to its end below the bound and the estimate; random weights may fail a gate."""
        return self.outcome.startswith("ok") and self.peak <= min(BOUND, self.needs.memory)

    def cells(self) -> list[str]:
        needs, gates = self.needs, "yes" if self.gates else "no"
        above = "" if self.within or not self.outcome.startswith("ok") else ", ABOVE the bound or the estimate"
        measured = [f"{self.peak / 1e9:.2f}", f"{needs.memory / 1e9:.2f}", f"{self.processor:.0f}"]
        measured += [f"{needs.seconds:.0f}", f"{self.elapsed:.0f}", f"{self.artifact / 1e6:.1f}"]
        return [self.shape, self.target, self.recipe, gates, *measured, self.outcome + above]


def main() -> int:
    """Measure what was asked for and print its rows; exit code 1 if one is above the bound or the estimate."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", action="append", choices=RELEASED_SHAPES)
    parser.add_argument("--target", action="append", choices=list(TARGETS))
    parser.add_argument("--quant", action="append", choices=RECIPES)
    parser.add_argument("--no-verify", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("build/resources"), help="where rows are kept")
    parser.add_argument("--show", action="store_true", help="print the whole table; measure nothing")
    asked = parser.parse_args()
    rows = read_rows(asked.out)
    if asked.show:
        print(table(rows))
        return int(not all(row.within for row in rows))
    print(line(HEAD), line(["---"] * len(HEAD)), sep="\n", flush=True)
    fine = True
    for shape, target, recipe in product(
        asked.shape or RELEASED_SHAPES, asked.target or TARGETS, asked.quant or RECIPES
    ):
        row = measure(shape, target, recipe, not asked.no_verify)
        print(line(row.cells()), flush=True)
        rows = [other for other in read_rows(asked.out) if other.key != row.key] + [row]
        asked.out.mkdir(parents=True, exist_ok=True)
        write_text(asked.out / ROWS, json.dumps([asdict(one) for one in rows], indent=1) + "\n")
        fine &= row.within
    return int(not fine)


def measure(shape: str, target: str, recipe: str, gates: bool) -> Row:
    """Run one export in a process of its own, and stop it where it takes more than the bound or what is free."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "export.cli.main", "--model", shape, "--random-weights", "--target", target]
        command += ["--quant", recipe, "--out", out, "--no-cache", "--no-resource-check", "--quiet", "--threads", "1"]
        command += [] if gates else ["--no-verify"]
        started = time.monotonic()
        with tempfile.TemporaryFile("w+") as said:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said, text=True)
            stopped, status, usage = "", 0, None
            while usage is None:
                waited, status, used = os.wait4(process.pid, 0 if stopped else os.WNOHANG)
                if waited:
                    usage = used
                elif too_large(process.pid):
                    stopped = f"stopped at {memory(process.pid) / 1e9:.1f} GB"
                    stop(process.pid)
                else:
                    time.sleep(EVERY)
            said.seek(0)
            words = said.read().strip()[-160:]
        process.returncode = code = os.waitstatus_to_exitcode(status)
        size = sum(path.stat().st_size for path in Path(out).rglob("*") if path.is_file())
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)  # of the process or of its child
    outcome = {0: "ok", GATE_FAILED: f"ok, but a gate failed on random weights ({words})"}.get(
        code, f"exit code {code}: {words}"
    )
    spent = usage.ru_utime + usage.ru_stime
    elapsed = time.monotonic() - started
    return Row(shape, target, recipe, gates, peak, spent, elapsed, size, stopped or outcome)


def memory(pid: int) -> int:
    """Resident bytes of a process and its children."""
    total = 0
    for process in family(pid):
        try:
            total += process.memory_info().rss
        except psutil.Error:
            continue  # it has ended
    return total


def too_large(pid: int) -> bool:
    """Whether a process holds more than the bound, or leaves the machine too little."""
    return memory(pid) > BOUND or psutil.virtual_memory().available < LEFT_FREE


def stop(pid: int) -> None:
    """End a process and its children, which could outlive it."""
    for process in family(pid):
        try:
            process.kill()
        except psutil.Error:
            continue


def family(pid: int) -> list[psutil.Process]:
    """A process and its children; the children come first."""
    try:
        process = psutil.Process(pid)
        return [*process.children(recursive=True), process]
    except psutil.Error:
        return []


def read_rows(folder: Path) -> list[Row]:
    """Rows that were kept; none where there is no file."""
    path = folder / ROWS
    return [Row(**values) for values in json.loads(path.read_text(encoding="utf-8"))] if path.exists() else []


def table(rows: list[Row]) -> str:
    """Markdown: every shape, target and recipe, those that were not run too."""
    lines = [line(HEAD), line(["---"] * len(HEAD))]
    for combination in product(RELEASED_SHAPES, TARGETS, RECIPES):
        matches = [row for row in rows if row.key[:3] == combination]
        lines += [line(row.cells()) for row in sorted(matches, key=lambda row: row.gates)]
        if not matches:
            lines.append(line([*combination, *["-"] * (len(HEAD) - 4), "not run"]))
    return "\n".join(lines)


def line(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
