"""The page's pictures: what each shows, in a drawing, in a sentence, and in words to be read aloud.

for plot in plots([subject]): page.append(plot.svg)    # the same facts give the same bytes
"""

from __future__ import annotations

from collections.abc import Sequence

from export.report.page.curves import cache_plots, decode_plots, distance_plots, perplexity_plots, state_plots
from export.report.page.drawing import Plot
from export.report.page.front import front_plots
from export.report.page.parts import byte_plots, pole_plots, sensitivity_plots
from export.report.page.subject import Subject

MAKERS = (
    *(front_plots, distance_plots, perplexity_plots, decode_plots, state_plots, cache_plots),
    *(byte_plots, sensitivity_plots, pole_plots),
)


def plots(subjects: Sequence[Subject]) -> list[Plot]:
    """Every picture that the facts of the subjects allow, comparisons first."""
    return [plot for maker in MAKERS for plot in maker(subjects)]
