"""What the command's modules share: the Typer application, consoles, common options, JSON and progress."""

from __future__ import annotations

import inspect
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args, get_type_hints

import typer
from rich.console import Console
from rich.progress import Progress as ProgressBar
from rich.progress import ProgressColumn, SpinnerColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

from export.cli.supervise import set_stage
from export.request import CHECKPOINT_HELP, MODEL_HELP, THREADS_HELP, TOKENIZER_HELP
from parcae_mobile.errors import UsageError

if TYPE_CHECKING:
    from export.job import Progress

app = typer.Typer(
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Turn a Parcae looped language model into verified artifacts for phones.",
)
# What is printed are names and paths of the user's: square brackets and colons in them are text.
_PLAIN: dict[str, Any] = {"markup": False, "emoji": False}
if sys.stdout is None:  # closed by the caller: there is nowhere to print to, and that is no error
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
if sys.stderr is None:
    sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
out = Console(width=None if sys.stdout.isatty() else 120, **_PLAIN)
err = Console(stderr=True, **_PLAIN)
MOST_THREADS = 256

Model = Annotated[str | None, typer.Option("--model", help=MODEL_HELP)]
Tokenizer = Annotated[str | None, typer.Option("--tokenizer", help=TOKENIZER_HELP)]
Checkpoint = Annotated[str | None, typer.Option("--checkpoint", help=CHECKPOINT_HELP)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Threads = Annotated[int, typer.Option("--threads", help=THREADS_HELP, min=0, max=MOST_THREADS)]
Command = TypeVar("Command", bound=Callable[..., None])


def options_of(record: type) -> Callable[[Command], Command]:
    """Give a command an option for each field of a dataclass, in the place of its `**options`.

    A field is `Annotated[type, Doc(help)]`; its name and default are the option's. So an option is spelled once, and
    `record(**options)` is what was asked for.
    """
    derived = []
    hints = get_type_hints(record, include_extras=True)
    for field in fields(record):
        kind, doc = get_args(hints[field.name])
        default = field.default if field.default_factory is MISSING else field.default_factory()
        option = Annotated[kind, typer.Option(help=doc.documentation)]  # type: ignore[valid-type]
        derived.append(
            inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=option)
        )

    def decorate(command: Command) -> Command:
        own = list(inspect.signature(command, eval_str=True).parameters.values())
        first = [parameter for parameter in own if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
        last = [parameter for parameter in own if parameter.kind is parameter.KEYWORD_ONLY]
        command.__signature__ = inspect.Signature([*first, *derived, *last])  # type: ignore[attr-defined]
        return command

    return decorate


def set_threads(threads: int) -> None:
    """Apply `--threads` to torch; 0 changes nothing."""
    if not 0 <= threads <= MOST_THREADS:
        raise UsageError(f"--threads {threads}: give 0 for the default, or 1 to {MOST_THREADS}")
    if threads:
        import torch

        torch.set_num_threads(threads)


def print_json(value: dict[str, Any]) -> None:
    """One JSON object on standard output; a figure that is not finite is null."""
    sys.stdout.write(json.dumps(_finite(value), indent=1, allow_nan=False, default=str) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def text_of(argument: str, option: str) -> str:
    """A text from the command line. Raises `UsageError` for bytes that are no UTF-8, whatever the locale is."""
    try:
        return os.fsencode(argument).decode("utf-8")
    except UnicodeError:
        raise UsageError(f"{option}: not UTF-8; give the text in that encoding") from None


class _Left(ProgressColumn):
    """How many of how many, and how long the rest may take, where a step is counted."""

    def render(self, task: Task) -> Text:
        if not task.total:
            return Text()
        seconds = task.time_remaining
        left = "" if seconds is None else f", about {seconds:.0f} s left"
        return Text(f"{task.completed:.0f}/{task.total:.0f}{left}")


@contextmanager
def progress_line(quiet: bool) -> Iterator[Progress]:
    """The present step on standard error, how far it is and for how long it has run; nothing where nobody looks.

    Where a crash is reported, the step is named.
    """
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), _Left(), TimeElapsedColumn())
    with ProgressBar(*columns, console=err, transient=True, disable=quiet or not err.is_terminal) as bar:
        task = bar.add_task("starting", total=None)
        kind = ""

        def show(step: str, done: int = 0, total: int = 0) -> None:
            nonlocal kind
            set_stage(step)
            name = step.split(":")[0]
            if name != kind:  # a new stage has a clock of its own
                bar.reset(task, total=total or None)
                kind = name
            bar.update(task, description=step, completed=done, total=total or None)

        yield show
