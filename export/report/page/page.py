"""Renders report.html: one page that opens offline, in light and dark, on a desk and on a phone.

    text = render([Subject(manifest, facts)])              # an artifact's own page
    text = render([Subject(read_manifest(folder), read_facts(folder)) for folder in folders])

The same facts give the same bytes. Everything that comes from a checkpoint or a manifest is escaped, and the page's own
policy forbids scripts and requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined

from export.report.page.clients import clients
from export.report.page.plots import plots
from export.report.page.stored import FACTS, facts_text
from export.report.page.subject import Subject, letters
from export.report.page.summary import WORDS, Table, comparison, key_figures
from export.targets.registry import TARGETS
from parcae_mobile.manifest import Manifest, Verdict

REPORT = "report.html"
_COLUMNS = (
    ("kl_mean", "mean KL", ".1e"),
    ("kl_p99", "99th percentile", ".1e"),
    ("top1", "top-1", ".2%"),
    ("max_abs", "greatest |difference|", ".1e"),
    ("perplexity_ratio", "perplexity ratio", ".4f"),
    ("greedy_equal", "greedy tokens equal", "d"),
)
_BOUNDS = {
    "kl_mean": ("mean KL", "at most"),
    "top1": ("top-1", "at least"),
    "max_abs": ("greatest difference", "at most"),
    "cosine": ("cosine", "at least"),
    "greedy_equal": ("equal greedy tokens", "at least"),
    "kl_p99": ("99th percentile of KL", "at most"),
    "kl_max": ("greatest KL", "at most"),
    "state_max": ("greatest state error", "at most"),
    "state_mean": ("mean state error", "at most"),
}


@dataclass(frozen=True)
class Line:
    """A gate's outcome as a word, with what it means."""

    word: str
    kind: str
    title: str
    detail: str

    @property
    def sign(self) -> str:
        """The outcome as a sign, for who does not see colours."""
        return {"passed": "\u2713", "failed": "\u2717"}.get(self.kind, "\u2013")


def render(subjects: Sequence[Subject]) -> str:
    """HTML text of a page about one or more artifacts."""
    alone = len(subjects) == 1
    title = subjects[0].manifest.artifact if alone else f"{len(subjects)} artifacts side by side"
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    source = resources.files("export.report.page").joinpath("template.html").read_text(encoding="utf-8")
    facts = subjects[0].facts if alone else None
    return environment.from_string(source).render(
        title=title,
        named=list(zip(subjects, letters(subjects), strict=True)),
        comparison=None if alone else comparison(subjects),
        plots=plots(subjects),
        titles={target.name: target.title for target in TARGETS.values()},
        figures=key_figures,
        verdicts=verdict_lines,
        measured=measured_tables,
        clients=clients,
        words=WORDS,
        facts_name=FACTS,
        facts=None if facts is None else facts_text(facts),
    )


def verdict_lines(subject: Subject) -> list[Line]:
    """The gates and the certificate, each with what it would have caught."""
    manifest = subject.manifest
    return [
        _gate(
            manifest.lowering,
            "Lowering: the files compute what PyTorch computes with the same weights",
            "It would have caught a wrong weight, a swapped matrix, a shifted cache slot, a wrong position or count",
        ),
        _gate(
            manifest.compression,
            "Compression: quantizing costs no more than the recipe allows",
            "It would have caught a recipe or an algorithm that loses too much, at any loop count that was judged",
        ),
        _certificate(manifest),
        *(
            Line("closed:", "closed", f"T={count} may not run", f"{why}.")
            for count, why in sorted(manifest.closed.items(), key=lambda item: int(item[0]))
        ),
    ]


def _gate(verdict: Verdict, title: str, caught: str) -> Line:
    if verdict.passed is None:
        return Line("not run:", "not-run", title, verdict.note)
    bounds = f" Bounds: {budget_words(verdict.budget)}." if verdict.budget else ""
    if verdict.passed:
        return Line("passed:", "passed", title, f"{caught}.{bounds}")
    return Line("FAILED:", "failed", title, f"{verdict.note}.{bounds}")


def budget_words(budget: dict[str, float]) -> str:
    """The bounds of a gate; those of its question about the function come first, and say that they are."""
    exact = {key.removeprefix("function."): bound for key, bound in budget.items() if key.startswith("function.")}
    rest = {key: bound for key, bound in budget.items() if not key.startswith("function.")}
    parts = [", ".join(bound_words(key, bound) for key, bound in group.items()) for group in (exact, rest) if group]
    return "; ".join(parts if not exact else ["without rounding " + parts[0], *(f"with it {p}" for p in parts[1:])])


def bound_words(key: str, bound: float) -> str:
    """A gate's bound as a reader says it."""
    name, side = _BOUNDS.get(key, (key, ""))
    return f"{name} {side} {bound:.1%}" if key == "top1" else " ".join(f"{name} {side} {bound:g}".split())


def _certificate(manifest: Manifest) -> Line:
    certificate = manifest.certificate
    title = "Pole certificate: the stable injection is the checkpoint's"
    if certificate.max_decay is None:
        if certificate.problems:
            return Line("FAILED:", "failed", title, "; ".join(certificate.problems))
        return Line("not run:", "not-run", title, certificate.note)
    good = not certificate.problems and certificate.max_decay < 1 and certificate.injection_matrix_equal is True
    matrix = "bit for bit the checkpoint's" if certificate.injection_matrix_equal else "not the checkpoint's"
    # repr keeps every digit: a decay just above 1 is never shown as 1
    detail = f"Greatest decay {certificate.max_decay!r}, re-read from the file; B is {matrix}."
    return Line("passed:" if good else "FAILED:", "passed" if good else "failed", title, detail)


def measured_tables(subject: Subject) -> list[Table]:
    """Figures of both gates by loop count, of the KV policies, and of the files."""
    manifest = subject.manifest
    tables = [
        _by_loops("Lowering: the artifact against eager PyTorch with the same weights", manifest.lowering),
        _by_loops("Compression: quantized against fp32, held-out text", manifest.compression),
        _policies(manifest),
        Table(
            "Files",
            ["file", "bytes", "SHA-256"],
            [[name, f"{entry.bytes:,}", entry.sha256] for name, entry in manifest.files.items()],
        ),
    ]
    return [table for table in tables if table.rows]


def _by_loops(title: str, verdict: Verdict) -> Table:
    judged = verdict.by_loops.values()
    columns = [column for column in _COLUMNS if any(row.get(column[0]) is not None for row in judged)]
    rows = [
        [f"T={loops}", *(_cell(row.get(key), form) for key, _, form in columns)]
        for loops, row in sorted(verdict.by_loops.items(), key=lambda item: int(item[0]))
    ]
    return Table(title, ["loops", *(heading for _, heading, _ in columns)], rows)


def _policies(manifest: Manifest) -> Table:
    rows = [
        [
            f"{policy} (chosen)" if policy == manifest.kv.policy else policy,
            f"{cost['kl_mean']:.1e}",
            f"{cost['top1']:.2%}",
            f"{cost['bytes_per_token']:,.0f}",
        ]
        for policy, cost in manifest.kv.measured.items()
    ]
    title = f"KV policies at T={manifest.kv.measured_at_loops}"
    return Table(title, ["policy", "KL to full", "top-1", "bytes per token"], rows)


def _cell(value: Any, form: str) -> str:
    return "-" if value is None else format(value, form)
