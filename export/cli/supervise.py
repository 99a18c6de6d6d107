"""Runs the command in a child process, so that a converter or runtime that dies by a signal becomes one line.

    code = supervise(command)                          # the child's exit code, or 5 and a line for a signal
    set_stage("writing onnx (stages)")                      # in the child: what it is at, for that line

Parsers and code generators in C++ end a process without an exception. Running each of them in a process of its own
would load torch again every time, which takes seconds. So the parent is this process before anything heavy is imported:
it forks, which takes a millisecond, shares its pages, and only waits. Without fork nothing is supervised.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import mmap
import os
import re
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import IO

from parcae_mobile.errors import ToolCrashedError

STAGE_BYTES, LAST_WORDS = 512, 300
PASSED_ON = (signal.SIGTERM, signal.SIGHUP)
MEANT = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # what somebody sends on purpose
_PR_SET_PDEATHSIG = 1
_FRAME = re.compile(r'File "([^"]+)", line \d+ in (\w+)')
_stage: mmap.mmap | None = None


def set_stage(stage: str) -> None:
    """Write down what this process is at; without a parent that reads it, nothing happens."""
    if _stage is not None:
        data = stage.encode("utf-8", "replace")[:STAGE_BYTES]
        _stage[:] = data.ljust(STAGE_BYTES, b"\0")


def supervise(command: Callable[[], int]) -> int:
    """Run `command` in a child; returns its exit code. Raises `ToolCrashedError` if a signal ended it.

    What the child writes to standard error is passed on, and its last words are kept, unless a terminal shows it.
    """
    global _stage
    if not hasattr(os, "fork") or threading.active_count() > 1:
        return command()
    _stage = mmap.mmap(-1, STAGE_BYTES)
    set_stage("starting")
    with tempfile.TemporaryFile() as trace:
        pipe = None if sys.__stderr__ is None or _is_terminal(2) else os.pipe()  # None: closed by the caller
        parent, before = os.getpid(), {number: signal.getsignal(number) for number in MEANT}
        children: list[int] = []
        early: list[int] = []  # signals that came before this process knew its child

        def pass_on(received: int, frame: object) -> None:
            if not _send(children, received):
                early.append(received)

        for passed_on in PASSED_ON:  # before the fork: from its first moment on, the child is who a signal is for
            signal.signal(passed_on, pass_on)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the child too
        child = os.fork()
        if child == 0:
            for meant, handler in before.items():
                signal.signal(meant, handler)
            _begin(parent, trace, pipe)
            return command()
        children.append(child)
        for received in early:
            _send(children, received)
        return _wait(child, trace, pipe)


def _begin(parent: int, trace: IO[bytes], pipe: tuple[int, int] | None) -> None:
    """In the child: die with the parent, write a trace on a fatal signal, let standard error go to the parent."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
    if pipe is not None:
        os.dup2(pipe[1], 2)
        for end in pipe:
            if end > 2:  # a caller may have closed a standard stream, whose number the pipe then has
                os.close(end)
        # Where standard error was a file, its stream would go on seeking in what is a pipe now.
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
    faulthandler.enable(trace, all_threads=False)


def _wait(child: int, trace: IO[bytes], pipe: tuple[int, int] | None) -> int:
    words = b""
    if pipe is not None:
        os.close(pipe[1])
        words = _pass_on(pipe[0])
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        return os.waitstatus_to_exitcode(status)
    number = os.WTERMSIG(status)
    if number in MEANT:
        return 128 + number
    raise ToolCrashedError(_line(number, _place(trace), words.decode("utf-8", "replace")))


def _send(children: list[int], number: int) -> bool:
    """Pass a signal on; whether there was somebody to take it."""
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)
    return bool(children)


def _pass_on(source: int) -> bytes:
    """Copy the child's standard error to ours until it ends; returns the end of it."""
    last = b""
    while data := os.read(source, 65536):
        last = (last + data)[-4 * LAST_WORDS :]
        with contextlib.suppress(OSError):
            os.write(2, data)
    os.close(source)
    return last


def _line(number: int, place: str, words: str) -> str:
    """What died, of what, where, its last words, and what to do."""
    assert _stage is not None
    stage = _stage[:].rstrip(b"\0").decode("utf-8", "replace")
    said = " ".join(words.split())[-LAST_WORDS:]
    name = signal.Signals(number).name
    where = f", in {place}" if place else ""
    if number == signal.SIGKILL:
        advice = "the system does so where memory runs out; free some or take a smaller model"
        return f"killed while {stage}{where}: {advice}"
    last = f"; its last words: {said}" if said else ""
    advice = "try again with --threads 1, and report it with this line if it stays"
    return f"crashed while {stage}{where} ({name}){last}; {advice}"


def _place(trace: IO[bytes]) -> str:
    """The innermost Python function that was running, by the trace that the signal left."""
    trace.seek(0)
    frame = _FRAME.search(trace.read(100_000).decode("utf-8", "replace"))
    if frame is None:
        return ""
    path, function = frame.groups()
    inside = path.split("site-packages/")[-1]
    return f"{function} of {inside if inside != path else os.path.relpath(path, os.path.dirname(_ROOT))}"


_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def _is_terminal(number: int) -> bool:
    try:
        return os.isatty(number)
    except OSError:  # closed
        return True
