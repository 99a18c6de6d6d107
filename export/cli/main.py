"""The command `parcae-export`. Without a subcommand it exports; see `parcae-export --help`.

Exit codes: 0 done, 2 usage (or an output that exists), 3 bad input, 4 a gate failed, 5 a tool is missing.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Annotated, Any

import typer

from export.cli import artifacts, bench, bundle, cache, loops, models, pages
from export.cli.app import Json, app, err, options_of, out, print_json, progress_line, set_threads
from export.cli.supervise import set_stage, supervise
from export.request import ExportRequest
from parcae_mobile.errors import GateError, ParcaeError, ToolCrashedError

if TYPE_CHECKING:
    from export.pipeline import ExportResult
    from export.resources import Needs

SUBCOMMANDS = (artifacts, bench, bundle, cache, loops, models, pages)  # importing them registers their commands


@app.callback(invoke_without_command=True)
@options_of(ExportRequest)
def export(
    invocation: typer.Context,
    *,
    as_json: Json = False,
    quiet: Annotated[bool, typer.Option(help="No progress, no report.")] = False,
    details: Annotated[bool, typer.Option(help="Every figure of every check, in tables.")] = False,
    debug: Annotated[bool, typer.Option(help="Show tracebacks.")] = False,
    **options: Any,
) -> None:
    """Export a model, verify the artifact, publish it."""
    if invocation.invoked_subcommand is not None:
        return
    from export.pipeline import run_export

    request = ExportRequest(**options)
    set_threads(request.threads)
    with progress_line(quiet or as_json) as progress:
        results = run_export(request, progress, (lambda needs: None) if quiet or as_json else _announce)
    if as_json:
        print_json({"artifacts": [result.to_json() for result in results]})
    elif not quiet:
        _print(results, details)
    failed = [result for result in results if not result.passed]
    if failed:
        raise GateError(f"{failed[0].path.name}: {failed[0].problems[0]}; see {failed[0].path}")


def _announce(needs: Needs) -> None:
    """What an export needs, where it is more than a glance at the clock."""
    from export.resources import MINUTE, available_memory

    if needs.seconds > MINUTE:
        err.print(f"needs {needs.said(available_memory())}", soft_wrap=True)


def _print(results: list[ExportResult], details: bool) -> None:
    from export.report.outcome import print_outcome
    from export.report.terminal import print_artifact, print_memory

    for note in results[0].notes if results else []:
        out.print(f"note: {note}", soft_wrap=True)
    for result in results:
        if not details:
            print_outcome(out, result.path, result.manifest, result.problems)
            continue
        print_artifact(out, str(result.path), result.manifest, result.problems)
        print_memory(out, result.memory)
        spent = ", ".join(f"{name} {seconds:.1f}" for name, seconds in result.seconds.items())
        out.print(f"  seconds: {spent}")


def main() -> None:
    """Entry point: the command in a child process, so that native code that dies ends in one line too."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: its threads sleep where others need the cores
    try:
        code = supervise(_exit_code)
    except ToolCrashedError as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        code = error.exit_code
    sys.exit(code)


def _exit_code() -> int:
    try:
        command()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0


def command() -> None:
    """Run the command in this process: one line and an exit code for every error of ours, and for unknown options."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a character that the terminal's encoding lacks is escaped
            stream.reconfigure(errors="backslashreplace")
    set_stage(next((word for word in sys.argv[1:] if not word.startswith("-")), "export"))
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):  # what is half-written goes away, as after Ctrl-C
            signal.signal(number, lambda received, _: sys.exit(128 + received))
    try:
        sys.exit(app(prog_name="parcae-export", standalone_mode=False) or 0)
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        command = "parcae-export" if context is None else context.command_path
        message = " ".join(error.format_message().split()).rstrip(".")
        sys.stderr.write(f"error: {message}; see {command} --help\n")
        sys.exit(error.exit_code)
    except ParcaeError as error:
        if "--debug" in sys.argv:
            traceback.print_exc()
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        os._exit(1)


if __name__ == "__main__":
    main()
