"""A new target is one folder and one row: it exports, is judged, generates and is inspected like the others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from export.targets.registry import TARGETS, Target

ROW = Target(
    name="toy",
    title="Toy",
    module="toy_target.writer",
    shapes_module="toy_target.shapes",
    host_module="toy_target.host",
    exact_module="toy_target.host",  # fp32 arithmetic rounds nothing: the host itself is asked
    extra="toy",
    packages=("torch",),
    dynamic_forms=("stages",),
    static_forms=("unrolled",),
    computes=("fp32",),
    kv_dtypes=("fp32",),
    shared_kv_forms=(),
    host_runtime="eager",
    runtime_module="torch",
)


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    monkeypatch.setitem(TARGETS, "toy", ROW)


@pytest.mark.usefixtures("registered")
def test_a_new_target_is_one_folder_and_one_row(
    cli: Callable[..., Any], mini: Path, text: Path, loose: Path, tmp_path: Path
) -> None:
    ran = cli(
        *("--target", "toy", "--model", mini, "--text", text, "--calibration", text),
        *("--quant", loose, "--accept-budget"),
        *("--kv", "full", "--context", 64, "--max-loops", 4, "--out", tmp_path, "--json"),
    )
    assert ran.code == 0, ran.err
    (artifact,) = ran.json["artifacts"]
    assert artifact["target"] == "toy" and artifact["lowering"]["passed"] is True
    folder = Path(artifact["artifact"])
    assert cli("verify", folder).code == 0
    generated = cli("generate", folder, "--prompt", "def f", "--tokens", 6, "--json")
    assert generated.code == 0 and len(generated.json["tokens"]) > 0
    assert "toy (stages)" in cli("inspect", folder).out


@pytest.mark.usefixtures("registered")
def test_a_row_with_a_missing_package_says_what_to_install(
    cli: Callable[..., Any], mini: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(TARGETS, "toy", Target(**{**vars(ROW), "module": "toy_target.no_such_module"}))
    ran = cli("--target", "toy", "--model", mini, "--out", tmp_path)
    assert ran.code == 5 and "pip install 'parcae-mobile[toy]'" in ran.line
