"""The bench's table as a picture: decode time against loops, a panel for each context, baselines as lines across.

plot_table(table, Path("bench.svg"))                   # the same table gives the same file
"""

from __future__ import annotations

from pathlib import Path

from export.bench.rows import Row, Table
from parcae_mobile.atomic import writing
from parcae_mobile.errors import UsageError

FORMATS = (".svg", ".png")
LINES = {"naive-onnx": ":", "genai-llama": "--", "llama-cpp": (0, (5, 1, 1, 1, 1, 1)), "naive-executorch": "-."}


def plot_table(table: Table, path: Path) -> None:
    """Write an SVG or PNG. Raises `UsageError` for another suffix or a table without times."""
    if path.suffix not in FORMATS:
        raise UsageError(f"--plot {path}: give a name that ends in {' or '.join(FORMATS)}")
    timed = [row for row in table.rows if row.speed is not None]
    if not timed:
        raise UsageError("nothing to plot: no row of the table has times")
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    contexts = sorted({row.context for row in timed})
    with matplotlib.rc_context({"svg.hashsalt": "parcae", "svg.fonttype": "none", "font.size": 9}):
        figure, axes = pyplot.subplots(1, len(contexts), figsize=(4.6 * len(contexts), 4.4), squeeze=False, sharey=True)
        labels = sorted({row.label for row in timed})
        colours = {label: f"C{place % 10}" for place, label in enumerate(labels)}
        for axis, context in zip(axes[0], contexts, strict=True):
            here = [row for row in timed if row.context == context]
            for label in labels:
                _line(axis, [row for row in here if row.label == label], colours[label])
            axis.set(title=f"context {context}", xlabel="loops T", yscale="log")
            axis.set_xscale("log", base=2)
            axis.set_xticks([1, 2, 4, 8, 16], ["1", "2", "4", "8", "16"])
            axis.set_xlim(0.9, 18)
            axis.grid(True, which="both", alpha=0.25)
        axes[0][0].set_ylabel("decode, ms per token")
        axes[0][0].yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axes[0][0].yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
        axes[0][0].yaxis.set_minor_formatter(ticker.NullFormatter())
        handles = {h.get_label(): h for axis in axes[0] for h in axis.get_lines()}
        figure.legend(
            [handles[label] for label in labels if label in handles],
            [label for label in labels if label in handles],
            loc="lower center",
            ncols=2,
            frameon=False,
        )
        figure.tight_layout(rect=(0, 0.06 + 0.045 * ((len(labels) + 1) // 2), 1, 1))
        # Times and versions of the tool would make two files of one table differ.
        metadata = {"Date": None, "Creator": None} if path.suffix == ".svg" else {"Software": None}
        path.parent.mkdir(parents=True, exist_ok=True)
        with writing(path) as file:
            figure.savefig(file, format=path.suffix[1:], metadata=metadata, dpi=110)
        pyplot.close(figure)


def _line(axis: object, rows: list[Row], colour: str) -> None:
    """One variant in one panel: points by loop count, a baseline as a line across at its only one."""
    from matplotlib.axes import Axes

    assert isinstance(axis, Axes)
    if not rows:
        return
    rows = sorted(rows, key=lambda row: row.variant.loops)
    times = [row.speed.decode_ms for row in rows if row.speed is not None]
    kind, label = rows[0].variant.kind, rows[0].label
    if kind in LINES:
        axis.axhline(times[0], linestyle=LINES[kind], color="black", label=label)
    else:
        axis.plot([row.variant.loops for row in rows], times, marker="o", markersize=4, color=colour, label=label)
