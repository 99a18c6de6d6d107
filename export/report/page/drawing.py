"""SVG pictures drawn by matplotlib whose colours are variables of the page, so that light and dark both work.

svg = draw("poles", lambda axes: axes.hist(decays, color=SERIES[0]))
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
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
    "axes.linewidth": 0.8,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 5.5,
    "xtick.color": INK,
    "ytick.color": INK,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "xtick.major.size": 3,
    "xtick.minor.size": 0,
    "grid.color": FAINT,
    "grid.alpha": 0.22,
    "grid.linewidth": 0.7,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 10,
}
NOTEBOOK = {
    "--ink": "#1b2026",
    "--faint": "#747e88",
    "--series-1": "#005f99",
    "--series-2": "#b34a00",
    "--series-3": "#007a5a",
    "--series-4": "#9c3f7a",
    "--series-5": "#6b5900",
}
# Inches of 72 points: a plot is about as wide as a phone's screen, so its 10 points are 10 there and more on a desk.
WIDTH, HEIGHT = 5.0, 2.9


@dataclass(frozen=True)
class Plot:
    """A picture with its heading, what it shows in one sentence, and the text read aloud in its place."""

    title: str
    caption: str
    alternative: str
    svg: str

    def _repr_html_(self) -> str:
        """The picture in a notebook, on white paper, with the colours that the page has in light."""
        variables = "; ".join(f"{name}: {colour}" for name, colour in NOTEBOOK.items())
        style = f"max-width: 32rem; padding: 1rem; background: #fff; color: {NOTEBOOK['--ink']}; {variables}"
        words = f"<strong>{escape(self.title)}</strong>{self.svg}<p>{escape(self.caption)}</p>"
        return f'<figure role="img" aria-label="{escape(self.alternative)}" style="{style}">{words}</figure>'


def colours(place: int) -> dict[str, str]:
    """Colour and marker of the series at a place, as matplotlib's arguments."""
    return {"color": SERIES[place % len(SERIES)], "marker": MARKERS[place % len(MARKERS)]}


def draw(name: str, paint: Callable[[Any], None], height: float = HEIGHT) -> str:
    """SVG text of axes that `paint` fills; `name` keeps the ids of one page's pictures apart.

    What the vertical axis shows stands above it, left: text on its side is slow to read.
    """
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    with pyplot.style.context("default"), matplotlib.rc_context(_STYLE | {"svg.hashsalt": name}):
        figure, axes = pyplot.subplots(figsize=(WIDTH, height))
        paint(axes)
        label = axes.get_ylabel()
        axes.set_ylabel("")
        axes.set_title(label, loc="left", fontsize=10, pad=8)
        handles, labels = axes.get_legend_handles_labels()
        if handles:
            wide = max(map(len, labels)) > 20
            axes.legend(
                loc="upper left",
                bbox_to_anchor=(-0.02, -0.2),
                ncols=1 if wide else 2,
                handlelength=2.2,
                borderaxespad=0,
            )
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
