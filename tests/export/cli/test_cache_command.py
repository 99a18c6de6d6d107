"""The cache seen from the command: a second target reuses, the artifact's bytes are the same, and it can be cleared."""

from __future__ import annotations

import json
from collections.abc import Callable
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
