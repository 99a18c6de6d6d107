"""The subcommand bench: size, memory and speed, against what a user would run instead."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from export.cli.app import Json, Model, Threads, app, out, print_json, progress_line, set_threads
from parcae_mobile.errors import UsageError

LOOPS = [1, 2, 4, 8, 16]
CONTEXTS = [128, 1024, 2048]
MEASURES = ("size", "memory", "speed")
TABLE, BASELINES = "bench.json", "baselines"


@app.command()
def bench(
    artifacts: Annotated[list[Path] | None, typer.Argument(help="Artifact folders; none: made from --model.")] = None,
    model: Model = None,
    random_weights: Annotated[bool, typer.Option(help="Draw seeded weights for a released shape.")] = False,
    target: Annotated[list[str], typer.Option(help="Targets to export to; may be repeated.")] = ["onnx"],  # noqa: B006
    loop_form: Annotated[list[str], typer.Option(help="Loop forms; may be repeated.")] = ["stages", "scan"],  # noqa: B006
    quant: Annotated[list[str], typer.Option(help="Presets or recipes; may be repeated.")] = ["int4"],  # noqa: B006
    kv: Annotated[list[str], typer.Option(help="KV policies; may be repeated.")] = ["full"],  # noqa: B006
    kv_dtype: Annotated[
        list[str] | None, typer.Option(help="KV types; may be repeated; default int8 where a target has it.")
    ] = None,
    loops: Annotated[list[int], typer.Option(help="Loop counts; may be repeated.")] = LOOPS,
    at_context: Annotated[list[int], typer.Option("--context", help="Contexts; may be repeated.")] = CONTEXTS,
    baseline: Annotated[
        list[str] | None, typer.Option(help="naive-onnx, genai-llama, naive-executorch; may be repeated.")
    ] = None,
    baseline_loops: Annotated[int, typer.Option(help="Loop count of the baselines.")] = 8,
    baselines: Annotated[Path | None, typer.Option(help="Where baselines are kept; default below --out.")] = None,
    measure: Annotated[list[str], typer.Option(help="size, memory, speed; may be repeated.")] = list(MEASURES),  # noqa: B006
    rounds: Annotated[int, typer.Option(help="Turns of each model, three steps each.")] = 15,
    prompts: Annotated[int, typer.Option(help="Prompts for a median time to the first token, up to 512 tokens.")] = 5,
    out_folder: Annotated[Path, typer.Option("--out", help="Where artifacts and bench.json go.")] = Path("build/bench"),
    table_file: Annotated[Path | None, typer.Option("--table", help="The kept table; default bench.json.")] = None,
    force: Annotated[bool, typer.Option(help="Export artifacts again that are there.")] = False,
    show: Annotated[bool, typer.Option(help="Measure nothing, show the kept table.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw the table: SVG or PNG.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the table as Markdown.")] = None,
    threads: Threads = 1,
    as_json: Json = False,
) -> None:
    """Measure artifacts side by side and merge the figures into a kept table."""
    from export.bench.rows import read_table, write_table

    path = table_file or out_folder / TABLE
    _check(measure, loops, at_context, rounds, prompts, baseline_loops)
    if plot is not None and plot.suffix not in (".svg", ".png"):
        raise UsageError(f"--plot {plot}: give a name that ends in .svg or .png")
    table = read_table(path)
    if show and not table.rows:
        raise UsageError(f"--show: there is no table at {path}; measure first, or name one by --table")
    if not show:
        from export.bench.run import Plan, run_bench, subjects_of
        from export.bench.subjects import Wanted, make_artifacts, make_baselines
        from export.source import open_source

        set_threads(max(threads, 1))
        with progress_line(as_json) as progress:
            folders = list(artifacts or [])
            if not folders:
                wanted = Wanted(
                    model=model,
                    random_weights=random_weights,
                    targets=target,
                    forms=loop_form,
                    quants=quant,
                    policies=kv,
                    kv_dtypes=kv_dtype or (),
                    loops=loops,
                    threads=threads,
                    force=force,
                    progress=progress,
                )
                folders = make_artifacts(wanted, out_folder)
            subjects = [subject for folder in folders for subject in subjects_of(folder, loops)]
            if baseline:
                source = open_source(model, None, random_weights)
                strangers = {subject.variant.model for subject in subjects} - {source.name}
                if strangers:
                    raise UsageError(
                        f"--baseline is built from --model, here {source.name}, but an artifact is of "
                        f"{strangers.pop()}; give the same --model"
                    )
                kept = baselines or out_folder / BASELINES
                subjects += make_baselines(source, baseline, baseline_loops, at_context, kept, progress)
            plan = Plan(
                contexts=sorted(set(at_context)),
                threads=max(threads, 1),
                rounds=rounds,
                prompts=prompts,
                speed="speed" in measure,
                memory="memory" in measure,
                progress=progress,
            )
            run_bench(subjects, plan, table)
        write_table(table, path)
    if plot is not None:
        from export.bench.plot import plot_table

        plot_table(table, plot)
    _report(table, markdown, as_json)


def _check(
    measure: list[str], loops: list[int], contexts: list[int], rounds: int, prompts: int, baseline_loops: int
) -> None:
    for name in measure:
        if name not in MEASURES:
            raise UsageError(f"--measure {name}: choose among {', '.join(MEASURES)}")
    for option, values in (
        ("--loops", loops),
        ("--context", contexts),
        ("--rounds", [rounds]),
        ("--prompts", [prompts]),
        ("--baseline-loops", [baseline_loops]),
    ):
        if min(values) < 1:
            raise UsageError(f"{option} {min(values)}: give 1 or more")


def _report(table: object, markdown: Path | None, as_json: bool) -> None:
    from export.bench.rows import Table
    from export.bench.table import markdown as as_markdown
    from export.bench.table import print_table

    assert isinstance(table, Table)
    if markdown is not None:
        markdown.parent.mkdir(parents=True, exist_ok=True)
        markdown.write_text(as_markdown(table), encoding="utf-8")
    if as_json:
        print_json(table.model_dump(mode="json"))
    else:
        print_table(out, table)
