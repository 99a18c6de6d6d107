"""The house rules that a reader relies on: which way imports flow, and what importing the package costs."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ("parcae_mobile", "quantize", "export")
PACKAGES = (*LAYERS, "training", "app_kit")
# The rooms of export/, lowest first: a file imports from its own room and from those below.
ROOMS = (
    *("beside", "stages", "source", "texts", "targets", "kv", "request", "answers", "resources", "job", "artifact"),
    *("gates", "run", "report", "prepare", "pipeline", "optimum_plugin", "bench", "bundle", "cli"),
)
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


@functools.cache
def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def imported(path: Path) -> tuple[str, ...]:
    """Every absolute module name that a file imports, wherever in the file, relative imports resolved."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    names: list[str] = []
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) + "." if node.level else ""
            names.append(base + (node.module or ""))
    return tuple(names)


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


@functools.cache
def needed(path: Path) -> set[str]:
    """The project's own modules that a file imports when it runs: what only types need is left out."""
    nodes = list(ast.walk(parsed(path)))
    blocks = [node.body for node in nodes if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    of_types = {inner for block in blocks for statement in block for inner in ast.walk(statement)}
    package = path.relative_to(ROOT).parts[:-1]
    names = set()
    for node in (node for node in nodes if node not in of_types):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return {name for name in names if name.split(".")[0] in LAYERS}


def test_the_rooms_of_export_are_used_from_above_only() -> None:
    places = {name: place for place, name in enumerate(ROOMS)}
    upward = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules("export")
        if path.parent != ROOT / "export" or path.stem != "__init__"
        for name in sorted(needed(path))
        if name.startswith("export.")
        and places[name.split(".")[1]] > places[path.relative_to(ROOT / "export").with_suffix("").parts[0]]
    ]
    assert not upward


def test_no_modules_import_each_other_in_a_circle() -> None:
    paths = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path for package in LAYERS for path in modules(package)
    }
    uses = {name: needed(path) & set(paths) - {name} for name, path in paths.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail[trail.index(name) :], name))
        if name not in done:
            for used in sorted(uses[name]):
                visit(used, (*trail, name))
            done.add(name)

    for name in uses:
        visit(name, ())


def test_no_room_of_export_is_crowded() -> None:
    counts = Counter(path.parent.relative_to(ROOT).as_posix() for path in modules("export") if path.stem != "__init__")
    assert not {folder: count for folder, count in counts.items() if count > 12}


def test_every_room_of_export_is_on_the_list_and_opens_without_imports() -> None:
    rooms = {path.relative_to(ROOT / "export").with_suffix("").parts[0] for path in modules("export")}
    assert rooms - {"__init__"} == set(ROOMS)
    openings = [path for path in modules("export") if path.stem == "__init__"]
    assert openings and not [str(path.relative_to(ROOT)) for path in openings if imported(path)]


def test_nothing_but_a_row_of_the_registry_knows_a_target_by_its_name() -> None:
    """What differs between targets is asked of the row. An app's platform and a table of bench name formats."""
    names = ("onnx", "executorch", "coreml")
    elsewhere = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in modules("export")
        if not path.is_relative_to(ROOT / "export" / "bundle") and not path.is_relative_to(ROOT / "export" / "bench")
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Compare)
        and any(isinstance(side, ast.Constant) and side.value in names for side in (node.left, *node.comparators))
    ]
    assert not elsewhere


def functions(package: str) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Each function with the place where it is."""
    for path in modules(package):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef):
                yield f"{path.relative_to(ROOT).as_posix()}:{node.lineno} {node.name}", node


@pytest.mark.parametrize("package", PACKAGES)
def test_no_function_is_longer_than_sixty_lines(package: str) -> None:
    long = [place for place, node in functions(package) if (node.end_lineno or 0) - node.lineno >= 60]
    assert not long


@pytest.mark.parametrize("package", LAYERS)
def test_variables_are_nouns(package: str) -> None:
    participles = {"given", "held", "kept", "made", "found"}
    verbal = [
        f"{place}: {name}"
        for place, function in functions(package)
        for node in ast.walk(function)
        for name in [node.arg if isinstance(node, ast.arg) else node.id if isinstance(node, ast.Name) else ""]
        if name in participles
    ]
    assert not verbal


def test_help_is_shown_without_loading_torch() -> None:
    code = "import sys; sys.argv[1:] = ['--help']; import export.cli.main as m\n"
    code += "try: m.main()\nexcept SystemExit: print('loaded', 'torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert "--max-loops" in done.stdout and done.stdout.splitlines()[-1] == "loaded False False"


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


def test_opening_a_model_loads_no_heavy_library() -> None:
    """Nor torch's compiler, which is 900 modules and seconds, and which an operation on the meta device can pull in."""
    code = "import sys, parcae_mobile, quantize; parcae_mobile.load_model('parcae_mobile/tiny')\n"
    code += "print(' '.join(sorted({m.split('.')[0] for m in sys.modules})), 'torch._dynamo' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    loaded = set(done.stdout.split())
    assert "torch" in loaded and "False" in loaded
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
        if ast.get_docstring(parsed(path)) is None
    ]
    assert not silent


def test_every_file_that_the_architecture_page_names_is_there() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = {match.removeprefix("tests/") for match in re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.(?:py|toml))[:`]", page)}
    missing = {name for name in named if not any((ROOT / top / name).exists() for top in ("", "export", "tests"))}
    assert len(named) > 30 and not missing
