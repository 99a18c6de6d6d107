"""The lines that a page and a card show for running an artifact: they run, as they stand, beside the folder."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from export.report.page.clients import clients
from parcae_mobile.manifest import read_manifest

Cli = Callable[..., Any]


def run_python(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """What the names in each shown piece of Python are after it ran in the folder's parent, by client."""
    monkeypatch.chdir(folder.parent)
    after = {}
    for client in clients(read_manifest(folder)):
        if client.language == "python":
            names: dict[str, Any] = {}
            exec(compile(client.code, client.name, "exec"), names)
            after[client.name] = names
    return after


def test_a_dynamic_artifacts_lines_run(cli: Cli, exported: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = exported[0]
    (ran,) = run_python(folder, monkeypatch).values()
    assert ran["logits"].shape[-1] >= read_manifest(folder).geometry.vocab_size
    commands = [client.code for client in clients(read_manifest(folder)) if client.language == "sh"]
    assert len(commands) == 2
    for command in commands:
        done = cli(*shlex.split(command)[1:])
        assert done.code == 0, done.err


@pytest.mark.acceptance
def test_a_static_artifact_opens_in_stock_clients_as_shown(
    cli: Cli, mini: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--model", mini, "--calibration", text, "--quant", "int8", "--loops", 2, "--no-verify")
    ran = cli(*options, "--out", tmp_path, "--json")
    assert ran.code == 0, ran.err
    after = run_python(Path(ran.json["artifacts"][0]["artifact"]), monkeypatch)
    assert set(after) == {"Optimum", "onnxruntime-genai"}
    assert after["onnxruntime-genai"]["tokenizer"].encode("import").size > 0 and after["Optimum"]["model"] is not None
