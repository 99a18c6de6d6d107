"""What the command's modules share: the Typer application, consoles, common options, JSON and progress."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console

from parcae_mobile.errors import UsageError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Turn a Parcae looped language model into verified artifacts for phones.",
)
out = Console(width=None if sys.stdout.isatty() else 120)
err = Console(stderr=True)

Model = Annotated[str | None, typer.Option("--model", help="Folder, hub id, or a shape with --random-weights.")]
Tokenizer = Annotated[str | None, typer.Option("--tokenizer", help="File, folder or hub id; default the model's.")]
Checkpoint = Annotated[
    str | None, typer.Option("--checkpoint", help="One of a training run's: file, name or step; default the newest.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Threads = Annotated[int, typer.Option("--threads", help="Threads of torch and of the runtime; 0: the default.")]


def set_threads(threads: int) -> None:
    """Apply `--threads` to torch; 0 changes nothing."""
    if threads < 0:
        raise UsageError(f"--threads {threads}: give 0 for the default, or 1 or more")
    if threads:
        import torch

        torch.set_num_threads(threads)


def print_json(value: dict[str, Any]) -> None:
    """One JSON object on standard output."""
    sys.stdout.write(json.dumps(value, indent=1, allow_nan=False, default=str) + "\n")


@contextmanager
def progress_line(quiet: bool) -> Iterator[Callable[[str], None]]:
    """A spinner with the present step on standard error, or nothing."""
    if quiet:
        yield lambda line: None
        return
    with err.status("starting") as status:
        yield lambda line: status.update(line)
