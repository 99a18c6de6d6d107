"""The cache seen from the command: a second target reuses, the artifact's bytes are the same, and it can be cleared."""

from __future__ import annotations

import json
import pydoc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from parcae_mobile.manifest import MANIFEST

Cli = Callable[..., Any]


def test_artifacts_are_the_same_bytes_with_and_without_the_cache(
    cli: Cli, mini: Path, text: Path, loose: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARCAE_CACHE", str(tmp_path / "cache"))
    options = ("--model", mini, "--calibration", text, "--quant", loose, "--kv", "full", "--no-verify", "--json")
    manifests, notes = [], []
    for name, more in (("first", ()), ("again", ()), ("without", ("--no-cache",))):
        ran = cli(*options, *more, "--out", tmp_path / name)
        assert ran.code == 0, ran.err
        (artifact,) = ran.json["artifacts"]
        manifests.append((Path(artifact["artifact"]) / MANIFEST).read_bytes())
        notes.append(any("cache" in note for note in artifact["notes"]))
    assert manifests[0] == manifests[1] == manifests[2] and notes == [False, True, False]
    shown = cli("cache", "--json").json
    assert len(shown["entries"]) == 1 and shown["bytes"] > 0 and json.loads(manifests[0])["files"]
    assert "1 entries" in cli("cache").out
    assert cli("cache", "--clear").code == 0 and cli("cache", "--json").json["entries"] == []


def test_what_no_target_has_a_part_in_is_measured_once(
    cli: Cli, mini: Path, text: Path, loose: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second run has the same figures; without the cache they are measured and are the same."""
    monkeypatch.setenv("PARCAE_CACHE", str(tmp_path / "cache"))
    measured: list[str] = []
    for name in ("export.prepare.compression_gate", "export.prepare.model_facts", "export.job.policy_distances"):
        monkeypatch.setattr(name, partial(_counted, measured, name, pydoc.locate(name)))
    options = ("--model", mini, "--text", text, "--quant", loose, "--algorithm", "rtn", "--context", 32, "--json")
    options = (*options, "--threads", 1, "--accept-budget")  # one thread: else a second process measures
    manifests, notes = [], []
    for name, more in (("first", ()), ("again", ()), ("without", ("--no-cache",))):
        measured.clear()
        ran = cli(*options, *more, "--out", tmp_path / name)
        assert ran.code == 0, ran.err
        (artifact,) = ran.json["artifacts"]
        manifests.append((Path(artifact["artifact"]) / MANIFEST).read_bytes())
        notes.append([note for note in artifact["notes"] if "not measured again" in note])
        assert len(measured) == (0 if name == "again" else 3)
    assert manifests[0] == manifests[1] == manifests[2]
    assert not notes[0] and len(notes[1]) == 1 and "compression gate" in notes[1][0] and not notes[2]


def _counted(measured: list[str], name: str, original: Any, *arguments: Any) -> Any:
    measured.append(name)
    return original(*arguments)
