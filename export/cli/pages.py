"""Subcommands that show or share artifact folders: report, compare, push."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from export.cli.app import Json, app, out, print_json
from parcae_mobile.errors import OutputExistsError, UsageError

if TYPE_CHECKING:
    from export.report.page.subject import Speeds, Subject

Bench = Annotated[Path | None, typer.Option(help="Table of parcae-export bench, for decode times.")]
Force = Annotated[bool, typer.Option(help="Replace an existing file.")]
Open = Annotated[bool, typer.Option("--open", help="Open the page in a browser.")]


@app.command()
def report(
    artifact: Annotated[Path, typer.Argument(help="Artifact folder.")],
    bench: Bench = None,
    output: Annotated[Path | None, typer.Option("--out", help="HTML file to write, in place of its own.")] = None,
    force: Force = False,
    open_page: Open = False,
    as_json: Json = False,
) -> None:
    """Say where an artifact's page is; with --bench, write one that has decode times too."""
    from export.report.page.page import REPORT

    page = artifact / REPORT
    subjects = _subjects([artifact], bench)
    if output is not None or bench is not None or not page.exists():
        page = output or Path(REPORT)
        _write(page, subjects, force)
    if as_json:
        print_json({"report": str(page), "artifacts": [str(artifact)]})
    else:
        out.print(str(page), markup=False, highlight=False, soft_wrap=True)
    if open_page:
        webbrowser.open(page.resolve().as_uri())


@app.command()
def compare(
    artifacts: Annotated[list[Path], typer.Argument(help="Two or more artifact folders.")],
    bench: Bench = None,
    output: Annotated[Path, typer.Option("--out", help="HTML file to write.")] = Path("compare.html"),
    force: Force = False,
    open_page: Open = False,
    as_json: Json = False,
) -> None:
    """Put artifacts side by side on one page: size, distance from fp32, and with --bench speed."""
    from export.report.page.summary import comparison
    from export.report.terminal import print_rows

    if len(artifacts) < 2:
        raise UsageError("compare needs two or more artifact folders; parcae-export report shows one")
    subjects = _subjects(artifacts, bench)
    _write(output, subjects, force)
    table = comparison(subjects)
    if as_json:
        rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
        print_json({"report": str(output), "artifacts": [str(folder) for folder in artifacts], "rows": rows})
    else:
        print_rows(out, "", table.columns, table.rows)
        out.print(str(output), markup=False, highlight=False, soft_wrap=True)
    if open_page:
        webbrowser.open(output.resolve().as_uri())


def _subjects(folders: list[Path], bench: Path | None) -> list[Subject]:
    """Artifacts with what their own pages know, and with their times in a bench's table."""
    from export.report.page.stored import read_facts
    from export.report.page.subject import Subject
    from parcae_mobile.manifest import read_manifest

    manifests = [read_manifest(folder) for folder in folders]
    times: list[Speeds] | list[None] = [None] * len(folders)
    if bench is not None:
        from export.bench.rows import read_table
        from export.bench.speeds import decode_times

        if not bench.exists():
            raise UsageError(f"--bench {bench}: no such file; parcae-export bench makes one")
        times = decode_times(read_table(bench), manifests, bench)
    parts = zip(manifests, folders, times, strict=True)
    return [Subject(manifest, read_facts(folder), speeds) for manifest, folder, speeds in parts]


def _write(page: Path, subjects: list[Subject], force: bool) -> None:
    from export.report.page.page import render
    from parcae_mobile.atomic import write_text

    if page.exists() and not force:
        raise OutputExistsError(f"{page} exists; add --force or choose another --out")
    if not page.parent.is_dir():
        raise UsageError(f"--out {page}: there is no folder {page.parent}; make it first")
    write_text(page, render(subjects))


@app.command()
def push(
    artifact: Annotated[Path, typer.Argument(help="Artifact folder.")],
    repository: Annotated[str, typer.Option("--repo", help="Hub repository, owner/name.")],
    private: Annotated[bool, typer.Option(help="Make a new repository private.")] = False,
    message: Annotated[str | None, typer.Option(help="Commit message.")] = None,
    dry_run: Annotated[bool, typer.Option(help="Say what would go; send nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Upload an artifact folder to the Hugging Face hub, after checking it file by file."""
    from export.artifact.push import planned
    from export.artifact.push import push as push_folder

    files = planned(artifact)
    address = None if dry_run else push_folder(artifact, repository, private, message)
    if as_json:
        print_json({"repository": repository, "commit": address, "files": [vars(file) for file in files]})
        return
    for file in files:
        out.print(f"{file.bytes:>12,}  {file.path}", markup=False, highlight=False)
    done = f"would go to {repository}; nothing was sent" if address is None else address
    out.print(done, markup=False, highlight=False, soft_wrap=True)
