"""Readable output: tables of an artifact's verdicts, of a model, of the environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from parcae_mobile.manifest import KV, Manifest, Verdict

if TYPE_CHECKING:
    from quantize.comparison import RecipePoint
    from quantize.guard import GuardRow
    from quantize.planning import PlannedTensor

# Colours that people who see few of them can tell apart; the word says it too.
PASSED, FAILED = "cyan", "bold red"


def print_artifact(console: Console, path: str, manifest: Manifest, problems: list[str]) -> None:
    """One artifact: what it is, what it weighs, what was proven about it."""
    total = sum(entry.bytes for entry in manifest.files.values())
    console.print(Text.assemble((path, "bold"), f"  {megabytes(total)}"), soft_wrap=True)
    span = f"T={manifest.min_loops}..{manifest.max_loops}, chosen at run time"
    loops = span if manifest.loops == "dynamic" else f"T={manifest.loops}"
    if manifest.graphs:
        loops = ", ".join(f"T={count} ({name})" for count, name in manifest.graphs.items()) + ", one weights file"
    console.print(
        f"  {manifest.target} ({manifest.loop_form}), {loops}; weights {manifest.quantization.recipe} "
        f"({manifest.quantization.algorithm}), activations {manifest.compute}; "
        f"cache {manifest.kv.policy} {manifest.kv.dtype}"
    )
    certificate = manifest.certificate
    if certificate.max_decay is not None:
        equal = "bit for bit the checkpoint's" if certificate.injection_matrix_equal else "NOT the checkpoint's"
        below = "< 1" if certificate.max_decay < 1 else "is NOT below 1"
        poles = f"max decay {certificate.max_decay:.8f} {below}"
        console.print(f"  injection poles: {poles}, re-read from the file; B {equal}")
    else:
        console.print(f"  injection: {certificate.note}")
    for problem in certificate.problems if not problems else ():
        console.print(Text.assemble("  ", ("FAILED", FAILED), f" {problem}"))
    for name, part in manifest.delegation.items():
        console.print(
            f"  XNNPACK takes {part.macs_share:.1%} of the multiply-accumulates and {part.operators_share:.1%} of the "
            f"operators of {name}, in {part.delegates} delegates"
        )
    if manifest.lowering.by_loops:
        console.print(_verdicts(manifest))
    if manifest.kv.measured:
        _print_policies(console, manifest.kv)
    for name, verdict in (("lowering", manifest.lowering), ("compression", manifest.compression)):
        own = ", own budget" if name == "compression" and manifest.quantization.own_budget else ""
        console.print(Text.assemble(f"  {name} gate: ", _outcome(verdict), own))
        if verdict.passed and verdict.note:
            console.print(Text(f"    {verdict.note}"))
    for count, why in sorted(manifest.closed.items(), key=lambda item: int(item[0])):
        console.print(Text.assemble("  ", ("closed", "yellow"), f" T={count}: {why}"))
    if manifest.kv.note:
        console.print(f"  {manifest.kv.note}")
    if manifest.reference is not None:
        reference = manifest.reference
        worst = max((d["max_abs"] or 0.0 for d in reference.distance.values()), default=0.0)
        note = f" ({reference.note})" if reference.note else ""
        console.print(
            f"  fp32 on this machine against the golden reference ({reference.device}): {worst:.1e} at most{note}"
        )
        for loops, distance in reference.artifact_distance.items():
            kl, top1 = _figure(distance["kl_mean"], ".1e"), _figure(distance["top1"], ".1%")
            console.print(f"  the artifact itself against the golden logits, T={loops}: KL {kl}, top-1 {top1}")
    for problem in problems:
        console.print(Text.assemble("  ", ("FAILED", FAILED), f" {problem}"))


def _print_policies(console: Console, kv: KV) -> None:
    """What each KV policy costs and holds."""
    rows = [
        [
            f"{policy} (chosen)" if policy == kv.policy else policy,
            f"{cost['kl_mean']:.1e} +- {cost['kl_sem']:.0e}",
            f"{cost['top1']:.1%}",
            f"{cost['bytes_per_token']:,.0f}",
            megabytes(int(cost["bytes_at_context"])),
        ]
        for policy, cost in kv.measured.items()
    ]
    columns = ["policy", "KL to full", "top-1", "bytes per token", f"at {kv.context} tokens"]
    print_rows(console, f"KV policies at T={kv.measured_at_loops}, decoding held-out text", columns, rows)


def print_memory(console: Console, rows: Sequence[dict[str, Any]]) -> None:
    """Resident memory above the empty process, by loop count."""
    for row in rows:
        cache = ", XNNPACK's weight cache on" if row["weight_cache"] else ""
        console.print(
            f"  resident memory at T={row['loops']}{cache}: at most {megabytes(row['peak'])} for four tokens, "
            f"{megabytes(row['caches'])} of that are caches"
        )


def _verdicts(manifest: Manifest) -> Table:
    title = "artifact against eager (lowering) and quantized against fp32 (compression)"
    table = Table(title=title, title_justify="left")
    artifact = ("T", "max |diff|", "KL", "top-1", "greedy", "without rounding", "state err")
    for column in (*artifact, "KL (compr.)", "+-", "top-1", "ppl ratio"):
        table.add_column(column, justify="right")
    for loops, low in manifest.lowering.by_loops.items():
        cost = manifest.compression.by_loops.get(loops, {})
        errors = low.get("state_errors") or [None]
        table.add_row(
            loops,
            _figure(low.get("max_abs"), ".1e"),
            _figure(low.get("kl_mean"), ".1e"),
            _figure(low.get("top1"), ".1%"),
            str(low.get("greedy_equal", "")),
            _figure(low.get("function", {}).get("max_abs"), ".1e"),
            _figure(errors[-1], ".1e"),
            _figure(cost.get("kl_mean"), ".1e"),
            _figure(cost.get("kl_sem"), ".0e"),
            _figure(cost.get("top1"), ".1%"),
            _figure(cost.get("perplexity_ratio"), ".4f"),
        )
    return table


def _figure(value: float | None, form: str) -> str:
    """A number, or a dash where it was not finite or not measured."""
    return "-" if value is None else format(value, form)


def _outcome(verdict: Verdict) -> Text:
    if verdict.passed is None:
        return Text(verdict.note or "not run")
    bounds = ", ".join(f"{key} {value:g}" for key, value in verdict.budget.items())
    return Text.assemble(("passed", PASSED) if verdict.passed else ("failed", FAILED), f" ({bounds})")


def print_model(console: Console, described: dict[str, Any]) -> None:
    """A model's shape, parameters and loop behaviour."""
    console.print(Text.assemble((described["model"], "bold"), f"  {described['parameters']:,} parameters"))
    prelude, recurrent, coda = described["layers"]
    console.print(
        f"  prelude {prelude}, recurrent {recurrent} (trained at {described['trained_loops']} loops), coda {coda}; "
        f"width {described['width']}, state {described['state_width']}, {described['heads']} heads, "
        f"vocabulary {described['vocabulary']}, context {described['context']}"
    )
    table = Table("component", "parameters", "share")
    for component, count in described["parameters_by_component"].items():
        table.add_row(component, f"{count:,}", f"{count / described['parameters']:.1%}")
    console.print(table)
    decay = described["decay"]
    if decay is None:
        console.print(f"  injection {described['injection']}: no poles, no stability guarantee")
    else:
        console.print(f"  decay {decay['min']:.4f} .. {decay['max']:.4f}, median {decay['median']:.4f}")
    changes = "  ".join(f"{loop}: {change:.2%}" for loop, change in described["state_change_by_loop"].items())
    console.print(f"  relative state change by loop ({described['state_change_text']}): {changes}")
    for note in described["notes"]:
        console.print(f"  note: {note}")


