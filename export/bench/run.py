"""`parcae-export bench`: bytes, memory and speed of artifacts and of what a user would run instead, side by side.

Speed is measured in one process, round robin over all variants: the median of single steps at a fixed context, of
which the first of each turn is not counted. Ratios of one run are what counts, since two runs on one machine differ by
tens of percent. Memory is measured in a process for each row. Random weights serve: none of these figures depend on
training.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path

from export.bench.costs.traffic import cache_bytes, cache_touched, read_bandwidth, total_of, touched_weights, weights_of
from export.bench.request import BenchRequest
from export.bench.rows import Memory, Row, Run, Speed, Table, Variant
from export.bench.runners import Runner, opener
from export.bench.speeds import variant_of
from export.job import Progress, silent
from export.targets.host import CacheGeometry
from export.targets.registry import find_target
from parcae_mobile.errors import ParcaeError, UsageError
from parcae_mobile.manifest import read_manifest
from parcae_mobile.text import seeded_ids

STEPS_A_TURN = 3
LONG_PROMPT, LONG_PROMPTS = 512, 3  # longer ones take seconds, and are given so often at most
REST = 0.08  # seconds after a turn of several threads, which go on spinning for a while
TOKENS = 32  # tokens after the prompt, for memory
TOOLS = ("torch", "onnxruntime", "onnxruntime-genai", "llama-cpp-python", "executorch", "numpy")


@dataclass(frozen=True)
class Subject:
    """A folder to be measured at one loop count. `limit` is the longest text that it takes, in tokens.

    `only` names contexts where it is meant for no others.
    """

    variant: Variant
    folder: Path
    geometry: CacheGeometry = field(compare=False)
    limit: int
    runs_here: bool = True
    only: tuple[int, ...] | None = None
    threads: int = 1

    def takes(self, context: int) -> bool:
        """Whether it is measured at a context."""
        return context <= self.limit and (self.only is None or context in self.only)

    def past(self, context: int) -> int:
        """Tokens before the step that is timed: the context, or what leaves room for one more."""
        return min(context, self.limit - 1)


def subjects_of(folder: Path, loops: Sequence[int]) -> list[Subject]:
    """An artifact at each of the loop counts that it takes; one without a loop at T = 1, whatever is asked."""
    manifest = read_manifest(folder)
    target = find_target(manifest.target)
    geometry = CacheGeometry.from_manifest(manifest)
    counts = loops if manifest.loops == "dynamic" else sorted({int(manifest.loops), *map(int, manifest.graphs)})
    if manifest.max_loops == manifest.trained_loops == 1:
        counts = loops = [1]
    return [
        Subject(
            variant_of(manifest, count),
            folder,
            geometry,
            manifest.kv.context,
            target.host_runtime != "mil-interpreter",  # which is for checking: its speed says nothing about a phone
        )
        for count in counts
        if count in loops and (manifest.loops != "dynamic" or count <= manifest.max_loops)
    ]


def run_bench(subjects: Sequence[Subject], request: BenchRequest, table: Table, progress: Progress = silent) -> None:
    """Measure and merge into `table`. Raises `UsageError` if nothing fits, `ParcaeError` if a process fails."""
    counts = sorted(set(request.threads))
    if len(counts) > 1 and any(subject.variant.target == "executorch" for subject in subjects):
        raise UsageError("ExecuTorch has one pool of threads for a process; give --threads once")
    each = [replace(subject, threads=count) for subject in subjects for count in counts]
    pairs = [(s, c) for s in each for c in request.contexts if s.takes(c)]
    if not pairs:
        raise UsageError("no artifact takes one of these loop counts and contexts; lower one of them")
    rows = {(s, c): size_row(s, c) for s, c in pairs}
    if "memory" in request.measure:
        for place, (subject, context) in enumerate(pairs):
            if subject.runs_here:
                progress(f"memory: {subject.variant.label}, T={subject.variant.loops}", place + 1, len(pairs))
                measured = measure_memory(subject, context)
                rows[subject, context] = rows[subject, context].model_copy(update={"memory": measured})
    if "speed" in request.measure:
        number = table.add_run(describe_run(request.rounds))
        here = [pair for pair in pairs if pair[0].runs_here]
        for pair, speed in measure_speed(here, request, number, progress).items():
            rows[pair] = rows[pair].model_copy(update={"speeds": (speed,)})
    table.merge(rows.values())


def size_row(subject: Subject, context: int) -> Row:
    """The bytes of one row; nothing is run."""
    variant, geometry = subject.variant, subject.geometry
    weights = touched_weights(variant.kind, subject.folder, variant.loops)
    touched = cache_touched(geometry, variant.loops, context, variant.kv_dtype)
    return Row(
        variant=variant,
        context=context,
        threads=subject.threads,
        weight_bytes=weights_of(subject.folder),
        model_bytes=total_of(subject.folder),
        cache_bytes=cache_bytes(geometry, variant.loops, context, variant.kv_dtype),
        touched_bytes=None if weights is None else weights + touched,
    )


def measure_memory(subject: Subject, context: int) -> Memory:
    """Run `export.bench.memory` for one row. Raises `ParcaeError` with its last line if it fails."""
    variant, prompt = subject.variant, subject.past(context)
    tokens = min(TOKENS, subject.limit - prompt)
    command = [sys.executable, "-m", "export.bench.memory", variant.kind, str(subject.folder)]
    command += map(str, (variant.loops, prompt, tokens, subject.threads))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ParcaeError(f"bench of {subject.folder} failed: {last}")
    return Memory(tokens=tokens, **json.loads(done.stdout.splitlines()[-1]))


def measure_speed(
    pairs: Sequence[tuple[Subject, int]], request: BenchRequest, run: int, progress: Progress
) -> dict[tuple[Subject, int], Speed]:
    """First-token and decode times; all subjects are loaded, and alternate."""
    runners = {}
    for subject in dict.fromkeys(subject for subject, _ in pairs):
        progress(f"loading {subject.variant.label}, T={subject.variant.loops}")
        variant = subject.variant
        runners[subject] = opener(variant.kind, subject.folder, variant.loops, subject.threads)()
    results = {}
    for context in request.contexts:
        present = [subject for subject, at in pairs if at == context]
        progress(f"first token, context {context}")
        prompts = _prompts(present, runners, context, request.prompts)
        progress(f"decode, context {context}")
        steps: dict[Subject, list[float]] = {subject: [] for subject in present}
        for _ in range(request.rounds):
            for subject in present:
                steps[subject] += _turn(runners[subject])
                _rest(subject)
        for subject, times in steps.items():
            low, middle, high = statistics.quantiles(times, n=4)
            results[subject, context] = Speed(
                run=run,
                first_token_ms=_round(statistics.median(prompts[subject])),
                decode_ms=_round(middle),
                decode_quartiles_ms=(_round(low), _round(high)),
                steps=len(times),
            )
    return results


def _prompts(
    subjects: Sequence[Subject], runners: dict[Subject, Runner], context: int, count: int
) -> dict[Subject, list[float]]:
    """Milliseconds from a prompt to its logits, in turns; leaves every cache filled for the steps that follow."""
    times: dict[Subject, list[float]] = {subject: [] for subject in subjects}
    for _ in range(count if context <= LONG_PROMPT else min(count, LONG_PROMPTS)):
        for subject in subjects:
            ids = seeded_ids(min(256, subject.geometry.vocab_size), subject.past(context)).ids.tolist()
            started = time.perf_counter()
            runners[subject].prefill(ids)
            times[subject].append((time.perf_counter() - started) * 1e3)
            _rest(subject)
    return times


def _rest(subject: Subject) -> None:
    """Leave the processor to the next model, if this one's threads may still spin."""
    if subject.threads > 1:
        time.sleep(REST)


def _turn(runner: Runner) -> list[float]:
    """Milliseconds of single steps at one context; the first brings the model back into the caches, uncounted."""
    times = []
    for step in range(STEPS_A_TURN + 1):
        started = time.perf_counter()
        runner.step(step + 1)
        times.append((time.perf_counter() - started) * 1e3)
        runner.undo()
    return times[1:]


def _round(milliseconds: float) -> float:
    return round(milliseconds, 3)


def describe_run(rounds: int) -> Run:
    """This machine, as far as times depend on it."""
    installed = {}
    for name in TOOLS:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return Run(
        processor=_processor(),
        cores=os.cpu_count() or 1,
        bandwidth=round(read_bandwidth()),
        rounds=rounds,
        tools=installed,
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
