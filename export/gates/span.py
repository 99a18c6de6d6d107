"""Which loop counts of an artifact may run: those that passed, next to each other, around the one that it is made for.

    span = open_span((1, 2, 4, 8, 16), {1: ["KL 0.019 nats is above 0.013"]}, needed={4})
    span.least, span.most, span.closed                     # 2, 16, {1: "KL 0.019 ..."}

A count that costs too much is closed, and the artifact is published without it. The trained count and those that were
asked for by number are needed: where one of them fails, the artifact fails. No order is assumed, so beyond a count that
failed nothing is open, whatever passed there. Between two judged counts that are open all are.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Span:
    """The open range, why judged counts outside of it are closed, and what is wrong with needed ones."""

    least: int
    most: int
    closed: dict[int, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def loops(self) -> range:
        """The open counts."""
        return range(self.least, self.most + 1)


def open_span(judged: Sequence[int], failures: Mapping[int, Sequence[str]], needed: Collection[int]) -> Span:
    """The largest range of `judged` counts without `failures` that holds those that are `needed`.

    Where a needed count fails (or one between two of them) nothing is closed: such an artifact is not published.
    """
    counts = sorted(judged)
    failing = [count for count in counts if failures.get(count)]
    fatal = [count for count in failing if min(needed) <= count <= max(needed)]
    if fatal:
        others = [count for count in failing if count not in fatal]
        problems = [f"T={count}: {line}" for count in (*fatal, *others) for line in failures[count]]
        return Span(counts[0], counts[-1], problems=problems)
    below = max((count for count in failing if count < min(needed)), default=0)
    above = min((count for count in failing if count > max(needed)), default=counts[-1] + 1)
    span = [count for count in counts if below < count < above]
    closed = {}
    for count in counts:
        if count not in span:
            beyond = f"beyond T={below if count < below else above}, which failed"
            closed[count] = "; ".join(failures.get(count) or [beyond])
    return Span(span[0], span[-1], closed)
