"""Subcommands on artifact folders: verify, inspect (also models), generate."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from export.cli.app import (
    Checkpoint,
    Json,
    Threads,
    Tokenizer,
    app,
    err,
    out,
    print_json,
    progress_line,
    set_threads,
    text_of,
)
from parcae_mobile.errors import UsageError


@app.command()
def sign(
    artifact: Annotated[Path, typer.Argument(help="Artifact folder, or a model that bundle put into an app.")],
    key: Annotated[Path, typer.Option(help="Ed25519 key in PEM: openssl genpkey -algorithm ed25519 -out FILE.")],
) -> None:
    """Check a folder's files and sign its manifest, which lists them."""
    from parcae_mobile.app_checks import check_files, read_app_manifest
    from parcae_mobile.app_manifest import APP_MANIFEST
    from parcae_mobile.errors import InputError
    from parcae_mobile.given_file import read_text
    from parcae_mobile.manifest import verify_files
    from parcae_mobile.signature import is_bundled, pinned, read_private_key
    from parcae_mobile.signature import sign as sign_manifest

    private = read_private_key(key)
    if is_bundled(artifact):
        check_files(read_app_manifest(read_text(artifact / APP_MANIFEST, InputError)), artifact)
    else:
        verify_files(artifact)
    written = sign_manifest(artifact, private)
    out.print(f"{written}: written; apps pin the key {pinned(private)}", soft_wrap=True)


@app.command()
def verify(
    artifact: Annotated[Path, typer.Argument(help="Artifact folder.")],
    details: Annotated[bool, typer.Option(help="The self-test's figures by loop count.")] = False,
    key: Annotated[Path | None, typer.Option(help="Public key (PEM) whose signature the manifest has to bear.")] = None,
    threads: Threads = 0,
    as_json: Json = False,
) -> None:
    """Check an artifact folder: files, checksums, certificate, and a self-test on this machine."""
    from export.artifact.describe import describe
    from export.gates.verify import verify_artifact

    set_threads(threads)
    if key is not None:
        from parcae_mobile.signature import check_signature, read_public_key

        check_signature(artifact, read_public_key(key))
    report = verify_artifact(artifact, threads)
    if as_json:
        print_json({"artifacts": [{**describe(artifact, report.manifest), "verify": report.to_json()}]})
        return
    out.print(f"{artifact}: {len(report.manifest.files)} files match their checksums", soft_wrap=True)
    if not details:
        counts = ", ".join(map(str, sorted(report.self_test)))
        least = min(distance.top1 for distance in report.self_test.values())
        out.print(
            f"  self-test T={counts}: passed on this machine, at least {least:.1%} of next tokens as expected",
            soft_wrap=True,
        )
        return
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
    tokenizer: Tokenizer = None,
    checkpoint: Checkpoint = None,
    quant: Annotated[str | None, typer.Option(help="What each tensor would become under a recipe.")] = None,
    injection: Annotated[bool, typer.Option(help="What storing the injection in fewer bits would do.")] = False,
    as_json: Json = False,
) -> None:
    """Say what a model or an artifact is, what a recipe would make of it, and why the injection is left alone."""
    from export.artifact.describe import describe
    from export.report.facts import describe_model, held_out
    from export.report.terminal import print_artifact, print_injection, print_model, print_plan
    from export.resources import estimate
    from export.source import open_source
    from export.targets.registry import TARGETS
    from parcae_mobile.manifest import MANIFEST, read_manifest
    from quantize.guard import injection_report
    from quantize.planning import plan_table, total_bytes
    from quantize.recipe import load_recipe

    if subject is not None and (Path(subject) / MANIFEST).exists():
        manifest = read_manifest(Path(subject))
        if as_json:
            print_json({"artifacts": [describe(Path(subject), manifest)]})
        else:
            print_artifact(out, subject, manifest, [])
        return
    source = open_source(subject, revision, random_weights, tokenizer=tokenizer, checkpoint=checkpoint)
    if quant is not None:
        recipe = load_recipe(quant)
        table = plan_table(recipe, source.model)
        needs = {name: estimate(source.model.config, recipe, {name}) for name in TARGETS}
        if as_json:
            tensors = [row.to_dict() for row in table]
            estimated = {name: need.to_dict() for name, need in needs.items()}
            print_json({"recipe": quant, "bytes": total_bytes(table), "tensors": tensors, "estimated": estimated})
        else:
            print_plan(out, quant, table)
            listed = ", ".join(f"{name} {need.memory / 1e9:.1f} GB" for name, need in needs.items())
            out.print(f"memory that an export needs, about: {listed}", soft_wrap=True)
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
    compare_loops: Annotated[str | None, typer.Option(help="The same prompt side by side, e.g. 1,2,4,8.")] = None,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    top_k: Annotated[int, typer.Option(help="Choose among this many tokens; 0 for all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Choose among the likeliest that hold this share.")] = 1.0,
    min_p: Annotated[float, typer.Option(help="Leave out tokens below this share of the likeliest; 0 is off.")] = 0.0,
    repetition_penalty: Annotated[float, typer.Option(help="Above 1: the last 64 tokens become less likely.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of sampling.")] = 0,
    stop: Annotated[list[str], typer.Option(help="End before this text; may be repeated.")] = [],  # noqa: B006
    threads: Threads = 0,
    as_json: Json = False,
) -> None:
    """Continue a text with an artifact, streaming."""
    from export.report.loops import print_completions
    from export.run.session import Session
    from parcae_mobile.sampling import Sampling

    prompt = text_of(prompt, "--prompt")
    if tokens < 1:
        raise UsageError(f"--tokens {tokens}: give 1 or more")
    if compare_loops is not None and loops is not None:
        raise UsageError(f"--loops {loops} and --compare-loops {compare_loops}: give one of the two")
    sampling = Sampling(temperature, top_k, top_p, seed, min_p, repetition_penalty)
    session = Session.open(artifact, threads)
    counts = [session.loops(count) for count in ([loops] if compare_loops is None else loop_counts(compare_loops))]
    warnings = session.warnings(max(counts))
    if not as_json:
        for warning in warnings:
            err.print(f"warning: {warning}", markup=False, highlight=False)
    if compare_loops is None:
        completion = session.complete(prompt, sampling, counts[0], tokens, exit_threshold, stop)
        if not as_json:
            out.print(prompt, end="", style="bold", markup=False, highlight=False)
        for piece in completion:
            if not as_json:
                sys.stdout.write(piece)
                sys.stdout.flush()
        if as_json:
            print_json(completion.to_dict() | {"warnings": warnings})
        else:
            sys.stdout.write("\n")
            out.print(f"[{completion.summary}]", style="dim", markup=False)
        return
    results = []
    with progress_line(as_json) as progress:
        for count in counts:
            progress(f"T={count}")
            completion = session.complete(prompt, sampling, count, tokens, exit_threshold, stop)
            for _ in completion:
                pass
            results.append(completion)
    if as_json:
        print_json({"by_loops": [result.to_dict() for result in results], "warnings": warnings})
    else:
        print_completions(out, prompt, results)


def loop_counts(text: str) -> list[int]:
    """`1,2,4,8` as numbers. Raises `UsageError`."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise UsageError(f"--compare-loops {text}: give loop counts with commas between them, such as 1,2,4,8")
    return list(dict.fromkeys(int(part) for part in parts))
