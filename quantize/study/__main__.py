"""Every table of docs/quantization.md, measured again.

python -m quantize.study                               # a few minutes on one core; rewrites tables and plot
python -m quantize.study --only recipes,loops          # some of them
python -m quantize.study --only front                  # front and learned are printed, and only by name
python -m quantize.study --model FOLDER                # another model: printed, nothing is written
python -m quantize.study --shape parcae-140m --algorithm gptq    # time and memory, random weights; printed
python -m quantize.study --shape parcae-140m --algorithm learned --steps 3
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
from .front import front
from .learned import learned
from .markdown import replace_table
from .measurements import MEASUREMENTS, OTHER_MODELS, recipes
from .shapes import learning_costs, shape_bytes, shape_costs

DOCUMENT = Path("docs/quantization.md")
PLOT = DOCUMENT.with_suffix(".svg")
NAMES = [*MEASUREMENTS, *OTHER_MODELS, "shapes"]
PRINTED = ["front", "learned"]  # minutes of processor time each; only by name, and not written into the document


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m quantize.study", description="Measure the docs' tables again.")
    parser.add_argument("--only", help=f"comma-separated: {', '.join([*NAMES, *PRINTED])}")
    parser.add_argument("--model", type=Path, help="another model's folder; its tables are printed only")
    parser.add_argument("--shape", choices=RELEASED_SHAPES, help="time and memory of quantizing random weights")
    parser.add_argument("--algorithm", choices=("rtn", "gptq", "learned"), default="rtn", help="of --shape")
    parser.add_argument("--steps", type=int, default=3, help="of --shape with --algorithm learned")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    try:
        if options.shape:
            if options.algorithm == "learned":
                print(learning_costs(options.shape, options.steps, _report))
            else:
                print(shape_costs(options.shape, options.algorithm, _report))
        else:
            _tables(options.only, options.model)
    except ParcaeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _tables(only: str | None, folder: Path | None) -> None:
    standard = NAMES if folder is None else [*MEASUREMENTS]
    known = [*standard, *PRINTED]
    names = only.split(",") if only else standard
    if unknown := [name for name in names if name not in known]:
        raise UsageError(f"no table {unknown[0]!r} here; there are {', '.join(known)}")
    writes = folder is None
    if writes and not DOCUMENT.exists():
        raise UsageError(f"{DOCUMENT} is not here; run this in the repository's root, or give --model FOLDER to print")
    benches: dict[Path, Bench] = {}
    for name in names:
        started = time.process_time()
        content = _measure(name, folder or EMBEDDED_MODEL, benches, writes)
        if content is None:
            print(f"{name}: left as it is, {OTHER_MODELS[name][0]} is not here\n", flush=True)
            continue
        print(f"{name} ({time.process_time() - started:.0f} processor seconds)\n\n{content}\n", flush=True)
        if writes and name not in PRINTED:
            DOCUMENT.write_text(replace_table(DOCUMENT.read_text(encoding="utf-8"), name, content), encoding="utf-8")


def _measure(name: str, folder: Path, benches: dict[Path, Bench], writes: bool) -> str | None:
    """One table; None for a model that is not there."""
    if name == "shapes":
        return shape_bytes()
    if name in OTHER_MODELS:
        folder = OTHER_MODELS[name][0]
        if not (folder / "model.safetensors").exists():
            return None
    if folder not in benches:
        benches[folder] = Bench.open(folder)
    if name in OTHER_MODELS:
        return OTHER_MODELS[name][1](benches[folder])
    if name == "front":
        return front(benches[folder])
    if name == "learned":
        return learned(benches[folder], folder)
    if name == "recipes":
        return recipes(benches[folder], PLOT if writes else None)
    return MEASUREMENTS[name](benches[folder])


def _report(name: str, done: int, total: int) -> None:
    print(f"{done}/{total} {name}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
