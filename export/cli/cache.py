"""Subcommand on the cache of quantized tensors and measurements: what is there, and removing it."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from export.cli.app import Json, app, out, print_json


@app.command()
def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove all entries.")] = False, as_json: Json = False
) -> None:
    """Show the cache of quantized tensors and measurements, or clear it. PARCAE_CACHE says where it lies."""
    from export.report.terminal import print_rows
    from quantize.cache import Cache

    place = Cache.default()
    if clear:
        removed = place.clear()
        if as_json:
            print_json({"folder": str(place.folder), "removed": removed})
        else:
            out.print(f"{place.folder}: {removed} entries removed", soft_wrap=True)
        return
    entries = place.entries()
    total = sum(entry.bytes for entry in entries)
    if as_json:
        listed = [vars(entry) for entry in entries]
        print_json(
            {"folder": str(place.folder), "bytes": total, "most_bytes": place.most_bytes, "entries": listed}
        )
        return
    if entries:
        rows = [[e.key[:12], e.recipe, e.algorithm, f"{e.bytes / 1e6:.2f}", _age(e.used)] for e in entries]
        print_rows(out, "", ["entry", "recipe", "content", "MB", "last used"], rows)
    room = f"{total / 1e6:.1f} of {place.most_bytes / 1e6:.0f} MB"
    out.print(f"{place.folder}: {len(entries)} entries, {room}", soft_wrap=True)


def _age(used: float) -> str:
    hours = max(0.0, time.time() - used) / 3600
    return f"{hours / 24:.0f} days ago" if hours >= 48 else f"{hours:.0f} hours ago" if hours >= 2 else "just now"
