"""The command `parcae-export`. Without a subcommand it exports; see `parcae-export --help`.

Exit codes: 0 done, 2 usage (or an output that exists), 3 bad input, 4 a gate failed, 5 a tool is missing.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

from export.cli import artifacts, bench, bundle, loops, models
from export.cli.app import (
    Checkpoint,
    Json,
    Model,
    Threads,
    Tokenizer,
    app,
    out,
    print_json,
    progress_line,
    set_threads,
)
from parcae_mobile.errors import GateError, ParcaeError, UsageError

DEFAULT_QUANT = "int4"
SUBCOMMANDS = (artifacts, bench, bundle, loops, models)  # importing them registers their commands


@app.callback(invoke_without_command=True)
def export(
    context: typer.Context,
    model: Model = None,
    revision: Annotated[str | None, typer.Option(help="Revision of a hub id.")] = None,
    tokenizer: Tokenizer = None,
    checkpoint: Checkpoint = None,
    random_weights: Annotated[bool, typer.Option(help="Draw seeded weights for a released shape.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of random weights and algorithms.")] = 0,
    target: Annotated[list[str], typer.Option(help="onnx, executorch, coreml or all; may be repeated.")] = ["onnx"],  # noqa: B006
    loops: Annotated[list[str], typer.Option(help="A loop count (may be repeated) or dynamic.")] = ["dynamic"],  # noqa: B006
    max_loops: Annotated[int, typer.Option(help="Most loops of a dynamic artifact.")] = 16,
    loop_form: Annotated[str | None, typer.Option(help="How the loop is composed.")] = None,
    portable: Annotated[bool, typer.Option(help="ONNX with standard operators only.")] = False,
    all_logits: Annotated[bool, typer.Option(help="Static ONNX: logits of all positions, not the last.")] = False,
    delegate: Annotated[str | None, typer.Option(help="ExecuTorch delegate: xnnpack; others say why not.")] = None,
    quant: Annotated[str, typer.Option(help="fp32, fp16, int8, int4, int4-small or a TOML file.")] = DEFAULT_QUANT,
    algorithm: Annotated[str, typer.Option(help="auto, rtn, hqq or gptq; auto is gptq where there is text.")] = "auto",
    distill: Annotated[int, typer.Option(help="Steps of training scales and norms against fp32.")] = 0,
    max_fallbacks: Annotated[int, typer.Option(help="Matrices that GPTQ may leave to rounding.")] = 0,
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
    from export.pipeline import ExportRequest, run_export
    from export.report.terminal import print_artifact, print_memory

    set_threads(threads)
    check_read(verify, kv, reference, text)
    request = ExportRequest(
        model=model,
        revision=revision,
        tokenizer=tokenizer,
        checkpoint=checkpoint,
        random_weights=random_weights,
        seed=seed,
        targets=target,
        loops=loops,
        max_loops=max_loops,
        loop_form=loop_form,
        portable=portable,
        all_logits=all_logits,
        delegate=delegate,
        quant=quant,
        algorithm=algorithm,
        distill=distill,
        max_fallbacks=max_fallbacks,
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
    with progress_line(quiet or as_json) as progress:
        results = run_export(request, progress)
    if as_json:
        print_json({"artifacts": [result.to_json() for result in results]})
    elif not quiet:
        for note in results[0].notes if results else []:
            out.print(f"note: {note}", markup=False)
        for result in results:
            print_artifact(out, str(result.path), result.manifest, result.problems)
            print_memory(out, result.memory)
            spent = ", ".join(f"{name} {seconds:.1f}" for name, seconds in result.seconds.items())
            out.print(f"  seconds: {spent}")
    failed = [result for result in results if not result.passed]
    if failed:
        raise GateError(f"{failed[0].path.name}: {failed[0].problems[0]}; see {failed[0].path}")


def check_read(verify: bool, kv: str, reference: Path | None, text: Path | None) -> None:
    """Raise `UsageError` for a file that is given and that nothing would read."""
    if not verify and reference is not None:
        raise UsageError(f"--reference {reference}: --no-verify compares with nothing; leave one of the two out")
    if not verify and text is not None and kv != "auto":
        raise UsageError(f"--text {text}: nothing reads it with --no-verify and --kv {kv}; leave it or --no-verify out")


def main() -> None:
    """Entry point: one line and an exit code for every error of ours, and for options that do not exist."""
    try:
        sys.exit(app(prog_name="parcae-export", standalone_mode=False) or 0)
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        command = "parcae-export" if context is None else context.command_path
        message = " ".join(error.format_message().split()).rstrip(".")
        sys.stderr.write(f"error: {message}; see {command} --help\n")
        sys.exit(error.exit_code)
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
