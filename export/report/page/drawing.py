"""SVG pictures drawn by matplotlib whose colours are variables of the page, so that light and dark both work.

svg = draw("poles", lambda axes: axes.hist(decays, color=SERIES[0]))
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

# Drawn colours and the page's variables for them (template.html). Series colours are Okabe and Ito's, which people who
# see few colours can tell apart; each series has a marker of its own as well.
INK, FAINT = "#010101", "#020202"
SERIES = ("#030303", "#040404", "#050505", "#060606", "#070707")
MARKERS = ("o", "s", "^", "D", "v")
_VARIABLES = {INK: "--ink", FAINT: "--faint"} | {drawn: f"--series-{n}" for n, drawn in enumerate(SERIES, 1)}
_STYLE: Any = {  # matplotlib's own type for it lists every key that there is
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": FAINT,
    "grid.alpha": 0.25,
    "axes.grid": True,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "legend.frameon": False,
}


def draw(name: str, paint: Callable[[Any], None], height: float = 3.2) -> str:
    """SVG text of axes that `paint` fills; `name` keeps the ids of one page's pictures apart."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    with pyplot.style.context("default"), matplotlib.rc_context(_STYLE | {"svg.hashsalt": name}):
        figure, axes = pyplot.subplots(figsize=(6.4, height))
        paint(axes)
        if axes.get_legend_handles_labels()[1]:
            axes.legend()
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None}, bbox_inches="tight")
        pyplot.close(figure)
    svg = text.getvalue()
    svg = re.sub(r"(?s)^.*?<svg", "<svg", svg)
    svg = re.sub(r"(?s)<metadata>.*?</metadata>", "", svg)
    for side in ("width", "height"):  # the page sets the size
        svg = re.sub(rf'(<svg[^>]*?) {side}="[^"]*"', r"\1", svg, count=1)
    for drawn, variable in _VARIABLES.items():
        svg = svg.replace(drawn, f"var({variable})")
    return svg.strip()
