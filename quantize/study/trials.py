"""Learned rounding tried every way: parts, loops, rates, steps, text, draws, and the front of recipes after learning.

    python -m quantize.study.trials --only parts           # runs what is not in build/trials.json, prints the table
    python -m quantize.study.trials --jobs 12 --minutes 9  # all of them, in processes: for a GPU beside many cores
    python -m quantize.study.trials --show                 # what is there, and what was not run

Sixty-four trials of four to twenty processor minutes each on one core; a GPU is used where there is one. KL and
top-1 are at T=8 against the fp32 model: on calibration text that was trained on, on the windows by which recipes are
chosen, and on windows that no choice looked at.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from parcae_mobile.config import released_config
from parcae_mobile.errors import ParcaeError, UsageError
from parcae_mobile.golden import weights_sha256
from parcae_mobile.model import Parcae
from parcae_mobile.text import EMBEDDED_MODEL
from parcae_mobile.tokenizer import TextTokenizer

from ..cache import Cache
from ..cache_key import cache_key
from ..compression import HeldOut
from ..learned import hold_back, learn
from ..planning import plan_table, total_bytes
from ..recipe import load_recipe
from .bench import LENGTH, LOOPS, Bench
from .front import FrontPoint, multiplied, on_front
from .learned import starts
from .markdown import table
from .trial_list import HEADS, Trial, trials

KEPT = Path("build/trials.json")
STARTS = Path("build/trial-starts")  # what trials of one recipe and text begin with
TRAINED_WINDOWS = 32  # of calibration text, for the distance on what was trained on


@dataclass(frozen=True)
class Figures:
    """What a trial gave. KL in nats: `start` before learning and `kl` after it on windows that no choice looked at."""

    start: float
    trained: float
    chosen: float
    kl: float
    sem: float
    top1: float
    growth: float  # KL at T=16 over KL at T=4
    seconds: float
    device: str


def run(trial: Trial) -> Figures:
    """One trial, in this process."""
    bench, tokenizer = Bench.open(EMBEDDED_MODEL), TextTokenizer.load(EMBEDDED_MODEL)
    windows = bench.text.windows(len(bench.text.ids) // LENGTH, LENGTH - 1)
    if trial.draw is not None:
        generator = torch.Generator().manual_seed(trial.draw)
        windows = windows[torch.randperm(len(windows), generator=generator)[: len(windows) * 2 // 3].sort().values]
    key = cache_key(weights_sha256(bench.model), trial.recipe, "moved", windows, 0, {})
    moved, _ = Cache(STARTS).get(key, bench.model, trial.recipe, lambda: starts(bench, trial.recipe, windows)[1])
    reported = HeldOut(bench.model, bench.reported, (4, LOOPS, 16))
    before = reported.measure(moved.model)[0][LOOPS]
    learning = replace(trial.learning, first_token=None if tokenizer is None else tokenizer.bos)
    begun = time.monotonic()
    model = learn(bench.model, moved, windows, learning, trial.seed).model
    seconds = time.monotonic() - begun
    distances = reported.measure(model)[0]
    d, trained = distances[LOOPS], hold_back(windows)[0]
    spread = trained[torch.linspace(0, len(trained) - 1, TRAINED_WINDOWS).long()]
    return Figures(
        start=before.kl_mean,
        trained=HeldOut(bench.model, spread, (LOOPS,)).measure(model)[0][LOOPS].kl_mean,
        chosen=bench.distance(model).kl_mean,
        kl=d.kl_mean,
        sem=d.kl_sem,
        top1=d.top1,
        growth=distances[16].kl_mean / distances[4].kl_mean,
        seconds=seconds,
        device=torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    )


def run_all(wanted: Sequence[Trial], jobs: int, minutes: float | None) -> bool:
    """Every trial in a process of its own, `jobs` at a time; none begins, and none goes on, after so many minutes.

    Returns whether each one that ended gave figures.
    """
    known, ends, sound = load(), None if minutes is None else time.monotonic() + 60 * minutes, True

    def one(trial: Trial) -> tuple[Trial, str]:
        left = None if ends is None else ends - time.monotonic()
        if left is not None and left <= 0:
            return trial, ""
        command = [sys.executable, "-m", "quantize.study.trials", "--trial", trial.name]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=left)
        except subprocess.TimeoutExpired:
            return trial, ""
        return trial, done.stdout if done.returncode == 0 else f"! {done.stderr.strip().splitlines()[-1:]}"

    todo = {trial.settings: trial for trial in wanted if trial.name not in known}
    with ThreadPoolExecutor(jobs) as pool:
        runs = [pool.submit(one, trial) for trial in todo.values()]
        for trial, said in (done.result() for done in as_completed(runs)):
            if said.startswith("{"):
                known[trial.name] = Figures(**json.loads(said))
                KEPT.parent.mkdir(parents=True, exist_ok=True)
                KEPT.write_text(json.dumps({name: asdict(each) for name, each in known.items()}, indent=1), "utf-8")
            sound &= not said.startswith("!")
            print(f"{trial.name}: {said.strip() or 'not finished'}", file=sys.stderr, flush=True)
    return sound


def load() -> dict[str, Figures]:
    """What was measured, by the trial's name. Two trials of equal settings in two tables are measured once."""
    if not KEPT.exists():
        return {}
    known = {name: Figures(**values) for name, values in json.loads(KEPT.read_text(encoding="utf-8")).items()}
    measured = {trial.settings: known[trial.name] for trial in trials() if trial.name in known}
    return {trial.name: measured[trial.settings] for trial in trials() if trial.settings in measured}


