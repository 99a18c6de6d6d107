"""The page's pictures: what each shows, in a drawing, in a sentence, and in words to be read aloud.

for plot in plots([subject]): page.append(plot.svg)    # the same facts give the same bytes
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from export.report.page.drawing import FAINT, MARKERS, SERIES, draw
from export.report.page.subject import Subject


@dataclass(frozen=True)
class Plot:
    """A picture with its heading, what it shows in one sentence, and the text read aloud in its place."""

    title: str
    caption: str
    alternative: str
    svg: str


def plots(subjects: Sequence[Subject]) -> list[Plot]:
    """Every picture that the facts of the subjects allow."""
    makers = (_kl, _perplexity, _states, _bytes, _sensitivity, _poles, _cache)
    return [plot for maker in makers for plot in maker(subjects)]


def _label(subject: Subject, alone: bool) -> str:
    return "" if alone else subject.manifest.artifact


def _curves(
    subjects: Sequence[Subject], gate: str, key: str
) -> list[tuple[Subject, list[int], list[float], list[float]]]:
    """(subject, T, value, twice the standard error) where a gate measured a key at more than one place."""
    curves = []
    for subject in subjects:
        rows = getattr(subject.manifest, gate).by_loops
        counts = sorted((int(count) for count, row in rows.items() if row.get(key) is not None))
        if counts:
            values = [rows[str(count)][key] for count in counts]
            errors = [2 * (rows[str(count)].get("kl_sem") or 0.0) for count in counts]
            curves.append((subject, counts, values, errors))
    return curves


def _loop_axis(axes: Any, counts: Sequence[int]) -> None:
    ticks = sorted(set(counts))
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xlabel("loops T")


def _spoken(curves: Sequence[tuple[Subject, list[int], list[float], list[float]]], form: str) -> str:
    lines = []
    for subject, ts, values, _ in curves:
        pairs = ", ".join(f"T={t} {value:{form}}" for t, value in zip(ts, values, strict=True))
        lines.append(f"{subject.manifest.artifact}: {pairs}")
    return "; ".join(lines)


def _kl(subjects: Sequence[Subject]) -> Iterator[Plot]:
    compression, lowering = (_curves(subjects, gate, "kl_mean") for gate in ("compression", "lowering"))
    shown = [(curve, "quantizing", "-") for curve in compression] + [(curve, "the target", "--") for curve in lowering]
    shown = [(curve, what, line) for curve, what, line in shown if min(curve[2]) > 0 and _drawable(curve[2])]
    if not shown:
        return

    def paint(axes: Any) -> None:
        for place, ((subject, ts, values, errors), what, line) in enumerate(shown):
            name = f"{what} {_label(subject, len(subjects) == 1)}".strip()
            colour, marker = SERIES[place % len(SERIES)], MARKERS[place % len(MARKERS)]
            axes.errorbar(ts, values, errors, color=colour, marker=marker, linestyle=line, capsize=3, label=name)
        _loop_axis(axes, [t for (_, ts, _, _), _, _ in shown for t in ts])
        axes.set(yscale="log", ylabel="mean KL (nats)")

    yield Plot(
        "Distance against loops",
        "How far next-token probabilities move, by quantizing (against fp32) and by the target (against eager PyTorch "
        "with the same weights). Bars are two standard errors; lower is better.",
        "Mean KL in nats. " + _spoken([curve for curve, _, _ in shown], ".2g"),
        draw("kl", paint),
    )


def _perplexity(subjects: Sequence[Subject]) -> Iterator[Plot]:
    curves = _curves(subjects, "compression", "perplexity_ratio")
    if not curves:
        return

    def paint(axes: Any) -> None:
        for place, (subject, ts, values, _) in enumerate(curves):
            colour, marker = SERIES[place % len(SERIES)], MARKERS[place % len(MARKERS)]
            label = _label(subject, len(subjects) == 1) or None
            axes.plot(ts, [100 * (value - 1) for value in values], color=colour, marker=marker, label=label)
        _loop_axis(axes, [t for _, ts, _, _ in curves for t in ts])
        axes.axhline(0, color=FAINT, linewidth=0.8)
        axes.set_ylabel("perplexity above fp32 (%)")

    yield Plot(
        "Perplexity against loops",
        "Perplexity on held-out text, in percent above the fp32 model at the same T; lower is better.",
        "Perplexity ratio to fp32. " + _spoken(curves, ".4f"),
        draw("perplexity", paint),
    )


def _states(subjects: Sequence[Subject]) -> Iterator[Plot]:
    changes = [(subject, list(subject.facts.state_changes)) for subject in subjects if subject.facts is not None]
    errors = [(subject, _last_errors(subject)) for subject in subjects]
    changes, errors = ([row for row in rows if _drawable(row[1])] for rows in (changes, errors))
    if not changes and not errors:
        return
    alone = len(subjects) == 1

    def paint(axes: Any) -> None:
        place = 0
        for kind, rows, first, line in (("change", changes, 2, "-"), ("error of the artifact", errors, 1, "--")):
            for subject, values in rows:
                colour, marker = SERIES[place % len(SERIES)], MARKERS[place % len(MARKERS)]
                name = f"{kind} {_label(subject, alone)}".strip()
                axes.plot(range(first, first + len(values)), values, line, color=colour, marker=marker, label=name)
                place += 1
        axes.set(yscale="log", xlabel="loop", ylabel="relative to the state's norm")

    spoken = [f"change at loop 2 {values[0]:.2g}, at the last {values[-1]:.2g}" for _, values in changes]
    spoken += [f"error after the last loop {values[-1]:.2g}" for _, values in errors]
    yield Plot(
        "The state, loop by loop",
        "How much each loop still changes the recurrent state, and how far the artifact's state is from eager "
        "PyTorch's. A falling line settles; more loops then change little.",
        "Relative state change and error. " + "; ".join(spoken),
        draw("states", paint),
    )


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


def _bytes(subjects: Sequence[Subject]) -> Iterator[Plot]:
    for number, subject in enumerate(subjects):
        if subject.facts is None:
            continue
        sizes = {name: pair for name, pair in subject.facts.bytes_by_component.items() if pair[0]}

        def paint(axes: Any, sizes: dict[str, tuple[int, int]] = sizes) -> None:
            names = list(sizes)[::-1]
            rows = range(len(names))
            before, after = ([sizes[name][side] / 1e6 for name in names] for side in (0, 1))
            axes.barh([row + 0.2 for row in rows], before, 0.38, color=FAINT, label="fp32")
            axes.barh([row - 0.2 for row in rows], after, 0.38, color=SERIES[0], label="in the artifact")
            axes.set_yticks(list(rows), names)
            axes.set_xlabel("MB")

        before, after = (sum(pair[side] for pair in sizes.values()) for side in (0, 1))
        spoken = ", ".join(f"{name} {b / 1e6:.2f} to {a / 1e6:.2f} MB" for name, (b, a) in sizes.items())
        yield Plot(
            "Where the bytes are",
            f"Weights by part of the model: {before / 1e6:.1f} MB in fp32, {after / 1e6:.1f} MB under the recipe. "
            "The recurrent block counts once, whatever T is.",
            "Bytes before and after. " + spoken,
            draw(f"bytes{number}", paint, 3.6),
        )


def _sensitivity(subjects: Sequence[Subject]) -> Iterator[Plot]:
    for number, subject in enumerate(subjects):
        if subject.facts is None or not subject.facts.sensitivity:
            continue
        costs = dict(sorted(subject.facts.sensitivity.items(), key=lambda item: item[1]))

        def paint(axes: Any, costs: dict[str, float] = costs) -> None:
            axes.barh(list(costs), list(costs.values()), color=SERIES[0])
            axes.set_xlabel("mean KL (nats)")

        yield Plot(
            "What each part would cost at 4 bits",
            "One part alone rounded to int4 in groups of 32, everything else fp32, at "
            f"T={subject.facts.sensitivity_loops}: where a recipe should spend its bits.",
            "Mean KL by part. " + ", ".join(f"{name} {cost:.2g}" for name, cost in costs.items()),
            draw(f"sensitivity{number}", paint, 3.2),
        )


def _poles(subjects: Sequence[Subject]) -> Iterator[Plot]:
    for number, subject in enumerate(subjects):
        if subject.facts is None or not subject.facts.decays:
            continue
        decays = sorted(subject.facts.decays)

        def paint(axes: Any, decays: list[float] = decays) -> None:
            axes.hist(decays, bins=32, range=(0, 1), color=SERIES[0])
            axes.axvline(1, color=SERIES[1], linestyle="--", label="1: no contraction beyond here")
            axes.set(xlim=(0, 1.05), xlabel="decay", ylabel="channels")
            axes.margins(y=0.25)

        yield Plot(
            "Injection poles",
            "The decay of every channel, re-read from the finished file. All lie below 1, so the linear injection "
            "contracts; the non-linear loop around it is measured, not proven.",
            f"{len(decays)} decays from {decays[0]:.4f} to {decays[-1]:.4f}, median {decays[len(decays) // 2]:.4f}",
            draw(f"poles{number}", paint),
        )


def _cache(subjects: Sequence[Subject]) -> Iterator[Plot]:
    first = subjects[0]
    naive = first.naive_cache_bytes()
    alone = len(subjects) == 1

    def paint(axes: Any) -> None:
        axes.plot(
            list(naive), [size / 1e6 for size in naive.values()], ":", color=FAINT, label="one fp32 slot for each loop"
        )
        for place, subject in enumerate(subjects):
            sizes = subject.cache_bytes()
            colour, marker = SERIES[place % len(SERIES)], MARKERS[place % len(MARKERS)]
            cache = subject.manifest.kv
            name = _label(subject, alone) or f"this artifact ({cache.policy}, {cache.dtype})"
            axes.plot(list(sizes), [size / 1e6 for size in sizes.values()], color=colour, marker=marker, label=name)
        _loop_axis(axes, list(naive))
        axes.set(ylabel="MB", ylim=(0, None))

    spoken = "; ".join(f"{subject.manifest.artifact}: {_megabytes(subject.cache_bytes())}" for subject in subjects)
    yield Plot(
        "Cache against loops",
        f"Keys and values of {first.manifest.kv.context} tokens, computed from the shapes; beside it what an export "
        "that unrolls the loop holds.",
        f"Cache bytes. {spoken}. One fp32 slot for each loop: {_megabytes(naive)}",
        draw("cache", paint),
    )


def _megabytes(sizes: dict[int, int]) -> str:
    return ", ".join(f"T={loops} {size / 1e6:.1f} MB" for loops, size in sizes.items())
