"""The first command of a real user: a released repository with its tokenizer elsewhere, a training run, a baseline.

The hub is a local HTTP server and the client the real one (`huggingface_hub` through HF_ENDPOINT).
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).parents[3]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def hub_of(repositories: dict[str, dict[str, bytes]], asked: list[str]) -> type[BaseHTTPRequestHandler]:
    """A handler that answers what the client asks of the hub: a revision's files, and each file."""

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def _answer(self) -> None:
            path = self.path.split("?")[0]
            asked.append(path)
            for name, files in repositories.items():
                if path in (f"/api/models/{name}", f"/api/models/{name}/revision/main"):
                    siblings = [{"rfilename": file, "size": len(content)} for file, content in files.items()]
                    return self._send(json.dumps({"id": name, "sha": COMMIT, "siblings": siblings}).encode(), "x")
                if path.startswith(f"/api/models/{name}/tree/"):
                    rows = [
                        {"type": "file", "path": file, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                        for file, content in files.items()
                    ]
                    return self._send(json.dumps(rows).encode(), "x")
                for file, content in files.items():
                    if path.startswith(f"/{name}/resolve/") and path.endswith(f"/{file}"):
                        return self._send(content, hashlib.sha256(content).hexdigest())
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None

        def _send(self, body: bytes, etag: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", f'"{etag}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *given: Any) -> None:
            pass

    return Hub


@pytest.fixture
def hub(mini: Path) -> Iterator[tuple[dict[str, str], list[str]]]:
    """The environment of a stand-in with two repositories, and the paths that it was asked for."""
    tensors = load_file(mini / "model.safetensors")
    place = mini.parent / "pytorch_model.bin"
    torch.save(tensors, place)
    repositories = {
        "SandyResearch/parcae-mini": {
            "config.json": (mini / "config.json").read_bytes(),
            "pytorch_model.bin": place.read_bytes(),
            "train.py": b"raise SystemExit('never run')",
        },
        "SandyResearch/parcae-tokenizer": {"tokenizer.json": (mini / "tokenizer.json").read_bytes()},
    }
    asked: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), hub_of(repositories, asked))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    home = mini.parent / "hub-cache"
    endpoint = f"http://127.0.0.1:{server.server_port}"
    yield {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1"}, asked
    server.shutdown()
    server.server_close()


def test_a_released_model_is_exported_with_the_tokenizer_of_its_own_repository(
    hub: tuple[dict[str, str], list[str]], tmp_path: Path, loose: Path, text: Path
) -> None:
    environment, asked = hub
    recipe = ["--quant", loose, "--accept-budget"]
    arguments = ["--model", "SandyResearch/parcae-mini", "--loops", "4", *recipe]
    arguments += ["--text", text, "--calibration", text, "--kv", "full"]
    done = subprocess.run(
        [sys.executable, "-m", "export.cli.main", *map(str, arguments), "--out", str(tmp_path), "--json"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    (artifact,) = json.loads(done.stdout)["artifacts"]
    assert Path(artifact["artifact"]).name == "parcae-mini-onnx-T4-loose"
    assert "tokenizer of the released models: SandyResearch/parcae-tokenizer" in artifact["notes"]
    assert (Path(artifact["artifact"]) / "tokenizer.json").exists()
    assert artifact["compression"]["passed"] and artifact["lowering"]["passed"]
    assert any(path.endswith("/pytorch_model.bin") for path in asked)
    assert not any(path.endswith(".py") for path in asked)


def test_a_repository_that_the_hub_does_not_have_gives_one_line(
    hub: tuple[dict[str, str], list[str]], tmp_path: Path
) -> None:
    environment, _ = hub
    done = subprocess.run(
        [sys.executable, "-m", "export.cli.main", "inspect", "SandyResearch/parcae-nowhere"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
    )
    lines = done.stderr.splitlines()
    assert done.returncode == 3 and len(lines) == 1 and "the hub did not deliver it" in lines[0]


def test_a_baseline_is_exported_by_the_same_command(
    cli: Callable[..., Any], data: Path, mini: Path, loose: Path, text: Path, tmp_path: Path
) -> None:
    ran = cli(
        *("--model", data / "gpt" / "gqa-clip", "--quant", "fp32", "--out", tmp_path, "--json"),
        *("--text", text, "--kv", "full"),
    )
    assert ran.code == 3 or ran.code == 2  # a text, and no tokenizer to read it with
    ran = cli(
        "--model",
        data / "gpt" / "tied",
        "--tokenizer",
        mini,
        "--quant",
        "fp32",
        "--text",
        text,
        "--out",
        tmp_path,
        "--json",
    )
    assert ran.code == 0, ran.err
    (artifact,) = ran.json["artifacts"]
    assert list(artifact["lowering"]["by_loops"]) == list(artifact["compression"]["by_loops"]) == ["1"]
    manifest = json.loads((Path(artifact["artifact"]) / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["max_loops"] == manifest["trained_loops"] == 1


def test_a_training_run_is_exported_from_its_folder(
    cli: Callable[..., Any], mini: Path, loose: Path, tmp_path: Path
) -> None:
    run = tmp_path / "outputs" / "my-run"
    (run / "checkpoints-DDPStrategy").mkdir(parents=True)
    values = json.loads((mini / "config.json").read_text(encoding="utf-8"))
    (run / "model_config.json").write_text(json.dumps(values), encoding="utf-8")
    settings = {"run_name": "my-run", "tokenizer_path": str(mini), "model_config": values}
    (run / "run_config.json").write_text(json.dumps(settings), encoding="utf-8")
    tensors = {f"_forward_module.{name}": tensor for name, tensor in load_file(mini / "model.safetensors").items()}
    for step in (128, 1024):
        torch.save({"model": tensors, "optimizer": {}}, run / "checkpoints-DDPStrategy" / f"step-{step:08d}-my-run")
    ran = cli("--model", run, "--quant", loose, "--kv", "full", "--no-verify", "--out", tmp_path, "--json")
    assert ran.code == 0, ran.err
    (artifact,) = ran.json["artifacts"]
    assert Path(artifact["artifact"]).name == "my-run-onnx-dynamic-loose"
    assert any("step-00001024-my-run" in note for note in artifact["notes"])
    assert (Path(artifact["artifact"]) / "tokenizer.json").exists()
