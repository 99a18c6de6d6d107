"""The bench's table for people: on the terminal, and as Markdown for the documentation, from the same cells.

print_table(console, table); path.write_text(markdown(table))
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table as RichTable

from export.bench.goals import Outcome, judge, load_goals, not_measured
from export.bench.rows import Row, Table

HEAD = (
    *("model", "T", "weights", "cache", "load s", "loaded", "end", "peak"),
    *("first ms", "prompt tok/s", "decode ms", "tok/s", "time / T=1", "x naive", "roofline", "run"),
)
LEGEND = (
    "Sizes are in MB of 1e6 bytes. `weights`: the file that holds them. `cache`: keys and values at this context. "
    "`load s`, `loaded`, `end`, `peak`: a process of its own, after loading, after a prompt of this context and 32 "
    "tokens (fewer where the context ends), and at most. `first ms`: from the prompt to its logits. `time / T=1`: "
    "decode time over that at one loop. `x naive`: how often it decodes while the naive export decodes once. "
    "`roofline`: the time in which memory gives the bytes that one token reads, as a share of the time measured."
)
WIDTH = 176  # of the table, which would lose its figures in a narrow terminal
NAIVE = {"onnx": "naive-onnx", "executorch": "naive-executorch"}


def cells(table: Table, row: Row) -> list[str]:
    """One row of the table, as text."""
    memory, speed = row.memory, row.speed
    figures = [row.label, str(row.variant.loops), _mb(row.weight_bytes), _mb(row.cache_bytes)]
    if memory is None:
        figures += ["-"] * 4
    else:
        figures += [f"{memory.load_seconds:.2f}", *(_mb(n) for n in (memory.loaded, memory.end, memory.peak))]
    if speed is None:
        return figures + ["-"] * 8
    once = next(table.others(row, **(row.variant.model_dump() | {"loops": 1})), None)
    naive = next(
        table.others(row, model=row.variant.model, kind=NAIVE.get(row.variant.target), loops=row.variant.loops), None
    )
    floor = row.roofline_ms(table.runs[speed.run].bandwidth)
    return [
        *figures,
        f"{speed.first_token_ms:.0f}",
        f"{row.context / speed.first_token_ms * 1e3:.0f}",
        f"{speed.decode_ms:.2f}",
        f"{speed.tokens_per_second:.0f}",
        _ratio(row, once),
        _ratio(naive, row),
        "-" if floor is None else f"{floor / speed.decode_ms:.0%}",
        str(speed.run),
    ]


def print_table(console: Console, table: Table) -> None:
    """Every context's rows, then the outcomes."""
    console = Console(file=console.file, width=max(console.width, WIDTH))
    for context in _contexts(table):
        shown = RichTable(title=f"context {context}", title_justify="left")
        for place, name in enumerate(HEAD):
            shown.add_column(name, justify="right" if place else "left", no_wrap=True)
        for row in _rows(table, context):
            shown.add_row(*cells(table, row))
        console.print(shown)
    console.print(_notes(table), markup=False)
    outcomes = RichTable(title="what was meant to be reached", title_justify="left")
    for name in OUTCOME_HEAD:
        outcomes.add_column(name)
    for outcome in judge(table, load_goals()):
        outcomes.add_row(*outcome_cells(outcome))
    if outcomes.rows:
        console.print(outcomes)


OUTCOME_HEAD = ("goal", "row", "context", "measured", "bound", "outcome")


def outcome_cells(outcome: Outcome) -> list[str]:
    """One outcome, as text."""
    sign = ">=" if outcome.at_least else "<="
    return [
        outcome.name,
        f"{outcome.row.label} T={outcome.row.variant.loops}",
        str(outcome.row.context),
        ", ".join(_figure(value) for value in outcome.values),
        "-" if outcome.bound is None else f"{sign} {_figure(outcome.bound)}",
        _said(outcome),
    ]


def _said(outcome: Outcome) -> str:
    """A goal is reached if every run reaches it."""
    checks = outcome.held
    if not checks:
        return "shown"
    return (
        "reached" if all(checks) else f"MISSED in {checks.count(False)} of {len(checks)}" if any(checks) else "MISSED"
    )


def markdown(table: Table) -> str:
    """The whole report as Markdown; the same table gives the same text."""
    parts = [LEGEND, _notes(table)]
    for context in _contexts(table):
        parts += [f"## Context {context}", _markdown(HEAD, [cells(table, row) for row in _rows(table, context)])]
    goals = load_goals()
    rows = [outcome_cells(outcome) for outcome in judge(table, goals)]
    parts += ["## What was meant to be reached", _markdown(OUTCOME_HEAD, rows)]
    left = not_measured(table, goals)
    if left:
        parts.append("Not measured: " + "; ".join(left) + ".")
    return "# Bench\n\n" + "\n\n".join(parts) + "\n"


def _notes(table: Table) -> str:
    lines = [
        f"Run {number}: {run.processor}, {run.cores} cores, {run.bandwidth / 1e9:.1f} GB/s read by one thread, "
        f"{run.rounds} rounds; {', '.join(f'{name} {version}' for name, version in run.tools.items())}."
        for number, run in table.runs.items()
    ]
    if any(row.variant.target == "coreml" and row.speed is None for row in table.rows):
        lines.append(
            "Core ML: bytes only. Off macOS a package runs in this project's interpreter, which is for checking it: "
            "its speed and memory say nothing about a phone."
        )
    return "\n".join(lines)


def _contexts(table: Table) -> list[int]:
    return sorted({row.context for row in table.rows})


def _rows(table: Table, context: int) -> list[Row]:
    return [row for row in table.rows if row.context == context]


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---"] * len(head)
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *rows))


def _mb(count: int) -> str:
    return f"{count / 1e6:.1f}" if count < 99_950_000 else f"{count / 1e6:.0f}"


def _figure(value: float) -> str:
    return f"{value:.1f}" if value >= 20 or value <= -20 else f"{value:.3f}" if value < 0.2 else f"{value:.2f}"


def _ratio(row: Row | None, other: Row | None) -> str:
    """Decode time over another row's, in the last run that measured both."""
    pairs = [] if row is None or other is None else row.beside(other)
    return f"{pairs[-1][0].decode_ms / pairs[-1][1].decode_ms:.2f}" if pairs else "-"
