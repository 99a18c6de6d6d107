"""The picture of `bits_and_loops`: KL against T, a panel for each model, a line for each recipe and algorithm.

draw(points_by_model, Path("bits-and-loops.svg"))      # the same points give the same file
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from parcae_mobile.errors import ToolMissingError

STYLES = {"rtn": ":", "gptq": "--", "learned": "-"}


class Point(Protocol):
    """What is drawn of a measurement."""

    @property
    def recipe(self) -> str: ...

    @property
    def algorithm(self) -> str: ...

    @property
    def loops(self) -> int: ...

    @property
    def kl(self) -> float: ...


def draw(models: Mapping[str, Sequence[Point]], path: Path) -> None:
    """Write the SVG. Raises `ToolMissingError` without matplotlib."""
    try:
        import matplotlib

        matplotlib.use("svg")
        from matplotlib import pyplot
    except ImportError:
        raise ToolMissingError("matplotlib is not installed: pip install matplotlib") from None
    with matplotlib.rc_context({"svg.hashsalt": "parcae-mobile", "svg.fonttype": "none", "font.size": 9}):
        figure, panels = pyplot.subplots(1, len(models), figsize=(4.2 * len(models), 4.4), squeeze=False, sharey=True)
        for axes, (name, points) in zip(panels[0], models.items(), strict=True):
            shown = [point for point in points if point.recipe != "fp32"]
            colours = {recipe: f"C{n}" for n, recipe in enumerate(dict.fromkeys(point.recipe for point in shown))}
            for recipe, algorithm in dict.fromkeys((point.recipe, point.algorithm) for point in shown):
                line = [p for p in shown if (p.recipe, p.algorithm) == (recipe, algorithm)]
                label = f"{recipe}, {algorithm}"
                places, heights = [p.loops for p in line], [p.kl for p in line]
                axes.plot(places, heights, STYLES[algorithm], color=colours[recipe], marker=".", label=label)
            axes.set(title=name, xlabel="loops T", yscale="log")
            axes.set_xscale("log", base=2)
            axes.set_xticks([1, 2, 4, 8, 16], ["1", "2", "4", "8", "16"])
            axes.grid(True, alpha=0.3)
        panels[0][0].set_ylabel("KL to fp32 at the same T (nats)")
        handles, labels = panels[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="lower center", ncols=3, frameon=False, fontsize=8)
        figure.tight_layout(rect=(0, 0.06 + 0.045 * ((len(labels) + 2) // 3), 1, 1))
        figure.savefig(path, format="svg", metadata={"Date": None})
        pyplot.close(figure)
