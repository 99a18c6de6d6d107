"""How much a package may ask of the interpreter: by the size of its files, so that a small one cannot take gigabytes.

    limits = Limits.of(package_folder)
    limits.room(elements=1024 * 64, work=1024 * 64 * 64)   # raises LimitError before anything is computed

A result may have sixteen values for each byte on disk (weights of one bit unpack to eight), and one operator may take a
few thousand multiplications for each: a model's activations and products are far below. What a sparse file merely
claims to hold does not count.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from export.targets.coreml.mil.errors import LimitError

BLOCK = 512  # bytes of a unit in which the system counts what a file takes on disk
LEAST_ELEMENTS, ELEMENTS_PER_BYTE = 2**24, 16
LEAST_WORK, WORK_PER_BYTE = 2**31, 4096
LEAST_SECONDS, SECONDS_PER_MEGABYTE = 4.0, 2.0


@dataclass
class Limits:
    """Values of one result, multiplications of one operator, seconds of the processor for one prediction."""

    elements: int = LEAST_ELEMENTS
    work: int = LEAST_WORK
    seconds: float = LEAST_SECONDS
    _ends: float = field(default=float("inf"), init=False)  # by the processor's clock
    _ask: float = field(default=float("inf"), init=False)  # by the clock on the wall: not before this

    @classmethod
    def of(cls, folder: Path) -> Limits:
        """The limits of a package."""
        stats = [path.stat() for path in folder.rglob("*") if path.is_file()]
        stored = sum(min(stat.st_size, stat.st_blocks * BLOCK) for stat in stats)
        return cls(
            max(LEAST_ELEMENTS, ELEMENTS_PER_BYTE * stored),
            max(LEAST_WORK, WORK_PER_BYTE * stored),
            LEAST_SECONDS + SECONDS_PER_MEGABYTE * stored / 1e6,
        )

    def begin(self, bounded: bool) -> None:
        """Start the clock of a prediction, or stop it."""
        self._ends = self._ask = float("inf")
        if bounded:
            self._ends, self._ask = time.thread_time() + self.seconds, time.perf_counter() + self.seconds

    def room(self, elements: int, work: int = 0) -> None:
        """Raise `LimitError` for a result, or work, that is too large for the package."""
        if elements > self.elements:
            raise LimitError(f"a result of {elements} values; {self.elements} are the most for a package of this size")
        if work > self.work:
            raise LimitError(f"{work} multiplications; {self.work} are the most for a package of this size")

    def tick(self) -> None:
        """Raise `LimitError` once a bounded prediction has taken its time.

        A thread cannot compute for longer than passes on the wall, and asking the system for what it computed makes it
        stand in the queue again beside busy processes: once for each operation that was most of a prediction's time.
        """
        if (now := time.perf_counter()) < self._ask:
            return
        left = self._ends - time.thread_time()
        if left < 0:
            raise LimitError(f"still running after {self.seconds:.0f} s; no package of this size needs that long")
        self._ask = now + left
