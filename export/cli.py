"""The command `parcae-export`. Without a subcommand it exports; see `parcae-export --help`.

Exit codes: 0 done, 2 usage (or an output that exists), 3 bad input, 4 a gate failed, 5 a tool is missing.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from parcae_mobile.checkpoint import convert as convert_checkpoint
from parcae_mobile.errors import GateError, ParcaeError, UsageError

DEFAULT_QUANT = "int8"

app = typer.Typer(
    add_completion=False,
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Turn a Parcae looped language model into verified artifacts for phones.",
)
out = Console(width=None if sys.stdout.isatty() else 120)
err = Console(stderr=True)

Model = Annotated[str | None, typer.Option("--model", help="Folder, hub id, or a shape with --random-weights.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Threads = Annotated[int, typer.Option("--threads", help="Threads of torch and of the runtime; 0: the default.")]


@app.callback(invoke_without_command=True)
def export(
    context: typer.Context,
    model: Model = None,
    revision: Annotated[str | None, typer.Option(help="Revision of a hub id.")] = None,
    random_weights: Annotated[bool, typer.Option(help="Draw seeded weights for a released shape.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of random weights and algorithms.")] = 0,
    target: Annotated[list[str], typer.Option(help="onnx, executorch, coreml or all; may be repeated.")] = ["onnx"],  # noqa: B006
    loops: Annotated[list[str], typer.Option(help="A loop count (may be repeated) or dynamic.")] = ["dynamic"],  # noqa: B006
    max_loops: Annotated[int, typer.Option(help="Most loops of a dynamic artifact.")] = 16,
    loop_form: Annotated[str | None, typer.Option(help="How the loop is composed.")] = None,
    quant: Annotated[str, typer.Option(help="Preset (fp32, int8, int4) or a TOML recipe.")] = DEFAULT_QUANT,
    algorithm: Annotated[str, typer.Option(help="How integers are found.")] = "auto",
    compute: Annotated[str | None, typer.Option(help="What activations are computed in: fp32, fp16, int8.")] = None,
    kv: Annotated[str, typer.Option(help="KV cache policy; auto measures them.")] = "auto",
    kv_dtype: Annotated[str | None, typer.Option(help="KV cache type.")] = None,
    context_length: Annotated[int | None, typer.Option("--context", help="Most tokens; default the model's.")] = None,
    out_folder: Annotated[Path, typer.Option("--out", help="Folder that receives the artifact folder.")] = Path("dist"),
    force: Annotated[bool, typer.Option(help="Replace an existing artifact.")] = False,
    verify: Annotated[bool, typer.Option("--verify/--no-verify", help="Run the gates before publishing.")] = True,
    reference: Annotated[Path | None, typer.Option(help="Golden reference file.")] = None,
    text: Annotated[Path | None, typer.Option(help="Held-out UTF-8 text for the gates.")] = None,
    calibration: Annotated[Path | None, typer.Option(help="Calibration UTF-8 text.")] = None,
    threads: Threads = 0,
    as_json: Json = False,
    quiet: Annotated[bool, typer.Option(help="No progress, no report.")] = False,
    debug: Annotated[bool, typer.Option(help="Show tracebacks.")] = False,
) -> None:
    """Export a model, verify the artifact, publish it."""
    if context.invoked_subcommand is not None:
        return
    from .pipeline import ExportRequest, run_export
    from .report import print_artifact

    _set_threads(threads)
    request = ExportRequest(
        model=model,
        revision=revision,
        random_weights=random_weights,
        seed=seed,
        targets=target,
        loops=loops,
        max_loops=max_loops,
        loop_form=loop_form,
        quant=quant,
        algorithm=algorithm,
        compute=compute,
        kv=kv,
        kv_dtype=kv_dtype,
        context=context_length,
        out=out_folder,
        force=force,
        verify=verify,
        reference=reference,
        text=text,
        calibration=calibration,
        threads=threads,
    )
    with _progress(quiet or as_json) as progress:
        results = run_export(request, progress)
    if as_json:
        _print_json({"artifacts": [result.to_json() for result in results]})
    elif not quiet:
        for result in results:
            print_artifact(out, str(result.path), result.manifest, result.problems)
            spent = ", ".join(f"{name} {seconds:.1f}" for name, seconds in result.seconds.items())
            out.print(f"  seconds: {spent}")
    failed = [result for result in results if not result.passed]
    if failed:
        raise GateError(f"{failed[0].path.name}: {failed[0].problems[0]}; see {failed[0].path}")


@app.command()
def verify(
    artifact: Annotated[Path, typer.Argument(help="Artifact folder.")], threads: Threads = 0, as_json: Json = False
) -> None:
    """Check an artifact folder: files, checksums, certificate, and a self-test on this machine."""
    from .pipeline import describe
    from .verify import verify_artifact

    _set_threads(threads)
    report = verify_artifact(artifact, threads)
    if as_json:
        _print_json({"artifacts": [{**describe(artifact, report.manifest), "verify": report.to_json()}]})
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
    as_json: Json = False,
) -> None:
    """Say what a model or an artifact is."""
    from parcae_mobile.manifest import MANIFEST, read_manifest

    from .inspection import describe_model
    from .pipeline import describe
    from .report import print_artifact, print_model
    from .source import open_source

    if subject is not None and (Path(subject) / MANIFEST).exists():
        manifest = read_manifest(Path(subject))
        if as_json:
            _print_json({"artifacts": [describe(Path(subject), manifest)]})
        else:
            print_artifact(out, subject, manifest, [])
        return
    described = describe_model(open_source(subject, revision, random_weights))
    if as_json:
        _print_json({"model": described})
    else:
        print_model(out, described)


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
    from .generation import Sampling
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
        pieces, steps = [], []
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
        _print_json(results[0] if compare_loops is None else {"by_loops": results})


@app.command()
def reference(
    model: Model = None,
    revision: Annotated[str | None, typer.Option(help="Revision of a hub id.")] = None,
    random_weights: Annotated[bool, typer.Option(help="Draw seeded weights for a released shape.")] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    arithmetic: Annotated[str, typer.Option(help="fp32; tf32 and bf16 only to be compared with it.")] = "fp32",
    text: Annotated[Path | None, typer.Option(help="UTF-8 text instead of the held-out one.")] = None,
    output: Annotated[Path, typer.Option("--out", help="File to write.")] = Path("reference.npz"),
    force: Annotated[bool, typer.Option(help="Replace an existing file.")] = False,
    compare: Annotated[tuple[Path, Path] | None, typer.Option(help="State the difference of two references.")] = None,
    as_json: Json = False,
) -> None:
    """Write the golden reference: fp32 logits with their provenance."""
    from parcae_mobile.errors import OutputExistsError
    from parcae_mobile.golden import compare_references, load_reference, make_reference, save_reference

    from .report import print_rows
    from .source import open_source

    if compare is not None:
        first, second = (load_reference(path) for path in compare)
        distances = compare_references(first, second)
        if as_json:
            _print_json(
                {
                    "references": [first.label, second.label],
                    "by_loops": {str(count): distance.to_dict() for count, distance in distances.items()},
                }
            )
            return
        rows = [
            [str(t), f"{d.max_abs:.2e}", f"{d.kl_mean:.2e}", f"{d.top1:.2%}", str(d.flips)]
            for t, d in distances.items()
        ]
        print_rows(out, f"{second.label} against {first.label}", ["T", "max |diff|", "KL", "top-1", "flips"], rows)
        return
    if device not in ("cpu", "cuda"):
        raise UsageError(f"--device {device}: choose cpu or cuda")
    if output.exists() and not force:
        raise OutputExistsError(f"{output} exists; add --force or choose another --out")
    source = open_source(model, revision, random_weights)
    made = make_reference(source.model, source.text("heldout", text, 128), device, arithmetic=arithmetic)
    save_reference(made, output)
    if as_json:
        _print_json({"reference": str(output), "sha256": made.sha256, **made.provenance})
    else:
        where = f"{made.label} ({made.provenance['device_name']})"
        out.print(f"{output}: {where}, T in {sorted(made.logits)}, {made.sha256[:16]}")


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="Checkpoint folder (pickle or safetensors).")],
    target: Annotated[Path, typer.Argument(help="New folder.")],
) -> None:
    """Write a checkpoint as safetensors."""
    from parcae_mobile.checkpoint import find_folder

    for note in convert_checkpoint(find_folder(source), target):
        out.print(f"note: {note}")
    out.print(f"{target}: model.safetensors")


@app.command()
def bench(
    model: Model = "parcae-140m",
    random_weights: Annotated[bool, typer.Option(help="Draw seeded weights for a released shape.")] = True,
    quant: Annotated[list[str], typer.Option(help="Presets or recipes; may be repeated.")] = ["int4"],  # noqa: B006
    loop_form: Annotated[list[str], typer.Option(help="Loop forms; may be repeated.")] = ["stages", "scan"],  # noqa: B006
    loops: Annotated[list[int], typer.Option(help="Loop counts; may be repeated.")] = [1, 4, 8, 16],  # noqa: B006
    at_context: Annotated[list[int], typer.Option("--context", help="Contexts of decode steps.")] = [128, 1024],  # noqa: B006
    out_folder: Annotated[Path, typer.Option("--out", help="Where artifacts and bench.json go.")] = Path("build/bench"),
    threads: Threads = 1,
    as_json: Json = False,
) -> None:
    """Measure memory and speed of ONNX artifacts side by side."""
    from .bench import measure_memory, measure_speed, to_json
    from .pipeline import ExportRequest, run_export
    from .report import print_bench

    _set_threads(threads)
    folders = []
    with _progress(as_json) as progress:
        for name in quant:
            for form in loop_form:
                request = ExportRequest(
                    model=model,
                    random_weights=random_weights,
                    quant=name,
                    loop_form=form,
                    out=out_folder / form,
                    force=True,
                    verify=False,
                    max_loops=max(loops),
                )
                folders += [result.path for result in run_export(request, progress)]
        memory = [measure_memory(folder, count, threads=threads) for folder in folders for count in loops]
        speed = measure_speed(folders, loops, at_context, threads, progress=progress)
    measured = to_json(speed, memory)
    (out_folder / "bench.json").write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    if as_json:
        _print_json(measured)
    else:
        print_bench(out, speed, memory)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what is installed and which targets can be written and executed here."""
    from .doctor import diagnose
    from .report import print_rows

    findings = diagnose()
    if as_json:
        _print_json({"findings": [vars(finding) for finding in findings]})
        return
    rows = [["ok" if finding.fine else "!!", finding.subject, finding.detail] for finding in findings]
    print_rows(out, "", ["", "what", "found"], rows)


def _set_threads(threads: int) -> None:
    if threads < 0:
        raise UsageError(f"--threads {threads}: give 0 for the default, or 1 or more")
    if threads:
        import torch

        torch.set_num_threads(threads)


def _print_json(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value, indent=1, allow_nan=False, default=str) + "\n")


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[str], None]]:
    """A spinner with the present step on standard error, or nothing."""
    if quiet:
        yield lambda line: None
        return
    with err.status("starting") as status:
        yield lambda line: status.update(line)


def main() -> None:
    """Entry point: one line and an exit code for every error of ours."""
    try:
        app()
    except ParcaeError as error:
        if "--debug" in sys.argv:
            traceback.print_exc()
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        os._exit(1)


if __name__ == "__main__":
    main()
