"""`parcae-export bench`: size, load time, memory and speed of artifacts, side by side in one run.

Speed is measured in one process, round robin over the variants, medians of single steps at a fixed context; ratios of
one run are what counts, since two runs on one machine differ by tens of percent. Memory is measured in a process for
each artifact and loop count. Random weights serve: none of these figures depend on training.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from parcae_mobile.errors import ParcaeError, UsageError
from parcae_mobile.manifest import Manifest, read_manifest
from parcae_mobile.text import seeded_ids

from .generation import prefill
from .hosts.base import Host
from .target import find_target, load_host

ROUNDS = 15
STEPS_A_TURN = 3


@dataclass(frozen=True)
class Measurement:
    """One artifact at one loop count and context. Milliseconds and bytes."""

    artifact: str
    loop_form: str
    quant: str
    loops: int
    context: int
    decode_ms: float
    prefill_ms: float
    file_bytes: int
    cache_bytes: int


@dataclass(frozen=True)
class Memory:
    """Resident bytes of a process that ran one artifact at one loop count; `net` is `end` without the cache."""

    artifact: str
    loop_form: str
    loops: int
    prompt: int
    tokens: int
    libraries: int
    loaded: int
    end: int
    cache: int
    load_seconds: float

    @property
    def net(self) -> int:
        return self.end - self.cache


def measure_memory(folder: Path, loops: int, prompt: int = 128, tokens: int = 32, threads: int = 1) -> Memory:
    """Run `export.bench_memory` for one artifact. Raises `ParcaeError` with its last line if it fails."""
    command = [sys.executable, "-m", "export.bench_memory", str(folder), *map(str, (loops, prompt, tokens, threads))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ParcaeError(f"bench of {folder} failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    measured = json.loads(done.stdout)
    form = read_manifest(folder).loop_form
    return Memory(artifact=folder.name, loop_form=form, loops=loops, prompt=prompt, tokens=tokens, **measured)


def measure_speed(
    folders: Sequence[Path],
    loops: Sequence[int],
    contexts: Sequence[int],
    threads: int = 1,
    rounds: int = ROUNDS,
    progress: Callable[[str], None] = lambda line: None,
) -> list[Measurement]:
    """Decode and prefill times of every artifact at each loop count and context; variants alternate within a round."""
    opened = [_open(folder, threads) for folder in folders]
    results = []
    for context in contexts:
        for count in loops:
            variants = [(f, m, h) for f, m, h in opened if count <= m.max_loops and context < h.geometry.context]
            if not variants:
                raise UsageError(f"no artifact takes {count} loops at context {context}; lower one of them")
            progress(f"context {context}, T={count}")
            first = [_prefill_ms(host, context, count) for _, _, host in variants]
            times: list[list[float]] = [[] for _ in variants]
            for _ in range(rounds):
                for (_, _, host), collected in zip(variants, times, strict=True):
                    collected.extend(_decode_ms(host, context, count))
            for (folder, manifest, host), collected, prefilled in zip(variants, times, first, strict=True):
                results.append(
                    Measurement(
                        artifact=folder.name,
                        loop_form=manifest.loop_form,
                        quant=manifest.quantization.recipe,
                        loops=count,
                        context=context,
                        decode_ms=statistics.median(collected),
                        prefill_ms=prefilled,
                        file_bytes=sum(entry.bytes for entry in manifest.files.values()),
                        cache_bytes=host.geometry.bytes_per_token(count) * context,
                    )
                )
    return results


def to_json(speed: Sequence[Measurement], memory: Sequence[Memory]) -> dict[str, Any]:
    """Both tables as one JSON object."""
    return {"speed": [asdict(row) for row in speed], "memory": [asdict(row) | {"net": row.net} for row in memory]}


def _open(folder: Path, threads: int) -> tuple[Path, Manifest, Host]:
    manifest = read_manifest(folder)
    return folder, manifest, load_host(find_target(manifest.target))(folder, manifest, threads)


def _prefill_ms(host: Host, context: int, loops: int) -> float:
    ids = seeded_ids(host.geometry.vocab_size, context).ids.tolist()
    host.reset()
    started = time.perf_counter()
    prefill(host, ids, loops)
    return (time.perf_counter() - started) * 1e3


def _decode_ms(host: Host, context: int, loops: int) -> Iterator[float]:
    """Times of single steps at a fixed context; the first step of a turn warms up and is not counted."""
    for step in range(STEPS_A_TURN + 1):
        host.length = context
        started = time.perf_counter()
        host.run([step + 1], loops, positions=[0])
        if step:
            yield (time.perf_counter() - started) * 1e3
