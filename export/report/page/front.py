"""Pictures of several artifacts as points: bytes against distance from fp32, and decode time against it.

for plot in front_plots([first, second]): ...          # nothing for an artifact that is alone
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from export.report.page.drawing import FAINT, Plot, colours, draw
from export.report.page.subject import Subject, letters


@dataclass(frozen=True)
class Point:
    """One artifact: what it takes, and how far it is from fp32 (mean KL in nats)."""

    place: int
    name: str
    taken: float
    kl: float

    def beaten_by(self, other: Point) -> bool:
        """Whether another is at least as good in both and better in one."""
        return other.taken <= self.taken and other.kl <= self.kl and (other.taken, other.kl) != (self.taken, self.kl)


def front_plots(subjects: Sequence[Subject]) -> Iterator[Plot]:
    """Size against KL, and where times are known decode time against KL."""
    if len(subjects) == 1:
        return
    names = letters(subjects)
    judged = [(place, subject, subject.cost) for place, subject in enumerate(subjects)]
    costs = {place: (subject, cost[1]["kl_mean"]) for place, subject, cost in judged if cost is not None}
    absent = [names[place] for place, _, cost in judged if cost is None]
    missing = f" Not shown, because nothing judged what it costs: {', '.join(absent)}." if absent else ""
    sizes = [Point(place, names[place], subject.app_bytes / 1e6, kl) for place, (subject, kl) in costs.items()]
    if len(sizes) > 1:
        yield Plot(
            "Size against distance",
            "Model and tokenizer on the device, and mean KL to fp32 at the T nearest to the trained one. Further left "
            f"and further down is better; the line joins those that no other beats in both.{missing}",
            "Size and KL. " + "; ".join(f"{p.name}: {p.taken:.2f} MB, {p.kl:.2g}" for p in sizes),
            draw("front-size", lambda axes: _paint(axes, sizes, "MB")),
        )
    contexts = [set(subject.speeds.decode_ms) for subject, _ in costs.values() if subject.speeds is not None]
    context = min(set.intersection(*contexts), default=None) if contexts else None
    if context is None:
        return
    times = []
    for place, (subject, kl) in costs.items():
        timed = subject.decode_ms(context)
        if timed is not None:
            times.append(Point(place, f"{names[place]}, T={timed[0]}", timed[1], kl))
    if len(times) > 1:
        yield Plot(
            "Decode time against distance",
            f"Milliseconds for one more token after {context:,} tokens, all in one run, against mean KL to fp32.",
            "Decode time and KL. " + "; ".join(f"{p.name}: {p.taken:.2f} ms, {p.kl:.2g}" for p in times),
            draw("front-speed", lambda axes: _paint(axes, times, "ms per token")),
        )


def _paint(axes: Any, points: Sequence[Point], unit: str) -> None:
    """Points with their names beside them, and a line through those that none beats."""
    best = sorted((p for p in points if not any(p.beaten_by(q) for q in points)), key=lambda p: p.taken)
    axes.plot([p.taken for p in best], [p.kl for p in best], color=FAINT, linewidth=1, linestyle=":")
    for point in points:
        axes.plot(point.taken, point.kl, linestyle="none", **colours(point.place), label=point.name)
    axes.set(xlabel=unit, ylabel="mean KL to fp32 (nats)")
    far, high = max(point.taken for point in points), max(point.kl for point in points)
    axes.set(xlim=(0, 1.1 * far), ylim=(-0.08 * high or -1e-6, 1.15 * high or 1e-6))
