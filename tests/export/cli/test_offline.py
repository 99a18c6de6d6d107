"""HF_HUB_OFFLINE: nothing is asked of the hub, and what is not in its cache is one line."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


class Hub(ThreadingHTTPServer):
    """A hub that has nothing, and remembers what it was asked."""

    asked: list[str]


class Answers(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.send_error(404)

    do_HEAD = do_GET

    def log_message(self, format: str, *arguments: object) -> None:
        """Tests print nothing."""


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub(("127.0.0.1", 0), Answers)
    server.asked = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def test_offline_asks_nothing_and_says_so_in_one_line(hub: Hub, tmp_path: Path) -> None:
    environment = {**os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_address[1]}", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "export.cli.main", "inspect", "owner/name"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment | {"HF_HUB_OFFLINE": "1"},
        check=False,
    )
    assert done.returncode == 3 and len(done.stderr.splitlines()) == 1 and "owner/name" in done.stderr, done.stderr
    assert hub.asked == []
