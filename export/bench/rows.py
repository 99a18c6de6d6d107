"""The table that `bench` keeps: its schema, how several runs go into one file, and what is derived from a row.

    table = read_table(path)                               # an empty one where there is no file
    table.merge(measured); write_table(table, path)

A row is one model at one loop count and context. Times of two runs are not compared: machines drift by tens of percent.
So a row keeps its times by run, and a ratio is taken within a run that measured both of its rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from export.bench.runners import BASELINES
from parcae_mobile.atomic import write_text
from parcae_mobile.errors import InputError
from parcae_mobile.given_file import read_text


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Speed(_Part):
    """Times in milliseconds: medians, and for decoding the quartiles of single steps, taken in run `run`."""

    run: int = Field(ge=1)
    first_token_ms: float = Field(gt=0)
    decode_ms: float = Field(gt=0)
    decode_quartiles_ms: tuple[float, float]
    steps: int = Field(gt=0)

    @property
    def tokens_per_second(self) -> float:
        return 1e3 / self.decode_ms


class Memory(_Part):
    """Resident bytes of a process that ran this model alone: a prompt of the row's context, then `tokens` tokens."""

    tokens: int = Field(ge=0)
    libraries: int = Field(ge=0)
    loaded: int = Field(ge=0)
    prompted: int = Field(ge=0)
    end: int = Field(ge=0)
    peak: int = Field(ge=0)
    load_seconds: float = Field(ge=0)


class Variant(_Part):
    """What a row is about. Baselines have kinds of their own.

    `room` is the context that an artifact was exported for, in tokens, where its caches are that long from the start.
    """

    kind: Literal["artifact", "naive-onnx", "genai-llama", "llama-cpp", "naive-executorch"]
    model: str
    target: str
    loop_form: str
    quant: str
    compute: str
    kv_policy: str
    kv_dtype: str
    portable: bool = False
    room: int | None = None
    loops: int = Field(ge=1)

    @property
    def label(self) -> str:
        """A short name for tables."""
        if self.kind != "artifact":
            return self.kind
        form = f"{self.loop_form}{' portable' * self.portable}"
        room = "" if self.room is None else f" of {self.room}"
        return f"{self.target} {form} {self.quant} {self.kv_policy}/{self.kv_dtype}{room}"


class Row(_Part):
    """One variant at one context, in tokens. `weight_bytes` is the weights' file, `model_bytes` all files."""

    variant: Variant
    context: int = Field(ge=1)
    threads: int = Field(ge=1)
    weight_bytes: int = Field(ge=0)
    model_bytes: int = Field(ge=0)
    cache_bytes: int = Field(ge=0)
    touched_bytes: int | None = None
    speeds: tuple[Speed, ...] = ()
    memory: Memory | None = None

    @property
    def key(self) -> tuple[Variant, int, int]:
        return self.variant, self.context, self.threads

    @property
    def label(self) -> str:
        """The variant's, and how many threads if there is more than one."""
        return self.variant.label + f", {self.threads} threads" * (self.threads > 1)

    @property
    def speed(self) -> Speed | None:
        """The times of the last run that measured them."""
        return self.speeds[-1] if self.speeds else None

    def beside(self, other: Row) -> list[tuple[Speed, Speed]]:
        """The times of this row and of another in every run that measured both, in the runs' order."""
        theirs = {speed.run: speed for speed in other.speeds}
        return [(mine, theirs[mine.run]) for mine in self.speeds if mine.run in theirs]

    def roofline_ms(self, bandwidth: float) -> float | None:
        """The least time in which one token's bytes can be read at `bandwidth` bytes per second."""
        return None if self.touched_bytes is None else self.touched_bytes / bandwidth * 1e3


class Run(_Part):
    """One process in which times were taken. `bandwidth` is in bytes per second, one thread."""

    processor: str
    cores: int
    bandwidth: float = Field(gt=0)
    rounds: int
    tools: dict[str, str]


class Table(BaseModel):
    """All rows, and the runs that their times come from."""

    model_config = ConfigDict(extra="forbid")
    format: Literal[1] = 1
    runs: dict[int, Run] = {}
    rows: list[Row] = []

    @model_validator(mode="after")
    def _fits(self) -> Table:
        keys = [row.key for row in self.rows]
        if len(set(keys)) < len(keys):
            raise ValueError("two rows of one variant, context and threads")
        if not {speed.run for row in self.rows for speed in row.speeds} <= set(self.runs):
            raise ValueError("times of a run that is not there")
        return self

    def add_run(self, run: Run) -> int:
        """Keep a run; returns its number."""
        number = max(self.runs, default=0) + 1
        self.runs[number] = run
        return number

    def merge(self, rows: Iterable[Row]) -> None:
        """Take rows in: what they measured is added or replaces what was there, what they did not measure stays.

        A run of which the new ones measured every row again is forgotten.
        """
        by_key = {row.key: row for row in self.rows}
        for row in rows:
            old = by_key.get(row.key)
            if old is not None:
                speeds = {speed.run: speed for speed in (*old.speeds, *row.speeds)}
                in_order = tuple(speeds[run] for run in sorted(speeds))
                row = row.model_copy(update={"speeds": in_order, "memory": row.memory or old.memory})
            by_key[row.key] = row
        measured: dict[int, set[Any]] = {}
        for row in by_key.values():
            for speed in row.speeds:
                measured.setdefault(speed.run, set()).add(row.key)
        runs = {a for a, keys in measured.items() if not any(b > a and keys <= more for b, more in measured.items())}
        order = {kind: place for place, kind in enumerate(("artifact", *BASELINES))}
        self.rows = sorted(
            (
                row.model_copy(update={"speeds": tuple(speed for speed in row.speeds if speed.run in runs)})
                for row in by_key.values()
            ),
            key=lambda row: (order[row.variant.kind], row.variant.label, row.context, row.variant.loops, row.threads),
        )
        self.runs = {number: run for number, run in sorted(self.runs.items()) if number in runs}

    def others(self, row: Row, **fields: object) -> Iterator[Row]:
        """Rows at the same context and threads whose variants have these fields."""
        for other in self.rows:
            if (other.context, other.threads) == (row.context, row.threads) and matches(other, fields):
                yield other


def matches(row: Row, fields: dict[str, object]) -> bool:
    """Whether a row's variant has all of these values; `threads` are the row's own."""
    return all(getattr(row if name == "threads" else row.variant, name) == value for name, value in fields.items())


def read_table(path: Path) -> Table:
    """A table from its JSON file, an empty one where there is none. Raises `InputError` for what is no such table."""
    if not path.exists():
        return Table()
    text = read_text(path, InputError)
    try:
        return Table.model_validate_json(text)
    except ValidationError as error:
        raise InputError(f"{path}: no table of this version's bench ({_first(error)}); name another file") from None


def write_table(table: Table, path: Path) -> None:
    """JSON with one line for each row and run: readable, and small in a diff."""
    runs = ",\n  ".join(f'"{number}": {run.model_dump_json()}' for number, run in table.runs.items())
    rows = ",\n  ".join(row.model_dump_json(exclude_none=True) for row in table.rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, f'{{\n "format": {table.format},\n "runs": {{\n  {runs}\n }},\n "rows": [\n  {rows}\n ]\n}}\n')


def _first(error: ValidationError) -> str:
    problem = error.errors()[0]
    return f"{'.'.join(map(str, problem['loc'])) or 'file'}: {problem['msg']}"[:300]
