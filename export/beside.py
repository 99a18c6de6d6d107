"""Work that a second process does beside this one, where one thread computes and the other cores would idle.

    with Beside(spare_core(threads, width), progress) as beside:
        cost = beside.start("compression gate", lambda: compression_gate(...))
        ...                                            # this process goes on
        cost()                                         # waits; without a spare core it is computed now

A product of a narrow model is too short to be shared among threads (parcae_mobile/threads.py), so an export of one
would leave half of a machine idle while it asks one question after the other. A fork shares the model's pages and takes
milliseconds; what it finds comes back pickled, the same figures as here. A wide model is computed by all threads, and
its logits should be in memory once: there each question is asked when its answer is needed.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar, cast

from parcae_mobile.errors import ToolCrashedError
from parcae_mobile.threads import default_threads

Result = TypeVar("Result")
_PR_SET_PDEATHSIG = 1


def spare_core(threads: int, width: int) -> bool:
    """Whether a model of this state width, computed with `threads` (0: as many as suit it), leaves a core idle.

    macOS forks no process that has used its frameworks, and Windows none at all.
    """
    return sys.platform == "linux" and threads == 0 < default_threads(width) and len(os.sched_getaffinity(0)) > 1


class Answer(Generic[Result]):
    """What comes of a piece of work, once it is asked for; `seconds` are those that it took."""

    def __init__(self, step: str, work: Callable[[], Result], progress: Callable[[str], object]) -> None:
        self.step, self.seconds = step, 0.0
        self._work, self._progress = work, progress
        self._known: list[Result] = []

    def __call__(self) -> Result:
        """The result. Raises what the work raised."""
        if not self._known:
            self._progress(self.step)
            self._known.append(self._find())
        return self._known[0]

    def close(self) -> None:
        """Give up on it, if nobody asked."""

    def _find(self) -> Result:
        started = time.monotonic()
        result = self._work()
        self.seconds = time.monotonic() - started
        return result


class _OfProcess(Answer[Result]):
    """The answer of a process that computes it from now on."""

    def __init__(self, step: str, work: Callable[[], Result], progress: Callable[[str], object]) -> None:
        super().__init__(step, work, progress)
        context = multiprocessing.get_context("fork")
        self._receiver, sender = context.Pipe(duplex=False)
        self._process: BaseProcess = context.Process(target=_answer, args=(work, sender, os.getpid()), daemon=True)
        self._process.start()
        sender.close()

    def close(self) -> None:
        self._process.kill()
        self._process.join()
        self._receiver.close()

    def _find(self) -> Result:
        try:
            result, error, self.seconds = self._receiver.recv()
        except EOFError:
            self._process.join()
            code = self._process.exitcode or 0
            name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise ToolCrashedError(
                f"crashed in a process of its own: {self.step} ({name}); try again with --threads 1, which takes none, "
                "or with more memory free"
            ) from None
        if error is not None:
            raise error
        return cast(Result, result)


def _answer(work: Callable[[], Any], sender: Connection, parent: int) -> None:
    """In the process: compute, send, and end; nothing of it outlives the one that started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the parent too, which ends this one
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    started = time.monotonic()
    try:
        result, error = work(), None
    except Exception as raised:
        result, error = None, raised
    sender.send((result, error, time.monotonic() - started))


class Beside:
    """The processes of one export; when it is over, so are they."""

    def __init__(self, spare: bool, progress: Callable[[str], object] = lambda step: None) -> None:
        self.spare, self.progress = spare, progress
        self._answers: list[_OfProcess[Any]] = []

    def __enter__(self) -> Beside:
        return self

    def __exit__(self, *raised: object) -> None:
        for answer in self._answers:
            answer.close()

    def start(self, step: str, work: Callable[[], Result]) -> Answer[Result]:
        """Begin a piece of work that depends on nothing that happens here from now on; its result must be picklable."""
        if not self.spare:
            return Answer(step, work, self.progress)
        answer = _OfProcess(step, work, self.progress)
        self._answers.append(answer)
        return answer


ALONE = Beside(spare=False)
