"""The subcommand that puts artifacts into apps: bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from export.cli.app import Json, Threads, app, out, print_json, set_threads
from parcae_mobile.errors import UsageError


@app.command()
def bundle(
    artifact: Annotated[Path | None, typer.Argument(help="Artifact folder.")] = None,
    folder: Annotated[Path | None, typer.Option("--app", help="Folder that the app reads its models from.")] = None,
    platform: Annotated[str | None, typer.Option(help="web, android or ios.")] = None,
    name: Annotated[str | None, typer.Option(help="Name in the app; default the artifact's.")] = None,
    list_: Annotated[bool, typer.Option("--list", help="Show the models in the app's folder.")] = False,
    remove: Annotated[str | None, typer.Option(help="Take the model of this name out.")] = None,
    threads: Threads = 0,
    as_json: Json = False,
) -> None:
    """Put a verified artifact into an app: its files, app.json beside them, models.json above."""
    from export.bundle.place import needed, put, read_all
    from export.bundle.place import remove as take_out
    from parcae_mobile.app_manifest import PLATFORMS, Platform

    set_threads(threads)
    if folder is None:
        raise UsageError("bundle needs --app: the folder that the app reads its models from")
    if [artifact is not None, list_, remove is not None].count(True) != 1:
        raise UsageError("bundle takes one of: an artifact folder, --list, --remove NAME")
    done = None
    if artifact is not None:
        if platform not in PLATFORMS:
            complaint = "bundle needs --platform" if platform is None else f"--platform {platform}"
            raise UsageError(f"{complaint}: choose {', '.join(PLATFORMS)}")
        added, done = put(artifact, cast(Platform, platform), folder, name, threads)
    elif remove is not None:
        take_out(folder, remove)
    models = read_all(folder)
    if as_json:
        rows = [model.model_dump(mode="json") | {"memory_needed": needed(model)} for model in models]
        print_json({"app": str(folder), "done": done or ("removed" if remove else "listed"), "models": rows})
        return
    if done is not None:
        parity = "same tokens on every device" if added.token_parity else "agreement is a rate"
        out.print(f"{folder / added.name}: {done}; {added.runtime.name} {added.runtime.minimum} or later; {parity}")
    for model in models:
        size = sum(entry.bytes for entry in model.files.values())
        loops = ", ".join(map(str, model.loops.built)) or f"{model.loops.min} to {model.loops.max}"
        out.print(
            f"  {model.name}: {model.platform}, {size / 1e6:.1f} MB, T {loops}, "
            f"{needed(model) / 1e6:.0f} MB of memory at T={model.loops.choose()} and {model.cache.context} tokens"
        )
    if not models:
        out.print(f"{folder}: no models")
