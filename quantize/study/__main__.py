"""Every table of docs/quantization.md, measured again.

    python -m quantize.study                               # a few minutes on one core; rewrites tables and plot
    python -m quantize.study --only recipes,loops          # some of them
    python -m quantize.study --model FOLDER                # another model: printed, nothing is written
    python -m quantize.study --shape parcae-140m --algorithm gptq    # time and memory, random weights; printed
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch

from parcae_mobile.config import RELEASED_SHAPES
from parcae_mobile.errors import ParcaeError, UsageError
from parcae_mobile.text import EMBEDDED_MODEL

from .bench import Bench
from .markdown import replace_table
from .measurements import MEASUREMENTS, recipes
from .shapes import shape_bytes, shape_costs

DOCUMENT = Path("docs/quantization.md")
PLOT = DOCUMENT.with_suffix(".svg")


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m quantize.study", description="Measure the docs' tables again.")
    parser.add_argument("--only", help=f"comma-separated: {', '.join([*MEASUREMENTS, 'shapes'])}")
    parser.add_argument("--model", type=Path, help="another model's folder; its tables are printed only")
    parser.add_argument("--shape", choices=RELEASED_SHAPES, help="time and memory of quantizing random weights")
    parser.add_argument("--algorithm", choices=("rtn", "gptq"), default="rtn", help="of --shape")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    try:
        if options.shape:
            print(shape_costs(options.shape, options.algorithm, _report))
        else:
            _tables(options.only, options.model)
    except ParcaeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _tables(only: str | None, folder: Path | None) -> None:
    names = only.split(",") if only else [*MEASUREMENTS, "shapes"]
    if unknown := [name for name in names if name not in MEASUREMENTS and name != "shapes"]:
        raise UsageError(f"no table {unknown[0]!r}; there are {', '.join([*MEASUREMENTS, 'shapes'])}")
    writes = folder is None
    if writes and not DOCUMENT.exists():
        raise UsageError(f"{DOCUMENT} is not here; run this in the repository's root, or give --model FOLDER to print")
    bench = Bench.open(folder or EMBEDDED_MODEL)
    for name in names:
        started = time.monotonic()
        if name == "shapes":
            content = shape_bytes()
        elif name == "recipes":
            content = recipes(bench, PLOT if writes else None)
        else:
            content = MEASUREMENTS[name](bench)
        print(f"{name} ({time.monotonic() - started:.0f} s)\n\n{content}\n", flush=True)
        if writes:
            DOCUMENT.write_text(replace_table(DOCUMENT.read_text(encoding="utf-8"), name, content), encoding="utf-8")


def _report(name: str, done: int, total: int) -> None:
    print(f"{done}/{total} {name}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
