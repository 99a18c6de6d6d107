"""Decode times of artifacts out of a kept table, for the report's pictures.

first, second = decode_times(read_table(path), [read_manifest(a), read_manifest(b)], path)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from export.bench.rows import Row, Table, Variant
from export.report.page.subject import Speeds
from parcae_mobile.errors import InputError
from parcae_mobile.manifest import Manifest


def variant_of(manifest: Manifest, loops: int) -> Variant:
    """The row of an artifact at one loop count."""
    return Variant(
        kind="artifact",
        model=manifest.model,
        target=manifest.target,
        loop_form=manifest.loop_form,
        quant=manifest.quantization.recipe,
        compute=manifest.compute,
        kv_policy=manifest.kv.policy,
        kv_dtype=manifest.kv.dtype,
        room=manifest.kv.context if manifest.target == "executorch" else None,
        portable=manifest.portable,
        loops=loops,
    )


def decode_times(table: Table, manifests: Sequence[Manifest], path: Path) -> list[Speeds]:
    """Times of each artifact, all from the last run that measured every one of them: runs are not compared.

    Raises `InputError` where no run did. `path` is the table's, for that message.
    """
    rows = [_fewest_threads([r for r in table.rows if r.variant == variant_of(m, r.variant.loops)]) for m in manifests]
    runs = [{speed.run for row in own for speed in row.speeds} for own in rows]
    for manifest, measured in zip(manifests, runs, strict=True):
        if not measured:
            raise InputError(
                f"{path}: no times of {manifest.artifact} (as {variant_of(manifest, 1).label}); measure it with "
                "parcae-export bench"
            )
    common = set.intersection(*runs)
    if not common:
        raise InputError(f"{path}: no run measured all of these artifacts; give them to parcae-export bench together")
    run = max(common)
    machine = table.runs[run]
    threads = sorted({row.threads for own in rows for row in own if any(speed.run == run for speed in row.speeds)})
    words = f"{machine.processor}, {' and '.join(map(str, threads))} thread{'s' * (threads != [1])}"
    return [Speeds(words, _of_run(own, run)) for own in rows]


def _fewest_threads(rows: list[Row]) -> list[Row]:
    """Those that were measured with the fewest threads: a page shows one curve."""
    fewest = min((row.threads for row in rows if row.speeds), default=0)
    return [row for row in rows if row.threads == fewest]


def _of_run(rows: Sequence[Row], run: int) -> dict[int, dict[int, float]]:
    times: dict[int, dict[int, float]] = {}
    for row in rows:
        for speed in row.speeds:
            if speed.run == run:
                times.setdefault(row.context, {})[row.variant.loops] = speed.decode_ms
    return times
