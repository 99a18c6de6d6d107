"""Pictures of figures against the loop count T: distance, perplexity, decode time, the state, the cache.

for plot in distance_plots([subject]): ...             # none where nothing was measured
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from export.report.page.drawing import FAINT, Plot, colours, draw
from export.report.page.subject import Subject, letters


@dataclass(frozen=True)
class Curve:
    """Values of one subject at loop counts; `errors` is twice the standard error."""

    place: int
    subject: Subject
    loops: list[int]
    values: list[float]
    errors: list[float]


def distance_plots(subjects: Sequence[Subject]) -> Iterator[Plot]:
    """Mean KL of both gates."""
    shown = [(curve, "quantizing", "-") for curve in _curves(subjects, "compression", "kl_mean")]
    shown += [(curve, "target", "--") for curve in _curves(subjects, "lowering", "kl_mean")]
    shown = [row for row in shown if min(row[0].values) > 0 and _drawable(row[0].values)]
    if not shown:
        return
    names = letters(subjects)

    def paint(axes: Any) -> None:
        for curve, what, line in shown:
            # of several artifacts the colour says which and the line what, so each is named once
            name = names[curve.place] or what if len(subjects) == 1 or line == "-" else None
            style = colours(curve.place if len(subjects) > 1 else int(line == "--"))
            axes.errorbar(
                curve.loops, curve.values, curve.errors, **style, linestyle=line, capsize=3, elinewidth=1, label=name
            )
        _loop_axis(axes, [loops for curve, _, _ in shown for loops in curve.loops])
        axes.set(yscale="log", ylabel="mean KL (nats)")

    yield Plot(
        "Distance against loops",
        "How far next-token probabilities move. Solid: by quantizing, against fp32. Dashed: by the target, against "
        "PyTorch with the same weights. Bars are two standard errors; lower is better.",
        "Mean KL in nats. " + _spoken([curve for curve, _, _ in shown], ".2g"),
        draw("kl", paint),
    )


def perplexity_plots(subjects: Sequence[Subject]) -> Iterator[Plot]:
    """Perplexity above fp32, in percent."""
    curves = _curves(subjects, "compression", "perplexity_ratio")
    if not curves:
        return
    names = letters(subjects)

    def paint(axes: Any) -> None:
        for curve in curves:
            percent = [100 * (value - 1) for value in curve.values]
            axes.plot(curve.loops, percent, **colours(curve.place), label=names[curve.place] or None)
        _loop_axis(axes, [loops for curve in curves for loops in curve.loops])
        axes.axhline(0, color=FAINT, linewidth=1)
        axes.margins(y=0.15)
        axes.set_ylabel("perplexity above fp32 (%)")

    yield Plot(
        "Perplexity against loops",
        "How much worse held-out text is predicted, in percent above the fp32 model at the same T; 0 is as good.",
        "Perplexity ratio to fp32. " + _spoken(curves, ".4f"),
        draw("perplexity", paint),
    )


def decode_plots(subjects: Sequence[Subject]) -> Iterator[Plot]:
    """Decode time of each context for one subject, or of the shortest common context for several."""
    timed = [(place, subject.speeds) for place, subject in enumerate(subjects) if subject.speeds is not None]
    if not timed:
        return
    names, machine = letters(subjects), timed[0][1].machine
    lines: list[tuple[int, str, dict[int, float]]] = []
    if len(subjects) == 1:
        for place, (context, times) in enumerate(sorted(timed[0][1].decode_ms.items())):
            lines.append((place, f"context {context:,}", dict(sorted(times.items()))))
        where = "after a context of so many tokens"
    else:
        context = min(set.intersection(*(set(speeds.decode_ms) for _, speeds in timed)), default=0)
        lines = [(place, names[place], dict(sorted(speeds.decode_ms[context].items()))) for place, speeds in timed]
        where = f"after {context:,} tokens"

    def paint(axes: Any) -> None:
        for place, name, times in lines:
            axes.plot(list(times), list(times.values()), **colours(place), label=name)
        _loop_axis(axes, [loops for _, _, times in lines for loops in times])
        axes.set(ylabel="ms per token", ylim=(0, None))

    spoken = "; ".join(f"{n}: " + ", ".join(f"T={t} {ms:.2f} ms" for t, ms in times.items()) for _, n, times in lines)
    yield Plot(
        "Decode time against loops",
        f"Milliseconds for one more token {where}, medians of one run on {machine}. Another machine has other times.",
        f"Decode time. {spoken}",
        draw("decode", paint),
    )


def state_plots(subjects: Sequence[Subject]) -> Iterator[Plot]:
    """Change of the recurrent state by loop, and the artifact's error in it."""
    names, rows = letters(subjects), []
    for place, subject in enumerate(subjects):
        if subject.facts is not None:
            rows.append((place, "change", 2, "-", list(subject.facts.state_changes)))
        rows.append((place, "error", 1, "--", _last_errors(subject)))
    rows = [row for row in rows if _drawable(row[4])]
    if not rows:
        return

    def paint(axes: Any) -> None:
        for place, kind, first, line, values in rows:
            style = colours(place if len(subjects) > 1 else int(kind == "error"))
            name = names[place] or kind if len(subjects) == 1 or line == "-" else None
            axes.plot(range(first, first + len(values)), values, linestyle=line, **style, label=name)
        axes.set(yscale="log", xlabel="loop", ylabel="relative to the state's norm")

    spoken = [
        f"{names[place]} {kind} at loop {first} {values[0]:.2g}, at the last {values[-1]:.2g}".strip()
        for place, kind, first, _, values in rows
    ]
    yield Plot(
        "The state, loop by loop",
        "Solid: how much each loop still changes the recurrent state; where it falls, more loops change little. "
        "Dashed: the artifact's error in that state against PyTorch's.",
        "Relative state change and error. " + "; ".join(spoken),
        draw("states", paint),
    )


