"""What an export says on the terminal when nothing more was asked: what was made, what was checked, what comes next.

print_outcome(console, result.path, result.manifest, result.problems)
"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.text import Text

from export.report.page.subject import Subject
from export.report.terminal import FAILED, PASSED, megabytes
from export.targets.registry import find_target
from parcae_mobile.manifest import Manifest, Verdict


def print_outcome(console: Console, path: Path, manifest: Manifest, problems: list[str]) -> None:
    """Lines that need no knowledge of the pipeline. The first problem is left to the error that follows."""
    subject = Subject(manifest)
    counts = (
        f"T = {manifest.min_loops} to {manifest.max_loops} times, as you choose"
        if manifest.loops == "dynamic"
        else f"T = {manifest.loops} times"
    )
    if manifest.graphs:
        counts = "T = " + ", ".join(sorted(manifest.graphs, key=int)) + " times, one graph for each"
    title = find_target(manifest.target).title
    console.print(
        Text.assemble((manifest.artifact, "bold"), f": {manifest.model} for {title}; its loop runs {counts}"),
        soft_wrap=True,
    )
    cache = subject.cache_bytes()
    constant = "the same at every T" if len(set(cache.values())) == 1 and len(cache) > 1 else f"at T={max(cache)}"
    recipe, context = manifest.quantization.recipe, f"{manifest.kv.context:,} tokens"
    rows: list[tuple[str, str | Text]] = [
        ("size", f"{megabytes(subject.app_bytes)} to ship (weights {recipe}, activations {manifest.compute})"),
        ("memory", f"{megabytes(max(cache.values()))} more for a text of {context}, {constant}"),
        ("files", _gate(manifest.lowering, _lowering(manifest))),
        ("quality", _gate(manifest.compression, _compression(subject))),
        ("loop", _certificate(manifest)),
    ]
    for name, words in rows:
        console.print(Text.assemble(f"  {name:<8}", words), soft_wrap=True)
    for count, why in sorted(manifest.closed.items(), key=lambda item: int(item[0])):
        console.print(Text.assemble("  ", ("closed", "yellow"), f"  T={count}: {why}"), soft_wrap=True)
    if manifest.kv.note:
        console.print(f"  cache   {manifest.kv.note}", soft_wrap=True)
    for problem in problems[1:]:
        console.print(Text.assemble("  also    ", ("FAILED", FAILED), f" {problem}"), soft_wrap=True)
    if problems:
        console.print(f"{path} was not published; {path / 'report.html'} shows what was measured", soft_wrap=True)
        return
    console.print(f"  see     {path / 'report.html'}", soft_wrap=True)
    console.print(f"  next    parcae-export generate {path}", soft_wrap=True)


def _gate(verdict: Verdict, passed: str) -> Text:
    if verdict.passed is None:
        return Text(verdict.note or "not run")
    if verdict.passed:
        return Text.assemble(("passed", PASSED), f": {passed}")
    return Text.assemble(("FAILED", FAILED), ", see below")


def _lowering(manifest: Manifest) -> str:
    counts = ", ".join(sorted(manifest.lowering.by_loops, key=int))
    return f"they compute what PyTorch computes with the same weights, at T={counts}"


def _compression(subject: Subject) -> str:
    if subject.cost is None:
        return "as the fp32 model"
    loops, cost = subject.cost
    words = f"{cost['top1']:.1%} of next tokens are those of the fp32 model"
    ratio = cost.get("perplexity_ratio")
    return f"{words}, perplexity {100 * (ratio - 1):+.1f}% (T={loops})" if ratio is not None else f"{words} (T={loops})"


def _certificate(manifest: Manifest) -> Text:
    certificate = manifest.certificate
    if certificate.problems:
        return Text.assemble(("FAILED", FAILED), ", see below")
    if certificate.max_decay is None:
        return Text(certificate.note or "not checked")
    words = f": what keeps it stable is the checkpoint's (greatest decay {certificate.max_decay:.4f}, below 1)"
    return Text.assemble(("passed", PASSED), words)
