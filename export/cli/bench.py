"""The subcommand bench: size, memory and speed, against what a user would run instead."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from export.bench.request import BenchRequest, check_request
from export.cli.app import Json, app, options_of, out, print_json, progress_line, set_threads
from parcae_mobile.errors import UsageError

if TYPE_CHECKING:
    from export.bench.rows import Table
    from export.job import Progress

TABLE = "bench.json"


@app.command()
@options_of(BenchRequest)
def bench(
    artifacts: Annotated[list[Path] | None, typer.Argument(help="Artifact folders; none: made from --model.")] = None,
    *,
    table_file: Annotated[Path | None, typer.Option("--table", help="The kept table; default bench.json.")] = None,
    show: Annotated[bool, typer.Option(help="Measure nothing, show the kept table.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw the table: SVG or PNG.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the table as Markdown.")] = None,
    as_json: Json = False,
    **options: Any,
) -> None:
    """Measure artifacts side by side and merge the figures into a kept table."""
    from export.bench.rows import read_table, write_table

    request = BenchRequest(**options)
    check_request(request)
    path = table_file or request.out / TABLE
    if plot is not None and plot.suffix not in (".svg", ".png"):
        raise UsageError(f"--plot {plot}: give a name that ends in .svg or .png")
    table = read_table(path)
    if show and not table.rows:
        raise UsageError(f"--show: there is no table at {path}; measure first, or name one by --table")
    if not show:
        set_threads(max(request.threads))
        with progress_line(as_json) as progress:
            _measure(request, artifacts or [], table, progress)
        write_table(table, path)
    _report(table, plot, markdown, as_json)


def _measure(request: BenchRequest, artifacts: list[Path], table: Table, progress: Progress) -> None:
    """Make what is to be compared where it is not there yet, and measure it into the table."""
    from export.bench.run import run_bench, subjects_of
    from export.bench.subjects import check_names, make_artifacts, make_baselines
    from export.source import open_source

    check_names(request)
    source = open_source(request.model, None, request.random_weights) if not artifacts or request.baseline else None
    folders = list(artifacts)
    if source is not None and not folders:
        folders = make_artifacts(request, source, progress)
    subjects = list(dict.fromkeys(subject for folder in folders for subject in subjects_of(folder, request.loops)))
    if source is not None and request.baseline:
        strangers = {subject.variant.model for subject in subjects} - {source.name}
        if strangers:
            raise UsageError(
                f"--baseline is built from --model, here {source.name}, but an artifact is of "
                f"{strangers.pop()}; give the same --model"
            )
        subjects += make_baselines(
            source, request.baseline, request.baseline_loops, request.context, request.baselines_folder, progress
        )
    del source
    run_bench(subjects, request, table, progress)


def _report(table: Table, plot: Path | None, markdown: Path | None, as_json: bool) -> None:
    """The table as it was asked for: drawn, as Markdown, and printed or as JSON."""
    from export.bench.table import markdown as as_markdown
    from export.bench.table import print_table

    if plot is not None:
        from export.bench.plot import plot_table

        plot_table(table, plot)
    if markdown is not None:
        from parcae_mobile.atomic import write_text

        markdown.parent.mkdir(parents=True, exist_ok=True)
        write_text(markdown, as_markdown(table))
    if as_json:
        print_json(table.model_dump(mode="json"))
    else:
        print_table(out, table)
