"""What an attack is: a file made by a small function, the reader that meets it, and the error that it must end in.

    case("a header that is longer than the file", damage(...), read=load_model, error=CheckpointError, words="header")

`run` measures: each must end within five seconds and 200 MB above what the process had, in one line, with exit code 3.
"""

from __future__ import annotations

import resource
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parcae_mobile.errors import ParcaeError

MOST_SECONDS, MOST_BYTES = 5.0, 200_000_000
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
ADDRESSES = 4 * 2**30  # bytes of addresses that a case may take: a fault then fails, and does not stop the machine


@dataclass(frozen=True)
class Case:
    """`make` writes what the attack needs into an empty folder and returns what the reader is given."""

    name: str
    make: Callable[[Path], Any]
    read: Callable[[Any], Any]
    error: type[ParcaeError]
    words: str = ""


@dataclass(frozen=True)
class Ended:
    """How a case ended. `bytes` is the peak above the start, 0 where the system cannot tell."""

    error: BaseException | None
    seconds: float
    bytes: int


class TooSlow(BaseException):
    """The case took twice the time that it may take."""


def run(case: Case, folder: Path) -> Ended:
    """Let the reader meet the file."""
    given = case.make(folder)
    before, limits = _peak(reset=True), resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_addresses() + ADDRESSES, limits[1]))
    handler = signal.signal(signal.SIGALRM, _too_slow)
    signal.setitimer(signal.ITIMER_REAL, 2 * MOST_SECONDS)
    started, error = time.monotonic(), None
    try:
        case.read(given)
    except BaseException as caught:  # a traceback of any kind is what this looks for
        error = caught
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        seconds = time.monotonic() - started
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, limits)
    return Ended(error, seconds, max(0, _peak() - before))


def _too_slow(number: int, frame: Any) -> None:
    raise TooSlow


def _peak(reset: bool = False) -> int:
    """The greatest resident size so far, or since it was reset; 0 off Linux."""
    if not _CLEAR.exists():
        return 0
    if reset:
        _CLEAR.write_text("5", encoding="ascii")
    return _field("VmHWM")


def _addresses() -> int:
    return _field("VmSize") if _STATUS.exists() else 64 * 2**30


def _field(name: str) -> int:
    line = next(line for line in _STATUS.read_text(encoding="ascii").splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024
