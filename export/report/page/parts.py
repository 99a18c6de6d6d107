"""Pictures of a model's parts: where its bytes are, what each part would cost at 4 bits, its injection's poles.

for plot in byte_plots([subject]): ...                 # one for each subject whose facts are known
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from export.report.page.drawing import FAINT, SERIES, Plot, draw
from export.report.page.subject import ModelFacts, Subject, letters


def byte_plots(subjects: Sequence[Subject]) -> Iterator[Plot]:
    """Bytes of each part in fp32 and under the recipe."""
    for number, name, facts in _known(subjects):
        sizes = {part: pair for part, pair in facts.bytes_by_component.items() if pair[0]}

        def paint(axes: Any, sizes: dict[str, tuple[int, int]] = sizes) -> None:
            names = list(sizes)[::-1]
            rows = range(len(names))
            before, after = ([sizes[part][side] / 1e6 for part in names] for side in (0, 1))
            axes.barh([row + 0.2 for row in rows], before, 0.38, color=FAINT, alpha=0.55, label="fp32")
            axes.barh([row - 0.2 for row in rows], after, 0.38, color=SERIES[0], label="in the artifact")
            _named_rows(axes, list(rows), names)
            axes.set_xlabel("MB")

        before, after = (sum(pair[side] for pair in sizes.values()) for side in (0, 1))
        spoken = ", ".join(f"{part} {b / 1e6:.2f} to {a / 1e6:.2f} MB" for part, (b, a) in sizes.items())
        yield Plot(
            f"Where the bytes are{name}",
            f"Weights by part of the model: {before / 1e6:.1f} MB in fp32, {after / 1e6:.1f} MB under the recipe. "
            "The recurrent block counts once, whatever T is.",
            "Bytes before and after. " + spoken,
            draw(f"bytes{number}", paint),
        )


def sensitivity_plots(subjects: Sequence[Subject]) -> Iterator[Plot]:
    """Mean KL of each part alone at 4 bits."""
    for number, name, facts in _known(subjects):
        costs = dict(sorted(facts.sensitivity.items(), key=lambda item: item[1]))
        if not costs:
            continue

        def paint(axes: Any, costs: dict[str, float] = costs) -> None:
            rows = list(range(len(costs)))
            axes.barh(rows, list(costs.values()), 0.6, color=SERIES[0])
            _named_rows(axes, rows, list(costs))
            axes.set_xlabel("mean KL (nats)")

        yield Plot(
            f"What each part would cost at 4 bits{name}",
            "One part alone rounded to int4 in groups of 32, everything else fp32, at "
            f"T={facts.sensitivity_loops}: where a recipe should spend its bits.",
            "Mean KL by part. " + ", ".join(f"{part} {cost:.2g}" for part, cost in costs.items()),
            draw(f"sensitivity{number}", paint),
        )


def pole_plots(subjects: Sequence[Subject]) -> Iterator[Plot]:
    """Histogram of the decays that were re-read from the files."""
    for number, name, facts in _known(subjects):
        decays = sorted(facts.decays)
        if not decays:
            continue

        def paint(axes: Any, decays: list[float] = decays) -> None:
            axes.hist(decays, bins=32, range=(0, max(1, decays[-1])), color=SERIES[0])
            axes.axvline(1, color=SERIES[1], linestyle="--", label="1: what lies beyond does not contract")
            axes.set(xlim=(0, max(1.05, 1.05 * decays[-1])), xlabel="decay", ylabel="channels")

        inside = decays[-1] < 1
        verdict = (
            "All lie below 1, so the linear injection contracts; the non-linear loop around it is measured, not proven."
            if inside
            else "Not all lie below 1: the linear injection does not contract."
        )
        yield Plot(
            f"Injection poles{name}",
            f"The decay of every channel, re-read from the finished file. {verdict}",
            f"{len(decays)} decays from {decays[0]!r} to {decays[-1]!r}, median {decays[len(decays) // 2]:.4f}",
            draw(f"poles{number}", paint),
        )


def _known(subjects: Sequence[Subject]) -> Iterator[tuple[int, str, ModelFacts]]:
    """(place, the subject's name for a heading, facts) of subjects whose facts are known."""
    for place, (subject, name) in enumerate(zip(subjects, letters(subjects), strict=True)):
        if subject.facts is not None:
            yield place, f": {name}" if name else "", subject.facts


def _named_rows(axes: Any, rows: list[int], names: list[str]) -> None:
    axes.set_yticks(rows, names)
    axes.grid(False, axis="y")
    axes.margins(y=0.03)
