"""What an export says on the terminal: few lines in plain words, each thing once, and progress where somebody looks."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from export.cli import app
from export.report.outcome import print_outcome
from parcae_mobile.manifest import Manifest, read_manifest


@pytest.fixture(scope="module")
def manifest(exported: tuple[Path, Any]) -> Manifest:
    return read_manifest(exported[0])


def said(manifest: Manifest, path: Path, problems: list[str]) -> list[str]:
    console = Console(file=io.StringIO(), width=100)
    print_outcome(console, path, manifest, problems)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_a_screen_is_not_filled_and_nobody_needs_to_know_what_kl_is(manifest: Manifest) -> None:
    path = Path("dist") / manifest.artifact
    lines = said(manifest, path, [])
    assert len(lines) <= 9 and max(map(len, lines)) <= 100
    assert not any(word in " ".join(lines) for word in ("KL", "top-1", "cosine", "max_abs"))
    loops, cost = "4", manifest.compression.by_loops["4"]
    assert (
        f"{cost['top1']:.1%} of next tokens are those of the fp32 model" in " ".join(lines) and f"T={loops}" in lines[4]
    )
    assert lines[-1].endswith(f"parcae-export generate {path}")


def test_a_failure_is_named_and_the_first_problem_left_to_the_error_line(manifest: Manifest) -> None:
    failed = manifest.compression.model_copy(update={"passed": False, "note": "first"})
    broken = manifest.model_copy(update={"compression": failed})
    text = "\n".join(said(broken, Path("dist/x.failed"), ["compression gate: first", "second"]))
    assert "quality FAILED, see below" in text and "also    FAILED second" in text and "first" not in text
    assert "dist/x.failed was not published" in text and "generate" not in text


def test_what_was_not_judged_is_not_called_passed(manifest: Manifest) -> None:
    blank = manifest.lowering.model_copy(update={"passed": None, "by_loops": {}, "note": "not run (--no-verify)"})
    lines = said(manifest.model_copy(update={"lowering": blank}), Path("dist/x"), [])
    assert next(line for line in lines if line.startswith("  files")) == "  files   not run (--no-verify)"


def test_progress_counts_and_says_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = io.StringIO()
    monkeypatch.setattr(app, "err", Console(file=seen, force_terminal=True, width=100))
    with app.progress_line(quiet=False) as progress:
        progress("loading the model")
        for done in range(1, 4):
            progress(f"quantizing: tensor {done}", done, 4)
            seen.flush()
    assert "3/4" in seen.getvalue() and "tensor 3" in seen.getvalue()


def test_where_nobody_looks_progress_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = io.StringIO()
    monkeypatch.setattr(app, "err", Console(file=seen, width=100))
    with app.progress_line(quiet=False) as progress:
        progress("quantizing: tensor", 1, 4)
    assert seen.getvalue() == ""
