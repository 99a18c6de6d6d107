"""docs/checkpoint-to-phone.ipynb: its cells run in order, on the embedded model, and its pictures are pictures."""

from __future__ import annotations

import ast
import importlib
import json
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parent.parent / "docs" / "checkpoint-to-phone.ipynb"


def code_cells() -> list[str]:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def run_cell(code: str, names: dict[str, Any]) -> Any:
    """The value of a cell's last expression, which a notebook shows."""
    body = ast.parse(code).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), "cell", "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), names)


@pytest.mark.acceptance
def test_every_cell_runs_and_shows_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    shown = [run_cell(code, names) for code in code_cells()]
    assert shown[0]["model"] == "parcae-tiny" and names["result"].passed
    assert all("KL 0.0" in line for line in shown[2].values())
    pictures = [value._repr_html_() for value in shown if hasattr(value, "_repr_html_")]
    assert len(pictures) == 3 and all(html.count("<svg") == 1 and "--series-1:" in html for html in pictures)
    assert (tmp_path / "build/notebook/app/notebook/app.json").is_file()


def test_what_it_imports_is_there() -> None:
    for node in ast.walk(ast.parse("\n".join(code_cells()))):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            module = importlib.import_module(node.module)
            assert not [alias.name for alias in node.names if not hasattr(module, alias.name)], node.module


def test_it_is_kept_without_results_of_somebodys_machine() -> None:
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        assert cell.get("outputs", []) == [] and cell.get("execution_count") is None
    assert len(code_cells()) >= 8
