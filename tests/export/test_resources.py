"""What an export needs is asked before it begins, and refused in one line where the machine cannot hold it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from export import resources
from export.bench import resources as measured
from export.bench.resources import BOUND, Row, read_rows
from export.bench.resources import table as resource_table
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
    unjudged = estimate(released_config("parcae-140m"), recipe, {"onnx"}, gates=False)
    assert unjudged.memory <= needs[0].memory and unjudged.seconds < needs[0].seconds < three.seconds


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


def test_an_estimate_is_said_with_what_the_machine_has() -> None:
    said = Needs(3_000_000_000, 120_000_000, 0, 250).said(available=8_000_000_000)
    assert said == "about 3.0 GB of memory (8.0 GB free), 0.1 GB of disk, 4 minutes of one core, roughly"
    assert "under a minute of one core" in Needs(1, 1, 1, 20).said(available=1)


def test_a_table_of_measurements_lists_what_was_not_run(tmp_path: Path) -> None:
    good = Row("parcae-140m", "onnx", "int4", False, 10**9, 60.0, 90.0, 98_000_000, "ok")
    table = resource_table([good, replace(good, target="coreml", gates=True, peak=BOUND + 1)]).splitlines()
    assert len(table) == 2 + 4 * 3 * 2 and sum("not run" in line for line in table) == 22
    assert "| 1.00 |" in table[2] and "ABOVE" not in table[2]
    assert ["ABOVE" in line for line in table if "| yes |" in line] == [True]
    assert good.within and read_rows(tmp_path) == []


def test_an_export_that_takes_too_much_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured, "BOUND", 1)  # any process is above it
    row = measured.measure("parcae-140m", "onnx", "int4", gates=False)
    assert row.outcome.startswith("stopped at ") and not row.within and row.artifact == 0


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
