"""Memory of one artifact in a process of its own: `python -m export.bench_memory FOLDER LOOPS PROMPT TOKENS THREADS`.

Prints one JSON object in bytes: resident memory after the libraries, after loading, after a prompt and some tokens, and
the cache's share of it. It is its own program because memory that another artifact touched would be counted too.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import psutil

from parcae_mobile.manifest import read_manifest

from .generation import prefill
from .target import find_target, load_host


def measure(folder: Path, loops: int, prompt: int, tokens: int, threads: int) -> dict[str, float]:
    """Load the artifact, give it `prompt` seeded ids and then `tokens` more, one at a time."""
    process = psutil.Process()
    manifest = read_manifest(folder)
    module = load_host(find_target(manifest.target))
    libraries = process.memory_info().rss
    started = time.perf_counter()
    host = module(folder, manifest, threads)
    load_seconds = time.perf_counter() - started
    loaded = process.memory_info().rss
    ids = np.random.default_rng(0).integers(0, manifest.geometry.vocab_size, prompt + tokens).tolist()
    prefill(host, ids[:prompt], loops)
    for token in ids[prompt:]:
        host.run([token], loops, positions=[0])
    return {
        "libraries": libraries,
        "loaded": loaded,
        "end": process.memory_info().rss,
        "cache": host.cache_bytes,
        "load_seconds": load_seconds,
    }


if __name__ == "__main__":
    numbers = [int(value) for value in sys.argv[2:6]]
    print(json.dumps(measure(Path(sys.argv[1]), *numbers)))
