"""The readers under atheris, the coverage-guided fuzzer: minutes for each, from good files and from what it found before.

    python -m tests.attacks.fuzz --seconds 60 --corpus build/fuzz mil manifest config safetensors pickle

Each reader runs in a process of its own, because the fuzzer ends its process. A file that a reader does not refuse in
one line of ours is kept below the corpus' folder, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

READERS = ("mil", "manifest", "config", "safetensors", "pickle")
MOST_SECONDS, MOST_MEGABYTES, LONGEST = 10, 3000, 20_000  # of one file: time, process memory, bytes


def main() -> int:
    """Fuzz the named readers, one after the other; prints a row for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(READERS))
    parser.add_argument("--seconds", type=int, default=60, help="for each reader")
    parser.add_argument("--corpus", type=Path, default=Path("build/fuzz"))
    asked = parser.parse_args()
    print(f"{'reader':12} {'files tried':>12} {'edges':>7} {'kept':>6}  found")
    failed = False
    for name in asked.names:
        folder = asked.corpus / name
        folder.mkdir(parents=True, exist_ok=True)
        line = [sys.executable, "-m", "tests.attacks.fuzz_one", name, str(folder), f"-max_total_time={asked.seconds}"]
        line += [f"-timeout={MOST_SECONDS}", f"-rss_limit_mb={MOST_MEGABYTES}", f"-max_len={LONGEST}", "-seed=1"]
        done = subprocess.run(
            [*line, f"-artifact_prefix={asked.corpus}/{name}-"], capture_output=True, text=True, errors="replace"
        )
        (asked.corpus / f"{name}.log").write_text(done.stdout + done.stderr, encoding="utf-8")
        tried = re.findall(r"#(\d+)\s", done.stderr)
        edges = re.findall(r"cov: (\d+)", done.stderr)
        faults = sorted(path.name for path in asked.corpus.glob(f"{name}-*") if path.is_file())
        found = ", ".join(faults) or ("nothing" if done.returncode == 0 else f"see {asked.corpus}/{name}.log")
        failed |= done.returncode != 0
        last = [values[-1] if values else "0" for values in (tried, edges)]
        print(f"{name:12} {last[0]:>12} {last[1]:>7} {sum(1 for _ in folder.iterdir()):>6}  {found}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
