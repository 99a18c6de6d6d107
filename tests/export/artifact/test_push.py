"""Pushing an artifact, with the real hub client against a local server that speaks the hub's HTTP interface."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from export.artifact.push import planned, push
from parcae_mobile.errors import ChecksumError, UsageError
from parcae_mobile.manifest import MANIFEST, read_manifest


class Hub(ThreadingHTTPServer):
    """Takes new repositories and commits; every file travels inside of its commit."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.created: list[dict[str, Any]] = []
        self.commits: list[list[dict[str, Any]]] = []
        self.refused = False

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def files(self) -> dict[str, bytes]:
        rows = [row["value"] for row in self.commits[-1] if row["key"] == "file"]
        return {row["path"]: base64.b64decode(row["content"]) for row in rows}


class Answers(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.server.refused:
            return self._answer({"error": "Invalid username or password."}, 401)
        if self.path == "/api/repos/create":
            self.server.created.append(json.loads(body))
            return self._answer({"url": f"{self.server.address}/owner/name", "id": "owner/name"})
        if self.path == "/api/validate-yaml":
            return self._answer({"errors": [], "warnings": []})
        if "/preupload/" in self.path:
            files = json.loads(body)["files"]
            return self._answer(
                {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
            )
        if "/commit/" in self.path:
            self.server.commits.append([json.loads(line) for line in body.splitlines()])
            sha = "0" * 40
            return self._answer({"commitUrl": f"{self.server.address}/owner/name/commit/{sha}", "commitOid": sha})
        return self._answer({"error": f"nothing at {self.path}"}, 404)

    def do_GET(self) -> None:
        self._answer({"error": f"nothing at {self.path}"}, 404)

    def _answer(self, value: dict[str, Any], status: int = 200) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Tests print nothing."""


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def command(hub: Hub, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {"HF_ENDPOINT": hub.address, "HF_TOKEN": "hf_test", "PATH": "", "PYTHONPATH": ":".join(sys.path)}
    line = [sys.executable, "-m", "export.cli.main", "push", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False, env=environment)


def test_the_command_sends_exactly_the_files_of_the_manifest(hub: Hub, exported: tuple[Path, Any]) -> None:
    folder, _ = exported
    done = command(hub, folder, "--repo", "owner/name", "--private")
    assert done.returncode == 0, done.stderr
    assert hub.created[0]["name"] == "name" and hub.created[0]["private"] is True
    sent = hub.files()
    assert set(sent) == {*read_manifest(folder).files, MANIFEST}
    assert all(content == (folder / name).read_bytes() for name, content in sent.items())
    assert f"{hub.address}/owner/name/commit/" in done.stdout


def test_a_refusal_of_the_hub_is_one_line(hub: Hub, exported: tuple[Path, Any]) -> None:
    hub.refused = True
    done = command(hub, exported[0], "--repo", "owner/name")
    assert done.returncode == 3 and len(done.stderr.splitlines()) == 1
    assert "401" in done.stderr and "log in" in done.stderr


def test_a_dry_run_sends_nothing(hub: Hub, exported: tuple[Path, Any]) -> None:
    done = command(hub, exported[0], "--repo", "owner/name", "--dry-run")
    assert done.returncode == 0 and "nothing was sent" in done.stdout and MANIFEST in done.stdout
    assert not hub.created and not hub.commits


def test_an_altered_folder_is_not_planned(exported: tuple[Path, Any], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in exported[0].iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    (copy / "tokenizer.json").write_bytes(b"{}")
    with pytest.raises(ChecksumError, match="tokenizer"):
        planned(copy)


def test_a_name_that_is_no_repository_is_refused(exported: tuple[Path, Any]) -> None:
    with pytest.raises(UsageError, match="owner/name"):
        push(exported[0], "name")