def print_plan(console: Console, recipe: str, table: Sequence[PlannedTensor]) -> None:
    """What each tensor would become, and the bytes by component."""
    from quantize.planning import bytes_by_component, total_bytes

    rows = [[row.name, " x ".join(map(str, row.shape)), row.format, f"{row.nbytes:,}"] for row in table]
    print_rows(console, f"recipe {recipe}", ["tensor", "shape", "becomes", "bytes"], rows)
    sums = [[part, megabytes(count)] for part, count in bytes_by_component(table).items()]
    floats = sum(row.float_bytes for row in table)
    print_rows(
        console, "", ["component", "size"], [*sums, ["all", f"{megabytes(total_bytes(table))} of {megabytes(floats)}"]]
    )


def print_injection(console: Console, rows: Sequence[GuardRow]) -> None:
    """What storing parts of the injection in fewer bits would have done."""
    columns = ["stored", "as", "max decay", *(f"state error T={loops}" for loops in rows[0].state_errors), "KL T=8"]
    table = [
        [
            row.stored,
            row.format,
            f"{row.max_decay:.6f}" if row.stable else f"{row.max_decay:.6f} UNSTABLE",
            *(f"{error:.1e}" for error in row.state_errors.values()),
            _figure(row.kl.get(8), ".1e"),
        ]
        for row in rows
    ]
    print_rows(console, "why the injection is left alone", columns, table)


def print_points(console: Console, points: Sequence[RecipePoint]) -> None:
    """Recipes side by side."""
    rows = [
        [
            point.recipe,
            point.algorithm,
            megabytes(point.nbytes),
            f"{point.distance.kl_mean:.2e} +- {point.distance.kl_sem:.0e}",
            f"{point.distance.top1:.1%}",
            _figure(point.distance.perplexity_ratio, ".4f"),
            _figure(point.growth, ".2f"),
        ]
        for point in points
    ]
    columns = ["recipe", "algorithm", "tensors", f"KL at T={points[0].loops}", "top-1", "ppl ratio", "KL T=16 / T=4"]
    print_rows(console, "recipes against fp32 on held-out text", columns, rows)


def print_rows(console: Console, title: str, columns: list[str], rows: list[list[str]]) -> None:
    """A plain table."""
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")  # names that are cut off are no names
    for row in rows:
        table.add_row(*row)
    console.print(table)


def megabytes(count: int) -> str:
    """Bytes as MB (1e6)."""
    return f"{count / 1e6:.2f} MB"
