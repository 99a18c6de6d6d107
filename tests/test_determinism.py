"""The same input gives the same bytes: on every target, under other hash seeds, locales, time zones, umasks, folders,
thread counts. `make acceptance`; test_cli.py asks two of the forms of ONNX each time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from parcae_mobile.manifest import MANIFEST, read_manifest, verify_files

ROOT = Path(__file__).parents[1]
FORMS = [
    ("onnx", "dynamic", "stages"), ("onnx", "dynamic", "scan"), ("onnx", "2", "unrolled"),
    ("executorch", "dynamic", "stages"), ("executorch", "2", "unrolled"),
    ("coreml", "dynamic", "stages"), ("coreml", "2", "unrolled"),
]  # fmt: skip
OTHER = {"PYTHONHASHSEED": "7", "LC_ALL": "tr_TR.UTF-8", "LANG": "de_DE.UTF-8", "TZ": "Asia/Kathmandu", "USER": "other"}


def exported(out: Path, options: list[str], environment: dict[str, str], threads: int, umask: int) -> dict[str, Any]:
    """Export the embedded model in a process of its own, from `out`'s folder; what `--json` says of it."""
    line = [sys.executable, "-m", "export.cli.main", *options, "--out", str(out), "--no-cache", "--json"]
    out.mkdir(parents=True)
    done = subprocess.run(
        [*line, "--threads", str(threads)],
        capture_output=True,
        text=True,
        cwd=out,
        umask=umask,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(out), **environment},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (said,) = json.loads(done.stdout)["artifacts"]
    return dict(said)


@pytest.mark.acceptance
@pytest.mark.parametrize(("target", "loops", "form"), FORMS)
def test_another_user_machine_and_locale_give_the_same_bytes(
    target: str, loops: str, form: str, tmp_path: Path
) -> None:
    options = ["--target", target, "--loops", loops, "--loop-form", form, "--max-loops", "2", "--no-verify"]
    first = exported(tmp_path / "one", options, {"PYTHONHASHSEED": "1"}, 1, 0o022)
    second = exported(tmp_path / "an other/place", options, OTHER, 2, 0o077)
    assert first["digest"] == second["digest"] and first["files"] == second["files"]
    folders = [Path(said["artifact"]) for said in (first, second)]
    manifests = [json.loads((folder / MANIFEST).read_text(encoding="utf-8")) for folder in folders]
    measured = [manifest["kv"].pop("measured") for manifest in manifests]  # KL, whose last digits follow the threads
    assert manifests[0] == manifests[1] and read_manifest(folders[0]).files_digest == first["digest"]
    assert set(measured[0]) == set(measured[1])
    for policy, costs in measured[0].items():
        assert costs == pytest.approx(measured[1][policy], rel=1e-2, abs=1e-6)
    verify_files(folders[1])
    for path in folders[1].rglob("*"):
        assert not path.is_file() or str(tmp_path).encode() not in path.read_bytes(), path
