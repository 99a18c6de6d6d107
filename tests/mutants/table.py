"""The table of mutants: results as JSON, and as the page docs/mutants.md.

    results = Results.load(Path("docs/mutants.json"))
    text = page(results)

Only the standard library is imported: `make docs` writes the page from the committed results.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ALL = "all"
DOUBLINGS = 7
Cell = dict[str, Any]

HEAD = """# Mutants

Each gate is only as good as the faults that it finds. This table puts faults between an artifact and what it is
compared with, one at a time, and asks the certificate and the lowering gate as `parcae-export` asks them. It is
written by

    make mutants                                            # every cell that build/mutants does not hold yet
    python -m tests.mutants --only "onnx stages int4"       # some of them
    python -m tests.mutants --docs && make docs             # this page, from the results

with the embedded model, a context of {context} tokens, its weights rounded to the nearest values of each preset,
activations in what each target computes in by default (Core ML's fp32 column: in fp32). Core ML is judged on 2
texts of 64 tokens instead of 8, because an interpreter executes it. On the default preset `make test` runs every mutant
on ONNX and one of each kind on Core ML and ExecuTorch, `make acceptance` all of them
(`tests/export/gates/test_mutants.py`, `tests/export/targets/executorch/test_executorch.py`).

"T=8" is a gate that judges T=8 alone, which is all that `--loops 8` gets; "all" judges each loop count that an
export of that form is judged at. The words in a cell are the check that failed first and what it failed on; a
number before them is the smallest size, by doubling, that was caught where the row's own was not. "Not run" is a
cell that nobody has run: it says nothing.

Faults of tensors are written into the artifact. Lowering to ExecuTorch takes long, so there the artifact is right
and the eager reference has the fault: a gate sees the difference of two models and cannot know which of them is
wrong. For the same reason faults of the loop, the cache and the position are the reference's in every column. What
no mutant of this page covers: a row of a table that none of the gate's texts reads is seen by no gate of outputs;
the tests read every integer back.

With the 4 texts at T=2 of `make test`, on ExecuTorch with int8 activations (preset int4, form stages), one fault passes
at its smallest size: the sign of one scale of 32 weights. With the 8 texts and the loop counts of an export, as below,
it is caught. Where a number stands before the check, that is the smallest size that rounding does not hide.

"""

CHECKS = (
    (r"certificate: stored (\w+)", r"certificate (\1)"),
    (r"certificate: .*\bB\b", "certificate (B)"),
    (r"certificate: ", "certificate"),
    (r"refused: ", "refused"),
    (r"the outputs lean by", "leaning"),
    (r"greedy_equal", "greedy tokens"),
    (r"after coremltools' default passes", "after the passes"),
    (r"T=\d+: (\w+) \S+ is (?:above|below)", r"\1"),
    (r"T=\d+: (\w+) \S+ (?:above|below)", r"rounding's \1"),
    (r"fp16's end", "fp16's range"),
)


@dataclass
class Results:
    """Cells by column and mutant, with what they were measured on."""

    model: str
    weights_sha256: str
    context: int
    forms: list[tuple[str, str]]  # target and loop form
    quants: list[str]
    faults: list[tuple[str, str, float]]  # name, title and smallest size of each row
    cells: dict[str, dict[str, Cell]] = field(default_factory=dict)

    def take(self, path: Path) -> None:
        """The cells of a file, if it is there and of the same model and context."""
        if path.exists():
            known = self.load(path)
            if (known.weights_sha256, known.context) == (self.weights_sha256, self.context):
                self.cells = known.cells

    @classmethod
    def load(cls, path: Path) -> Results:
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    def add(self, column: str, fault: str, cell: Cell) -> None:
        self.cells.setdefault(column, {})[fault] = cell

    def to_json(self) -> str:
        return json.dumps(vars(self), indent=1) + "\n"


def check_of(line: str) -> str:
    """The name of the check that printed a line, with the probe that it failed on."""
    for pattern, words in CHECKS:
        match = re.search(pattern, line)
        if match:
            name = match.expand(words)
            probe = re.search(r"\((one piece|pieces|a long text)[^)]*\)", line)
            return f"{name}, {probe.group(0)[1:-1]}" if probe else name
    return line


def words_of(part: Cell | None, smallest: float) -> str:
    """A cell as the page shows it."""
    if part is None:
        return "not run"
    if part["outcome"] == "absent":
        return f"- ({part['why']})"
    size = part.get("size") or 0.0
    shown = f"{size:.1%}".replace(".0%", "%") if smallest < 1 else f"{size:g}"
    if part["outcome"] == "passed":
        return "**not caught**" if not size else f"**not caught up to {shown}**"
    return (f"{shown}: " if size > smallest else "") + check_of(part["by"][0])


def page(results: Results) -> str:
    """Markdown: a table for each target and form, a column for each preset."""
    lines = [HEAD.format(context=results.context)]
    counts = {"caught": 0, "passed": 0, "absent": 0, "not run": 0}
    tables: list[str] = []
    for target, form in results.forms:
        tables += [f"## {target}, {form}", ""]
        heads = [
            f"{quant}, {'T=8' if which == 'single' else which}" for quant in results.quants for which in ("single", ALL)
        ]
        tables += [f"| mutant | {' | '.join(heads)} |", "|---" * (1 + len(heads)) + "|"]
        for name, title, size in results.faults:
            row = [title]
            for quant in results.quants:
                cell = results.cells.get(f"{target} {form} {quant}", {}).get(name)
                single = None if cell is None else cell["single"]
                several = None if cell is None else cell[ALL]
                for part in (single, several):
                    counts["not run" if part is None else part["outcome"]] += 1
                implied = several is not None and several.get("implied")
                row += [words_of(single, size), "as T=8" if implied else words_of(several, size)]
            tables.append(f"| {' | '.join(row)} |")
        tables.append("")
    total = ", ".join(f"{count} {name}" for name, count in counts.items()).replace("passed", "not caught")
    lines += [f"Of {sum(counts.values())} cells: {total.replace('absent', 'that cannot be made')}.", "", *tables]
    return "\n".join(lines)
