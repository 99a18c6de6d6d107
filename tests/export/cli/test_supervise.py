"""A command whose native code dies ends in one line; everything else passes through the parent unchanged."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
START = "import sys, os, ctypes, signal, time\nfrom export.cli.supervise import set_stage, supervise\n"
START += "from parcae_mobile.errors import ToolCrashedError\n"
END = "\ntry: sys.exit(supervise(command))\n"
END += "except ToolCrashedError as e: print(f'error: {e}', file=sys.stderr); sys.exit(5)"


def run(body: str) -> subprocess.CompletedProcess[str]:
    code = START + f"def command():\n    {body}\n" + END
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("set_stage('writing onnx'); ctypes.string_at(0)", "crashed while writing onnx, in string_at of"),
        ("set_stage('gates'); os.write(2, b'x > 0 failed\\n'); os.abort()", "(SIGABRT); its last words: x > 0 failed"),
        ("set_stage('gates'); os.kill(os.getpid(), signal.SIGKILL)", "killed while gates: the system does so where"),
    ],
)
def test_a_signal_becomes_one_line_with_stage_and_place(body: str, words: str) -> None:
    done = run(body)
    line = done.stderr.splitlines()[-1]
    assert done.returncode == 5 and line.startswith("error: ") and words in line and "Traceback" not in done.stderr


@pytest.mark.parametrize("code", [0, 3, 130])
def test_exit_codes_and_output_pass_through(code: int) -> None:
    done = run(f"print('out'); print('err', file=sys.stderr); return {code}")
    assert (done.returncode, done.stdout, done.stderr) == (code, "out\n", "err\n")


@pytest.mark.parametrize("redirect", ["2>there", "2>>there", ">there 2>&1", "2>/dev/null", "2>&-"])
def test_a_command_whose_output_goes_to_a_file_works(redirect: str, tmp_path: Path) -> None:
    line = f'exec "$0" -m export.cli.main cache --no-such-option {redirect}'
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", line, sys.executable], cwd=tmp_path, env=environment, check=False)
    written = (tmp_path / "there").read_text(encoding="utf-8") if "there" in redirect else ""
    assert done.returncode == 2 and ("error: No such option" in written) is ("there" in redirect), written


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_to_the_parent_reaches_the_command(number: signal.Signals, code: int, tmp_path: Path) -> None:
    body = f"open({str(tmp_path / 'up')!r}, 'w').close(); time.sleep(30)"
    process = subprocess.Popen([sys.executable, "-c", START + f"def command():\n    {body}\n" + END], cwd=ROOT)
    _await(tmp_path / "up")
    process.send_signal(number)
    assert process.wait(10) == code


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_a_killed_parent_takes_its_command_along(tmp_path: Path) -> None:
    body = f"open({str(tmp_path / 'up')!r}, 'w').write(str(os.getpid())); time.sleep(30)"
    process = subprocess.Popen([sys.executable, "-c", START + f"def command():\n    {body}\n" + END], cwd=ROOT)
    _await(tmp_path / "up")
    time.sleep(0.1)
    child = int((tmp_path / "up").read_text(encoding="ascii"))
    process.kill()
    process.wait(10)
    for _ in range(100):
        if not Path(f"/proc/{child}").exists() or "(zombie)" in Path(f"/proc/{child}/status").read_text():
            return
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    raise AssertionError("the command outlived its parent")


def _await(path: Path) -> None:
    for _ in range(200):
        if path.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} did not appear")


def test_standard_error_may_be_a_file_and_is_added_to(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    command = [sys.executable, "-m", "export.cli.main", "verify", str(tmp_path / "nowhere")]
    with log.open("a") as file:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=file, text=True, check=False)
    kept, line = log.read_text().splitlines()
    assert done.returncode == 3 and done.stdout == "" and kept == "before" and line.startswith("error: ")
