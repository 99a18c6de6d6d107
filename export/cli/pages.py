"""Subcommands that show or share artifact folders: report, push."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from export.cli.app import Json, app, out, print_json
from parcae_mobile.errors import UsageError


@app.command()
def report(
    artifacts: Annotated[list[Path], typer.Argument(help="Artifact folders; several stand side by side.")],
    output: Annotated[Path | None, typer.Option("--out", help="HTML file to write; one artifact has its own.")] = None,
    force: Annotated[bool, typer.Option(help="Replace an existing file.")] = False,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    as_json: Json = False,
) -> None:
    """Show what is known about artifacts as a page: gates, pictures, contracts, how to run them."""
    from export.report.page.page import REPORT, render
    from export.report.page.subject import Subject
    from parcae_mobile.atomic import write_text
    from parcae_mobile.manifest import read_manifest

    subjects = [Subject(read_manifest(folder)) for folder in artifacts]
    page = artifacts[0] / REPORT
    if output is not None or len(artifacts) > 1 or not page.exists():
        page = output or Path(REPORT)
        if page.exists() and not force:
            raise UsageError(f"{page} exists; add --force or choose another --out")
        write_text(page, render(subjects))
    if as_json:
        print_json({"report": str(page), "artifacts": [str(folder) for folder in artifacts]})
    else:
        out.print(str(page), markup=False, highlight=False, soft_wrap=True)
    if open_page:
        webbrowser.open(page.resolve().as_uri())


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
