"""The house rules that a reader relies on: which way imports flow, and what importing the package costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ("parcae_mobile", "quantize", "export")
HEAVY = {
    "onnx": ("export/targets/onnx/", "export/bench/"),
    "onnxruntime": ("export/targets/onnx/runtime/", "export/bench/"),
    "coremltools": ("export/targets/coreml/",),
    "executorch": ("export/targets/executorch/", "export/bench/"),
    "optimum": ("export/optimum_plugin.py",),
    "transformers": ("export/optimum_plugin.py",),
    "typer": ("export/cli/",),
    "tokenizers": ("parcae_mobile/tokenizer.py",),
}


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Every absolute module name that a file imports, wherever in the file, relative imports resolved."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) + "." if node.level else ""
            yield base + (node.module or "")


@pytest.mark.parametrize("package", LAYERS)
def test_imports_flow_one_way(package: str) -> None:
    above = set(LAYERS[LAYERS.index(package) + 1 :]) | {"tests", "training"}
    upward = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(package)
        for name in imported(path)
        if name.split(".")[0] in above
    ]
    assert modules(package) and not upward


@pytest.mark.parametrize("library", HEAVY)
def test_a_heavy_library_is_imported_only_where_it_is_needed(library: str) -> None:
    places = [
        path.relative_to(ROOT).as_posix()
        for package in LAYERS
        for path in modules(package)
        if any(name.split(".")[0] == library for name in imported(path))
    ]
    elsewhere = [place for place in places if not place.startswith(HEAVY[library])] if HEAVY[library] else places
    assert not elsewhere


def test_importing_the_model_package_loads_no_heavy_library() -> None:
    code = "import sys, parcae_mobile, quantize; print(' '.join(sorted({m.split('.')[0] for m in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    loaded = set(done.stdout.split())
    assert "torch" in loaded
    heavy = {"onnx", "onnxruntime", "coremltools", "executorch", "optimum", "transformers", "typer", "torchao"}
    assert not loaded & heavy


def test_no_module_is_longer_than_four_hundred_lines() -> None:
    long = {
        path.relative_to(ROOT).as_posix(): count
        for package in LAYERS
        for path in modules(package)
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > 400
    }
    assert not long


def test_every_module_says_what_it_is() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for package in LAYERS
        for path in modules(package)
        if ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) is None
    ]
    assert not silent
