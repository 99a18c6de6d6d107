"""What an export needs is asked before it begins, and refused in one line where the machine cannot hold it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from export import resources
from export.resources import Needs, available_memory, check, estimate
from parcae_mobile.config import RELEASED_SHAPES, released_config
from parcae_mobile.errors import ResourceError
from quantize import load_recipe


def test_larger_shapes_and_more_artifacts_need_more() -> None:
    recipe = load_recipe("int4")
    needs = [estimate(released_config(shape), recipe, {"onnx"}) for shape in RELEASED_SHAPES]
    assert [need.memory for need in needs] == sorted(need.memory for need in needs)
    assert needs[0].memory > 4 * 4 * 140e6 and 80e6 < needs[0].disk < 140e6
    three = estimate(released_config("parcae-140m"), recipe, {"onnx", "executorch", "coreml"}, artifacts=3)
    assert three.disk == 3 * needs[0].disk and three.memory > needs[0].memory and three.temporary > 0
    assert estimate(released_config("parcae-140m"), load_recipe("fp32"), {"onnx"}).disk > 5 * needs[0].disk


@pytest.mark.parametrize(
    ("needs", "words"),
    [
        (Needs(2**60, 0, 0), "of memory, "),
        (Needs(0, 2**60, 0), "of disk, "),
        (Needs(0, 0, 2**60), "TMPDIR|of disk, "),
    ],
)
def test_what_cannot_fit_is_refused(needs: Needs, words: str, tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match=words) as caught:
        check(needs, tmp_path / "not" / "made" / "yet")
    assert "\n" not in str(caught.value) and list(tmp_path.iterdir()) == []


def test_what_fits_passes(tmp_path: Path) -> None:
    check(Needs(1, 1, 1), tmp_path)
    assert available_memory() > 1_000_000


def test_a_container_may_have_less_than_its_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("memory.max", "1000"), ("memory.current", "900"), ("memory.stat", "anon 1\ninactive_file 50")):
        (tmp_path / name).write_text(text, encoding="ascii")
    monkeypatch.setattr(resources, "_CGROUP", tmp_path)
    assert available_memory() == 150
    (tmp_path / "memory.max").write_text("max", encoding="ascii")
    assert available_memory() > 150


def test_the_command_refuses_before_it_loads_anything(
    cli: Callable[..., Any], mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = SimpleNamespace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)
    monkeypatch.setattr("export.pipeline.open_source", lambda *rest, **more: pytest.fail("the model was loaded"))
    ran = cli("--model", mini, "--out", tmp_path / "out")
    assert ran.code == 3 and "of disk, 0.0 GB are free" in ran.line and not (tmp_path / "out").exists()