def cache_plots(subjects: Sequence[Subject]) -> Iterator[Plot]:
    """Bytes of keys and values, beside one fp32 slot for each loop."""
    first, names = subjects[0], letters(subjects)
    naive = first.naive_cache_bytes()

    def paint(axes: Any) -> None:
        values = [size / 1e6 for size in naive.values()]
        axes.plot(list(naive), values, ":", color=FAINT, label="one fp32 slot for each loop")
        for place, subject in enumerate(subjects):
            sizes, cache = subject.cache_bytes(), subject.manifest.kv
            name = names[place] or f"this artifact ({cache.policy}, {cache.dtype})"
            axes.plot(list(sizes), [size / 1e6 for size in sizes.values()], **colours(place), label=name)
        _loop_axis(axes, list(naive))
        axes.set(ylabel="MB", ylim=(0, None))

    spoken = "; ".join(f"{subject.manifest.artifact}: {_megabytes(subject.cache_bytes())}" for subject in subjects)
    of_first = "" if len(subjects) == 1 else f", with the shapes of {names[0]}"
    yield Plot(
        "Cache against loops",
        f"Keys and values of {first.manifest.kv.context:,} tokens, computed from the shapes; dotted: an export that "
        f"unrolls the loop{of_first}.",
        f"Cache bytes. {spoken}. One fp32 slot for each loop: {_megabytes(naive)}",
        draw("cache", paint),
    )


def _curves(subjects: Sequence[Subject], gate: str, key: str) -> list[Curve]:
    curves = []
    for place, subject in enumerate(subjects):
        rows = getattr(subject.manifest, gate).by_loops
        counts = sorted(int(count) for count, row in rows.items() if row.get(key) is not None)
        if counts:
            values = [rows[str(count)][key] for count in counts]
            errors = [2 * (rows[str(count)].get("kl_sem") or 0.0) for count in counts]
            curves.append(Curve(place, subject, counts, values, errors))
    return curves


def _loop_axis(axes: Any, counts: Sequence[int]) -> None:
    ticks = sorted(set(counts))
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xlabel("loops T")


def _spoken(curves: Sequence[Curve], form: str) -> str:
    lines = []
    for curve in curves:
        pairs = ", ".join(f"T={t} {value:{form}}" for t, value in zip(curve.loops, curve.values, strict=True))
        lines.append(f"{curve.subject.manifest.artifact}: {pairs}")
    return "; ".join(lines)


def _drawable(values: Sequence[float]) -> bool:
    """Whether a logarithmic axis can hold them: a model that overflows has none."""
    return bool(values) and all(math.isfinite(value) for value in values) and max(values) > 0


def _last_errors(subject: Subject) -> list[float]:
    """Per-loop state errors at the greatest T that was judged."""
    rows = subject.manifest.lowering.by_loops
    if not rows:
        return []
    errors = rows[max(rows, key=int)].get("state_errors") or []
    return [math.inf if error is None else float(error) for error in errors]


def _megabytes(sizes: dict[int, int]) -> str:
    return ", ".join(f"T={loops} {size / 1e6:.1f} MB" for loops, size in sizes.items())
