"""The wheel: what is in it, and that its command answers at once and says the version that stands in pyproject.toml."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("parcae_mobile", "quantize", "export", "optimum")
pytestmark = pytest.mark.acceptance  # a wheel takes five seconds to build
HELP_SECONDS = 0.6  # of processor time, which other processes on the machine do not change


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: a build leaves files beside its sources, and takes in what an earlier one left."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "node_modules", ".*", "dist", "target")
    for name in (*PACKAGES, "training", "tests", "app_kit"):
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-q", "-w", out]
    done = subprocess.run([*map(str, command), str(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = out.glob("*.whl")
    return built


def test_the_wheel_holds_the_packages_and_their_data_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    inside = {name for name in names if ".dist-info/" not in name}
    assert {name.split("/")[0] for name in inside} == set(PACKAGES)
    assert {Path(name).suffix for name in inside} <= {
        ".py",
        ".json",
        ".toml",
        ".html",
        ".txt",
        ".md",
        ".npz",
        ".safetensors",
    }
    data = ("export/report/page/template.html", "export/bench/goals.toml", "quantize/presets/int4.toml")
    assert inside.issuperset(data)
    tracked = {str(path.relative_to(ROOT)) for name in PACKAGES for path in (ROOT / name).rglob("*.py")}
    assert {name for name in inside if name.endswith(".py")} == tracked
    tiny = {f"parcae_mobile/tiny/{path.name}" for path in (ROOT / "parcae_mobile/tiny").iterdir() if path.is_file()}
    assert tiny <= inside


def test_the_command_in_the_wheel_answers_at_once(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", "import sys; from export.cli.main import main; sys.argv[1:] = ['--help']; main()"]
    seconds = []
    for _ in range(3):  # the first one compiles
        before = os.times()
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        after = os.times()
        assert done.returncode == 0 and "--quant" in done.stdout
        used = (after.children_user - before.children_user) + (after.children_system - before.children_system)
        seconds.append(used)
    assert min(seconds) < HELP_SECONDS


def test_the_version_stands_in_one_place(wheel: Path) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert wheel.name.split("-")[1] == version
    code = [path for name in PACKAGES for path in (ROOT / name).rglob("*.py")]
    assert not [path for path in code if f'"{version}"' in path.read_text(encoding="utf-8")]
