"""Every mutant in every column, and what caught it: build/mutants/mutants.json and mutants.md.

    make mutants                                       # what is not in build/mutants yet: two hours on a busy machine
    python -m tests.mutants --only "onnx stages" --only "one loop"
    python -m tests.mutants --docs                     # the results so far to docs/, for `make docs`

An `--only` is a part of a column's name (target, form, preset) or of a mutant's; a cell is run if one of each kind that
is given fits. Results are kept after each cell, so a run that was cut off goes on. The exit code is 1 if a mutant that
was run passed at every size.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from export.gates.reference import check_reference
from export.source import open_source
from tests.mutants.columns import COLUMNS, CONTEXT, FORMS, QUANTS, SINGLE, SLOW_WRITERS, Column, Subject
from tests.mutants.faults import FAULTS, Fault
from tests.mutants.table import ALL, DOUBLINGS, Results, page

BUILD = Path("build/mutants")
DOCS = Path("docs")


def main() -> int:
    """Run the cells that are asked for and not known yet."""
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("--only", action="append", default=[], help="part of a column's or a mutant's name")
    parser.add_argument("--docs", action="store_true", help="copy the results to docs/ instead of running")
    arguments = parser.parse_args()
    path = BUILD / "mutants.json"
    if arguments.docs:
        shutil.copyfile(path, DOCS / "mutants.json")
        return 0
    columns, faults = chosen(arguments.only)
    torch.set_num_threads(1)
    source = open_source(None)
    rows = [(fault.name, fault.title, fault.size) for fault in FAULTS.values()]
    results = Results(source.name, source.weights_sha256, CONTEXT, list(FORMS), list(QUANTS), rows)
    results.take(path)
    reference = check_reference(source, source.text("heldout", None, 128))
    passed = 0
    for column in columns:
        known = results.cells.get(column.name, {})
        missing = [fault for fault in faults if fault.name not in known]
        if not missing:
            continue
        subject = Subject(column, source, reference)
        for fault in missing:
            started = time.monotonic()
            cell = run_cell(subject, fault)
            cell["seconds"] = round(time.monotonic() - started, 1)
            results.add(column.name, fault.name, cell)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(results.to_json(), encoding="utf-8")
            (BUILD / "mutants.md").write_text(page(results), encoding="utf-8")
            passed += any(part.get("outcome") == "passed" for part in cell.values() if isinstance(part, dict))
            sys.stdout.write(f"{column.name}: {fault.name}: {json.dumps(cell)}\n")
            sys.stdout.flush()
        subject.close()
    sys.stdout.write(f"{BUILD / 'mutants.md'}\n")
    return int(bool(passed))


def chosen(only: Sequence[str]) -> tuple[list[Column], list[Fault]]:
    """Columns and faults that the given parts of names fit; all of a kind that none fits."""
    columns = [column for column in COLUMNS if any(part in column.name for part in only)]
    faults = [fault for fault in FAULTS.values() if any(part in fault.name for part in only)]
    unknown = [
        part for part in only if not any(part in name for name in (*FAULTS, *(column.name for column in COLUMNS)))
    ]
    if unknown:
        sys.exit(f"error: --only {unknown[0]}: no column or mutant has this in its name; see docs/mutants.md")
    return columns or COLUMNS, faults or list(FAULTS.values())


def run_cell(subject: Subject, fault: Fault) -> dict[str, Any]:
    """One mutant in one column: at T=8 alone and at every loop count.

    Where T=8 alone finds it and no check depends on the others, the checks of all loop counts hold those that did.
    """
    column = subject.column
    absent = fault.absent(column.target, column.form, column.quant)
    if absent:
        return {"single": {"outcome": "absent", "why": absent}, ALL: {"outcome": "absent", "why": absent}}
    single = search(subject, fault, [SINGLE])
    if column.static and not subject.job.options.counts:
        several = {"outcome": "absent", "why": "one file has one loop count"}
    elif single["outcome"] == "caught" and (column.target not in SLOW_WRITERS or column.quant == "fp32"):
        several = {**single, "implied": True}
    else:
        several = search(subject, fault, subject.all_loops)
    return {"single": single, ALL: several}


def search(subject: Subject, fault: Fault, loops: list[int]) -> dict[str, Any]:
    """What catches it, at the size of the table or, where that passes, at the smallest doubling that does not."""
    size = fault.size
    for _ in range(DOUBLINGS if size else 1):
        failures = subject.failures(fault, size, loops)
        if failures:
            return {"outcome": "caught", "by": failures[:3], "checks": len(failures), "size": size}
        size *= 2
    return {"outcome": "passed", "size": size / 2 if size else 0.0}


if __name__ == "__main__":
    sys.exit(main())
