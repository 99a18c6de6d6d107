"""Subcommands on what looping costs and where it may be saved: early-exit, kv."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from export.cli.app import Json, Threads, app, out, print_json, progress_line, set_threads
from parcae_mobile.errors import InputError, UsageError
from parcae_mobile.loops import KV_POLICIES, check_loops, check_threshold

if TYPE_CHECKING:
    from torch import Tensor

    from export.run.early_exit import Reader

Subject = Annotated[str | None, typer.Argument(help="Checkpoint folder or hub id; default the embedded model.")]
Text = Annotated[Path | None, typer.Option("--text", help="UTF-8 text instead of the held-out one.")]
Windows = Annotated[int, typer.Option("--windows", help="Held-out windows.")]
Length = Annotated[int, typer.Option("--length", help="Tokens of a window.")]
Loops = Annotated[int, typer.Option("--loops", help="All loops: what is compared with.")]


@app.command("early-exit")
def early_exit(
    subject: Annotated[
        str | None, typer.Argument(help="Artifact folder, checkpoint folder or hub id; default the embedded model.")
    ] = None,
    thresholds: Annotated[str | None, typer.Option(help="State changes to stop at, e.g. 0.2,0.1,0.05.")] = None,
    loops: Loops = 8,
    kv: Annotated[str, typer.Option(help="KV policy of a model; an artifact has its own.")] = "auto",
    text: Text = None,
    windows: Windows = 16,
    length: Length = 128,
    threads: Threads = 0,
    as_json: Json = False,
) -> None:
    """Measure early exit against fixed loop counts by decoding held-out text."""
    from export.report.loops import print_exit
    from export.run.early_exit import PROMPT, THRESHOLDS, measure_exit

    set_threads(threads)
    asked = THRESHOLDS if thresholds is None else tuple(_numbers(thresholds))
    for threshold in asked:
        check_threshold(threshold)
    if windows < 1 or length <= PROMPT:
        raise UsageError(f"--windows {windows} --length {length}: give at least 1 window of {PROMPT + 1} tokens")
    with progress_line(as_json) as progress:
        name, reader, ids = _open_reader(subject, kv, loops, text, windows, length, threads)
        table = measure_exit(reader, ids, loops, asked, progress=progress)
    if as_json:
        print_json({"subject": name, **table.to_dict()})
    else:
        print_exit(out, name, table)


@app.command("kv")
def kv_policies(
    subject: Subject = None,
    loops: Loops = 8,
    pieces: Annotated[str, typer.Option(help="Tokens given at once; 0 is the whole window.")] = "0,64,16,4,1",
    int8: Annotated[bool, typer.Option("--int8", help="Also with an int8 cache.")] = False,
    text: Text = None,
    windows: Windows = 8,
    length: Length = 256,
    threads: Threads = 0,
    as_json: Json = False,
) -> None:
    """Measure KV policies by the pieces in which a text is given, against the whole text without a cache."""
    from export.kv.scales import measure_scales
    from export.kv.study import SKIPPED, study_cache
    from export.report.loops import print_study
    from export.source import open_source
    from export.texts import calibration_windows

    set_threads(threads)
    check_loops(loops)
    counts = _numbers(pieces, int)
    if min(counts) < 0:
        raise UsageError(f"--pieces {pieces}: give numbers of tokens, or 0 for all at once")
    if windows < 1 or length <= SKIPPED:
        raise UsageError(f"--windows {windows} --length {length}: give at least 1 window of {SKIPPED + 1} tokens")
    source = open_source(subject)
    length = min(length, source.model.config.context)
    if not source.real:
        raise InputError(f"{subject} has no tokenizer.json, so a text cannot be read; add one")
    ids = source.text("heldout", text).windows(windows, length - 1)
    with progress_line(as_json) as progress:
        scales = measure_scales(source.model, calibration_windows(source, None), loops) if int8 else None
        rows = study_cache(source.model, ids, loops, counts, scales, progress)
    if as_json:
        print_json({"subject": source.name, "loops": loops, "rows": [row.to_dict() for row in rows]})
    else:
        print_study(out, source.name, loops, rows)


def _numbers(text: str, kind: type = float) -> list[Any]:
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"{text!r}: give numbers with commas between them") from None


def _open_reader(
    subject: str | None, kv: str, loops: int, text: Path | None, windows: int, length: int, threads: int
) -> tuple[str, Reader, Tensor]:
    """An artifact through its host runtime, or a model through the eager code; and the ids to decode."""
    from export.kv.choice import choose_policy
    from export.run.early_exit import EagerReader, HostReader
    from export.run.session import Session
    from export.source import open_source
    from parcae_mobile.manifest import MANIFEST
    from parcae_mobile.text import text_ids

    if subject is not None and (Path(subject) / MANIFEST).exists():
        session = Session.open(Path(subject), threads)
        check_loops(loops, session.host.geometry.max_loops, session.host.geometry.min_loops)
        if session.manifest.loops != "dynamic":
            raise UsageError(f"{subject} runs {session.manifest.loops} loops whatever happens; give a dynamic artifact")
        held_out = text_ids(Path(subject), "heldout", text, session.manifest.geometry.vocab_size)
        tokens = min(length, session.host.geometry.context)
        return session.manifest.artifact, HostReader(session.host), held_out.windows(windows, tokens - 1)
    if kv not in ("auto", *KV_POLICIES):
        raise UsageError(f"--kv {kv}: choose auto or one of {', '.join(KV_POLICIES)}")
    source = open_source(subject)
    if not source.real:
        raise InputError(f"{subject} has no tokenizer.json, so a text cannot be read; add one")
    check_loops(loops)
    context = source.model.config.context
    ids = source.text("heldout", text).windows(windows, min(length, context) - 1)
    policy = choose_policy(source.model, ids, loops, context).policy if kv == "auto" else kv
    return f"{source.name} (eager, fp32, cache {policy})", EagerReader(source.model, policy), ids
