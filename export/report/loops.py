"""Readable tables of early exit, of KV policies, and of one prompt at several loop counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from export.kv.study import StudyRow
from export.report.terminal import print_rows
from export.run.early_exit import MOST_KL, ExitTable

if TYPE_CHECKING:
    from export.run.session import Completion


def print_exit(console: Console, name: str, table: ExitTable) -> None:
    """Fixed loop counts, then thresholds, and what follows from them."""
    columns = ["loops on average", "threshold", f"KL to T={table.loops}", "+-", "top-1", "fixed T of the same average"]
    rows = [
        [
            f"{row.average_loops:.2f}",
            f"{row.threshold:g}" if row.threshold else "fixed",
            f"{row.distance.kl_mean:.1e}",
            f"{row.distance.kl_sem:.0e}",
            f"{row.distance.top1:.2%}",
            f"{row.fixed_kl:.1e}" if row.threshold else "",
        ]
        for row in (*table.fixed, *table.rows)
    ]
    print_rows(console, f"{name}: {table.positions} tokens decoded one by one", columns, rows)
    chosen, fixed = table.recommended, table.recommended_fixed
    console.print(f"  least fixed loop count with KL <= {MOST_KL:g}: T={fixed.average_loops:.0f}")
    if chosen is None:
        console.print(f"  no threshold has KL <= {MOST_KL:g}")
        return
    console.print(
        f"  threshold with the fewest loops at KL <= {MOST_KL:g}: {chosen.threshold:g}, "
        f"{chosen.average_loops:.2f} loops ({chosen.average_loops / table.loops:.0%} of {table.loops})"
    )


def print_study(console: Console, name: str, loops: int, rows: Sequence[StudyRow]) -> None:
    """A line for each policy and type, a column for each piece, top-1 of the smallest piece."""
    pieces = list(dict.fromkeys(row.piece for row in rows))
    smallest = min((piece for piece in pieces if piece), default=0)
    lines: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        line = lines.setdefault((row.policy, row.dtype), [row.policy, row.dtype, f"{row.bytes_per_token:,}"])
        line.append(f"{row.distance.kl_mean:.1e}")
    for row in rows:
        if row.piece == smallest:
            lines[row.policy, row.dtype].append(f"{row.distance.top1:.2%}")
    headers = ["at once" if piece == 0 else f"by {piece}" for piece in pieces]
    title = f"{name}, T={loops}: KL to the whole text without a cache, by the pieces in which it is given"
    columns = ["policy", "type", "bytes per token", *headers, f"top-1, by {smallest}" if smallest else "top-1"]
    print_rows(console, title, columns, list(lines.values()))


def print_completions(console: Console, prompt: str, results: Sequence[Completion]) -> None:
    """The same prompt at several loop counts, a column each, with how fast each came."""
    table = Table(title=f"continuations of {prompt!r}", title_justify="left", show_lines=True, expand=True)
    for result in results:
        table.add_column(f"T={result.loops}", ratio=1)
    table.add_row(*(Text(result.text) for result in results))
    table.add_row(*(Text(result.summary, style="dim") for result in results))
    console.print(table)
