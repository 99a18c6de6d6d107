"""Subcommands on models and machines: reference, recipes, convert, doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from export.cli.app import Checkpoint, Json, Model, Tokenizer, app, out, print_json, progress_line
from parcae_mobile.errors import UsageError

QUANTS = ("int8", "int4", "int4-small")


@app.command()
def reference(
    model: Model = None,
    revision: Annotated[str | None, typer.Option(help="Revision of a hub id.")] = None,
    tokenizer: Tokenizer = None,
    checkpoint: Checkpoint = None,
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
    from export.report.terminal import print_rows
    from export.source import open_source
    from parcae_mobile.errors import OutputExistsError
    from parcae_mobile.golden import compare_references, load_reference, make_reference, save_reference

    if compare is not None:
        first, second = (load_reference(path) for path in compare)
        distances = compare_references(first, second)
        if as_json:
            print_json(
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
    source = open_source(model, revision, random_weights, tokenizer=tokenizer, checkpoint=checkpoint)
    golden = make_reference(source.model, source.text("heldout", text, 128), device, arithmetic=arithmetic)
    save_reference(golden, output)
    if as_json:
        print_json({"reference": str(output), "sha256": golden.sha256, **golden.provenance})
    else:
        where = f"{golden.label} ({golden.provenance['device_name']})"
        out.print(f"{output}: {where}, T in {sorted(golden.logits)}, {golden.sha256[:16]}", soft_wrap=True)


@app.command()
def recipes(
    model: Model = None,
    revision: Annotated[str | None, typer.Option(help="Revision of a hub id.")] = None,
    tokenizer: Tokenizer = None,
    checkpoint: Checkpoint = None,
    quant: Annotated[list[str], typer.Option(help="Presets or recipes; may be repeated.")] = list(QUANTS),  # noqa: B006
    algorithm: Annotated[list[str], typer.Option(help="Algorithms; may be repeated.")] = ["auto"],  # noqa: B006
    windows: Annotated[int, typer.Option(help="Held-out windows of 256 tokens.")] = 32,
    plot: Annotated[Path | None, typer.Option(help="Write size against KL as SVG.")] = None,
    as_json: Json = False,
) -> None:
    """Measure recipes side by side: bytes and distance from fp32 on held-out text."""
    from export.report.facts import held_out
    from export.report.terminal import print_points
    from export.source import open_source
    from export.texts import calibration_windows
    from quantize.comparison import compare_recipes, plot_recipes
    from quantize.recipe import load_recipe

    if plot is not None and not plot.parent.is_dir():
        raise UsageError(f"--plot {plot}: there is no folder {plot.parent}; make it first")
    loaded = [load_recipe(name) for name in quant]
    source = open_source(model, revision, tokenizer=tokenizer, checkpoint=checkpoint)
    if not source.real:
        raise UsageError("this model has no tokenizer, so nothing can be said about quality; give --tokenizer")
    with progress_line(as_json) as progress:
        points = compare_recipes(
            source.model,
            held_out(source, windows),
            loaded,
            calibration_windows(source, None),
            algorithm,
            progress=lambda name, done, total: progress(f"comparing: {name}", done, total),
        )
    if plot is not None:
        plot_recipes(points, plot)
    if as_json:
        print_json({"recipes": [point.to_dict() for point in points]})
    else:
        print_points(out, points)


@app.command()
def convert(
    source: Annotated[str, typer.Argument(help="Checkpoint folder (pickle or safetensors), training run, or hub id.")],
    target: Annotated[Path, typer.Argument(help="New folder.")],
    tokenizer: Tokenizer = None,
    checkpoint: Checkpoint = None,
) -> None:
    """Write a checkpoint as safetensors, with its tokenizer, and read it back."""
    from parcae_mobile.checkpoint import convert as convert_checkpoint
    from parcae_mobile.checkpoint import find_folder

    hub_id = None if Path(source).is_dir() else source
    for note in convert_checkpoint(find_folder(source), target, checkpoint, tokenizer, hub_id):
        out.print(f"note: {note}", soft_wrap=True)
    out.print(f"{target}: model.safetensors", soft_wrap=True)


@app.command()
def doctor(
    model: Model = None,
    revision: Annotated[str | None, typer.Option(help="Revision of a hub id.")] = None,
    quant: Annotated[str, typer.Option(help="With --model: preset or recipe.")] = "int4",
    context: Annotated[int | None, typer.Option(help="With --model: most tokens; default the model's.")] = None,
    as_json: Json = False,
) -> None:
    """Say what is installed and what can be written here; with --model, which targets and loop forms take it."""
    from export.report.doctor import diagnose, shape_table
    from export.report.terminal import print_rows

    if model is not None:
        table = shape_table(model, quant, context, revision)
        if as_json:
            print_json({"model": model, "quant": quant, "targets": [vars(answer) for answer in table]})
            return
        lines = [[a.flavour, a.form, "yes" if a.why is None else "no", a.why or ""] for a in table]
        print_rows(out, "", ["target", "loop form", "takes it", "why not"], lines)
        return
    findings = diagnose()
    if as_json:
        print_json({"findings": [vars(finding) for finding in findings]})
        return
    rows = [["ok" if finding.fine else "!!", finding.subject, finding.detail] for finding in findings]
    print_rows(out, "", ["", "what", "found"], rows)
