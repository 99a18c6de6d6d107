"""Subcommands on artifact folders: verify, inspect (also models), generate."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from parcae_mobile.errors import UsageError

from .cli_common import Json, Threads, app, err, out, print_json, set_threads


@app.command()
def verify(
    artifact: Annotated[Path, typer.Argument(help="Artifact folder.")], threads: Threads = 0, as_json: Json = False
) -> None:
    """Check an artifact folder: files, checksums, certificate, and a self-test on this machine."""
    from .pipeline import describe
    from .verify import verify_artifact

    set_threads(threads)
    report = verify_artifact(artifact, threads)
    if as_json:
        print_json({"artifacts": [{**describe(artifact, report.manifest), "verify": report.to_json()}]})
        return
    out.print(f"{artifact}: {len(report.manifest.files)} files match their checksums")
    for loops, distance in report.self_test.items():
        out.print(
            f"  self-test T={loops}: max |diff| {distance.max_abs:.1e}, KL {distance.kl_mean:.1e}, "
            f"top-1 {distance.top1:.1%} over {distance.positions} positions"
        )


@app.command()
def inspect(
    subject: Annotated[str | None, typer.Argument(help="Artifact folder, checkpoint folder, hub id or shape.")] = None,
    random_weights: Annotated[bool, typer.Option(help="Draw seeded weights for a released shape.")] = False,
    revision: Annotated[str | None, typer.Option(help="Revision of a hub id.")] = None,
    quant: Annotated[str | None, typer.Option(help="What each tensor would become under a recipe.")] = None,
    injection: Annotated[bool, typer.Option(help="What storing the injection in fewer bits would do.")] = False,
    as_json: Json = False,
) -> None:
    """Say what a model or an artifact is, what a recipe would make of it, and why the injection is left alone."""
    from parcae_mobile.manifest import MANIFEST, read_manifest
    from quantize.guard import injection_report
    from quantize.planning import plan_table, total_bytes
    from quantize.recipe import load_recipe

    from .inspection import describe_model, held_out
    from .pipeline import describe
    from .report import print_artifact, print_injection, print_model, print_plan
    from .source import open_source

    if subject is not None and (Path(subject) / MANIFEST).exists():
        manifest = read_manifest(Path(subject))
        if as_json:
            print_json({"artifacts": [describe(Path(subject), manifest)]})
        else:
            print_artifact(out, subject, manifest, [])
        return
    source = open_source(subject, revision, random_weights)
    if quant is not None:
        table = plan_table(load_recipe(quant), source.model)
        if as_json:
            print_json({"recipe": quant, "bytes": total_bytes(table), "tensors": [row.to_dict() for row in table]})
        else:
            print_plan(out, quant, table)
        return
    described = describe_model(source)
    rows = injection_report(held_out(source)) if injection else []
    if as_json:
        print_json({"model": described, "injection": [row.to_dict() for row in rows]})
        return
    print_model(out, described)
    if rows:
        print_injection(out, rows)


@app.command()
def generate(
    artifact: Annotated[Path, typer.Argument(help="Artifact folder.")],
    prompt: Annotated[str, typer.Option(help="Text to continue.")] = "import os\n\n\ndef ",
    tokens: Annotated[int, typer.Option(help="Most tokens to generate.")] = 64,
    loops: Annotated[int | None, typer.Option(help="Loops at each token; default the trained count.")] = None,
    exit_threshold: Annotated[float, typer.Option(help="End a token's loop below this state change; 0 is off.")] = 0.0,
    compare_loops: Annotated[str | None, typer.Option(help="The same prompt at several counts, e.g. 1,2,4,8.")] = None,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    top_k: Annotated[int, typer.Option(help="Choose among this many tokens; 0 for all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Choose among the likeliest that hold this share.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of sampling.")] = 0,
    threads: Threads = 0,
    as_json: Json = False,
) -> None:
    """Continue a text with an artifact, streaming."""
    from .generation import Sampling, Step
    from .session import Session

    if tokens < 1:
        raise UsageError(f"--tokens {tokens}: give 1 or more")
    session = Session.open(artifact, threads)
    counts = [session.loops(loops)]
    if compare_loops is not None:
        counts = [session.loops(int(part) if part.isdigit() else 0) for part in compare_loops.split(",")]
    results = []
    for count in counts:
        if not as_json:
            for warning in session.warnings(count):
                err.print(f"warning: {warning}")
            out.print(prompt, end="", style="bold", markup=False, highlight=False)
        sampling = Sampling(temperature, top_k, top_p, seed)
        pieces: list[str] = []
        steps: list[Step] = []
        for piece in session.stream(prompt, sampling, count, tokens, exit_threshold, steps):
            pieces.append(piece)
            if not as_json:
                sys.stdout.write(piece)
                sys.stdout.flush()
        decode = [step.seconds for step in steps[1:]]
        speed = len(decode) / sum(decode) if decode else 0.0
        used = [step.loops for step in steps]
        mean = sum(used) / len(used)
        results.append(
            {
                "text": "".join(pieces),
                "tokens": [step.token for step in steps],
                "loops": count,
                "loops_by_token": used,
                "first_token_seconds": steps[0].seconds,
                "tokens_per_second": speed,
            }
        )
        if not as_json:
            sys.stdout.write("\n")
            first = f"first after {steps[0].seconds * 1e3:.0f} ms, then {speed:.0f} tokens/s"
            loops_text = f"T={count}" if mean == count else f"T={count}, {mean:.2f} loops on average"
            out.print(f"[{len(steps)} tokens at {loops_text}: {first}]", style="dim", markup=False)
    if as_json:
        print_json(results[0] if compare_loops is None else {"by_loops": results})
