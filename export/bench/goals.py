"""What was measured against what was meant to be reached: `goals.toml`, one outcome for each row that it names.

    for outcome in judge(table, load_goals()): print(outcome.name, outcome.values, outcome.bound, outcome.held)

Goals are data because they are of one shape and machine. They are printed with every table and never tested: a suite
that fails when a machine is busy teaches people to ignore it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from export.bench.rows import Row, Table, Variant, matches
from parcae_mobile.errors import InputError

SPEEDS = ("decode_ms", "first_token_ms")
MEMORIES = ("loaded", "prompted", "end", "peak")
MEGA = 1e6


class Goal(BaseModel):
    """One entry of the file; see its head."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    model: str
    metric: Literal[
        "decode_ms", "first_token_ms", "loaded", "prompted", "end", "peak", "weight_bytes", "model_bytes", "cache_bytes"
    ]
    how: Literal["value", "ratio", "speedup", "difference"] = "value"
    row: dict[str, str | int]
    against: dict[str, str | int] = {}
    context: list[int]
    at_least: list[float] | None = None
    at_most: list[float] | None = None

    @model_validator(mode="after")
    def _fits(self) -> Goal:
        unknown = (set(self.row) | set(self.against)) - set(Variant.model_fields) - {"context", "threads"}
        if unknown or "context" in self.row:
            raise ValueError(f"no variant has {', '.join(sorted(unknown)) or 'a context; give it as `context`'}")
        if (self.how == "value") == bool(self.against):
            raise ValueError("`against` goes with ratio, speedup and difference")
        if self.at_least is not None and self.at_most is not None:
            raise ValueError("give at_least or at_most")
        bounds = self.at_least if self.at_least is not None else self.at_most
        if bounds is not None and len(bounds) != len(self.context):
            raise ValueError("needs one bound for each context")
        return self


@dataclass(frozen=True)
class Outcome:
    """A goal at one row: a value for each run that measured it, one where it needs no run.

    `bound` is None where figures are only shown; `at_least` says which side of it is good.
    """

    name: str
    row: Row
    values: tuple[float, ...]
    bound: float | None
    at_least: bool

    @property
    def held(self) -> list[bool]:
        """Whether each value is on the good side; nothing where there is no bound."""
        if self.bound is None:
            return []
        return [value >= self.bound if self.at_least else value <= self.bound for value in self.values]


def load_goals(path: Path | None = None) -> list[Goal]:
    """The package's goals, or those of a file. Raises `InputError` that names what is wrong."""
    source = path if path is not None else resources.files("export.bench").joinpath("goals.toml")
    try:
        content = tomllib.loads(source.read_text(encoding="utf-8"))
        entries = [{"model": content.get("model"), **entry} for entry in content.get("goal", [])]
        return [Goal.model_validate(entry) for entry in entries]
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{source}: not readable as TOML ({error})") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{source}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def judge(table: Table, goals: list[Goal]) -> list[Outcome]:
    """An outcome for each goal, context and row that was measured; what was not is left out."""
    return [outcome for goal in goals for outcome in _judge(table, goal)]


def not_measured(table: Table, goals: list[Goal]) -> list[str]:
    """Names of goals that no row speaks of."""
    spoken = {outcome.name for outcome in judge(table, goals)}
    return [goal.name for goal in goals if goal.name not in spoken]


def _judge(table: Table, goal: Goal) -> Iterator[Outcome]:
    for place, context in enumerate(goal.context):
        for row in table.rows:
            if row.context != context or not matches(row, {"model": goal.model, "threads": 1, **goal.row}):
                continue
            values = _values(table, goal, row)
            if values:
                bounds = goal.at_least if goal.at_least is not None else goal.at_most
                bound = None if bounds is None else bounds[place]
                yield Outcome(goal.name, row, values, bound, goal.at_least is not None)


def _values(table: Table, goal: Goal, row: Row) -> tuple[float, ...]:
    """The figure that the goal asks for, by run where times are compared; none if it was not measured."""
    if goal.how == "value":
        figure = metric(row, goal.metric)
        return () if figure is None else (figure,)
    wanted: dict[str, Any] = {"model": goal.model, **goal.against}
    place = {name: wanted.pop(name, getattr(row, name)) for name in ("context", "threads")}
    if wanted.get("kind", "artifact") == "artifact":
        wanted = row.variant.model_dump() | wanted
    if goal.against.get("target", row.variant.target) != row.variant.target:
        for own in ("compute", "room"):  # each target has its own
            wanted.pop(own, None)
    for other in table.others(row.model_copy(update=place), **wanted):
        if goal.metric in SPEEDS:
            pairs = [(getattr(a, goal.metric), getattr(b, goal.metric)) for a, b in row.beside(other)]
        else:
            mine, theirs = metric(row, goal.metric), metric(other, goal.metric)
            pairs = [] if mine is None or theirs is None else [(mine, theirs)]
        if pairs:
            return tuple(_compare(goal.how, *pair) for pair in pairs)
    return ()


def _compare(how: str, mine: float, theirs: float) -> float:
    return {"ratio": mine / theirs, "speedup": theirs / mine, "difference": mine - theirs}[how]


def metric(row: Row, name: str) -> float | None:
    """A figure of a row: milliseconds, or MB; None if it was not measured."""
    if name in SPEEDS:
        return None if row.speed is None else float(getattr(row.speed, name))
    part: Any = row.memory if name in MEMORIES else row
    return None if part is None else float(getattr(part, name)) / MEGA