def tables(names: Sequence[str]) -> str:
    """Markdown of the named tables, and a line with what was not run."""
    known, parts = load(), []
    for name in names:
        wanted = [trial for trial in trials() if trial.table == name]
        there = [(trial, known[trial.name]) for trial in wanted if trial.name in known]
        parts.append(f"### {name}\n\n" + (front_table(there) if name == "front" else plain_table(name, there)))
        if missing := [trial.name for trial in wanted if trial.name not in known]:
            parts.append(f"Not run: {', '.join(missing)}.")
    return "\n\n".join(parts)


def plain_table(name: str, there: Sequence[tuple[Trial, Figures]]) -> str:
    """Each trial's distances."""
    heads = ("KL before", "on trained text", "KL", "s.e.", "top-1", "KL T=16 / T=4", "seconds")
    rows = []
    for trial, f in there:
        kls = [f"{f.start:.5f}", f"{f.trained:.5f}", f"{f.kl:.5f}", f"{f.sem:.5f}"]
        rows.append([*trial.labels, *kls, f"{f.top1:.2%}", f"{f.growth:.3f}", f"{f.seconds:.0f}"])
    return table([*HEADS[name], *heads], rows)


def front_table(there: Sequence[tuple[Trial, Figures]]) -> str:
    """Variants by size at the 140M shape; KL on other text for those that none beats by the windows of choice."""
    with torch.device("meta"):
        large = Parcae(released_config("parcae-140m"))
    base, points = multiplied(plan_table(load_recipe("int4"), large)), []
    for trial, f in there:
        plan = plan_table(trial.recipe, large)
        tail = (f"{f.chosen:.5f}", f"{f.kl:.5f}", f"{f.sem:.5f}", f"{f.top1:.2%}")
        size, taken = total_bytes(plan) / 1e6, multiplied(plan) / base
        points.append(FrontPoint(size, taken, f.chosen, trial.recipe, (*trial.labels, *tail)))
    rows = []
    for point in sorted(points, key=lambda point: (point.size, point.kl)):
        *labels, chosen, kl, sem, top1 = point.cells
        shown = [kl, sem, top1] if on_front(point, points) else ["", "", ""]
        rows.append([*labels, f"{point.size:.1f}", f"{point.time:.2f}", chosen, *shown])
    return table([*HEADS["front"], "MB", "time", "KL", "KL, other text", "s.e.", "top-1, other text"], rows)


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m quantize.study.trials", description="Try learned rounding.")
    parser.add_argument("--only", default=",".join(HEADS), help=f"comma-separated: {', '.join(HEADS)}")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--minutes", type=float, help="give up what is not done by then")
    parser.add_argument("--show", action="store_true", help="run nothing")
    parser.add_argument("--trial", help="run one by its name and print its figures as JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        if options.trial:
            by_name = {trial.name: trial for trial in trials()}
            if options.trial not in by_name:
                raise UsageError(f"--trial {options.trial}: there is none; --show lists them")
            print(json.dumps(asdict(run(by_name[options.trial]))))
            return 0
        names = options.only.split(",")
        if unknown := [name for name in names if name not in HEADS]:
            raise UsageError(f"--only {unknown[0]}: there are {', '.join(HEADS)}")
        sound = options.show or run_all(
            [trial for trial in trials() if trial.table in names], options.jobs, options.minutes
        )
        print(tables(names))
    except ParcaeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
