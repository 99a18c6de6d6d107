"""The documents: generated pages are what the program writes now, links lead somewhere, code in them is this code."""

from __future__ import annotations

import ast
import importlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import typer

from parcae_mobile.errors import ParcaeError

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "app_kit").glob("*.md")])


def test_generated_pages_are_what_the_program_says() -> None:
    done = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(page: Path) -> None:
    text = re.sub(r"(?s)```.*?```", "", page.read_text(encoding="utf-8"))
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"[a-z]+:", link)]
    broken = [link for link in links if link.split("#")[0] and not (page.parent / link.split("#")[0]).exists()]
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_a_document_names_exist(page: Path) -> None:
    pattern = r"`((?:export|parcae_mobile|quantize|tests|training|app_kit)/[\w./-]+\.(?:py|json|toml|html))`"
    named = re.findall(pattern, page.read_text(encoding="utf-8"))
    assert not [name for name in named if not (ROOT / name).exists()]


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"))


def commands() -> Iterator[tuple[str, list[str]]]:
    """(page, words) of every call of the command that a document shows, lines that go on joined."""
    for page in PAGES:
        if page.name == "cli.md":
            continue
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for line in re.findall(r"(?m)^(?:    )?(?:\$ )?(?:\.venv/bin/)?(parcae-export\b.*)$", text):
            for part in re.split(r";|&&", line.split(" #")[0]):
                words = shlex.split(part)
                if words[:1] == ["parcae-export"] and "|" not in words:
                    yield str(page.relative_to(ROOT)), words[1:]


def test_commands_in_documents_exist_with_their_options() -> None:
    from export.cli.main import app

    command = typer.main.get_command(app)
    subcommands = command.commands  # type: ignore[attr-defined]
    shown = list(commands())
    assert len(shown) > 40
    wrong = []
    for page, words in shown:
        named = subcommands.get(words[0]) if words and not words[0].startswith(("-", "$")) else command
        if named is None:
            wrong.append(f"{page}: parcae-export {words[0]}")
            continue
        known = {option for parameter in named.params for option in (*parameter.opts, *parameter.secondary_opts)}
        wrong += [f"{page}: {word}" for word in words if word.startswith("--") and word.split("=")[0] not in known]
    assert not wrong


PYTHON = [(page, code) for page in PAGES for code in blocks(page, "python")]


@pytest.mark.parametrize(("page", "code"), PYTHON, ids=[f"{page.name}-{n}" for n, (page, _) in enumerate(PYTHON)])
def test_python_in_documents_imports_what_is_there(page: Path, code: str) -> None:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in (
            "parcae_mobile",
            "quantize",
            "export",
        ):
            module = importlib.import_module(node.module or "")
            assert not [alias.name for alias in node.names if not hasattr(module, alias.name)], page


def test_the_readmes_python_runs(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "checkpoint").symlink_to(data / "tiny-trained")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"input_ids": torch.tensor([[1, 2, 3]])}
    (code,) = blocks(ROOT / "README.md", "python")
    exec(compile(code, "README.md", "exec"), names)
    logits = names["logits"]
    assert isinstance(logits, torch.Tensor) and logits.shape[:2] == (1, 3) and "quantized" in names


@pytest.mark.acceptance
def test_the_tutorials_commands_run_one_after_another(tmp_path: Path) -> None:
    shown = [words for page, words in commands() if page == "docs/tutorial.md"]
    assert len(shown) >= 7
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for words in shown:
        line = [sys.executable, "-m", "export.cli.main", *words]
        done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (words, done.stderr)
    assert (tmp_path / "dist/compare.html").is_file() and (tmp_path / "dist/app/models.json").is_file()


@pytest.mark.acceptance
def test_the_interpreters_example_counts_to_three(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("coremltools")
    monkeypatch.chdir(tmp_path)
    (code,) = [code for code in blocks(ROOT / "docs/mil-interpreter.md", "python") if "ct.convert" in code]
    exec(compile(code, "mil-interpreter.md", "exec"), {})
    assert [line for line in capsys.readouterr().out.splitlines() if "3." in line]


def test_every_error_says_what_to_do_and_its_messages_are_found() -> None:
    generate = importlib.import_module("docs.generate")
    assert all(item.next_step.endswith(".") for item in generate.error_classes())
    assert issubclass(generate.error_classes()[0], ParcaeError)
    source = 'def f(path):\n    raise InputError(f"{path} is empty; " f"give {self.other_name}")\n'
    assert list(generate.raised(ast.parse(source), {"InputError"})) == [
        ("InputError", "<path> is empty; give <other name>")
    ]
    page = generate.message_page()
    assert "- `--device <device>: choose cpu or cuda`" in page and page.count("\n- `") > 200
