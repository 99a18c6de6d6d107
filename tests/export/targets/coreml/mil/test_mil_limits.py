"""A bounded prediction is stopped by what it computed, not by what passed on the wall."""

from __future__ import annotations

import time

import pytest

from export.targets.coreml.mil.errors import LimitError
from export.targets.coreml.mil.limits import Limits


class Clocks:
    """Seconds on the wall and of the thread, and how often the system was asked for the latter."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall = self.thread = 0.0
        self.asked = 0
        monkeypatch.setattr(time, "perf_counter", lambda: self.wall)
        monkeypatch.setattr(time, "thread_time", self.ask)

    def ask(self) -> float:
        self.asked += 1
        return self.thread


def test_a_thread_that_waits_for_the_cores_is_not_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    clocks, limits = Clocks(monkeypatch), Limits(seconds=4.0)
    limits.begin(bounded=True)
    for step in range(1, 10_001):
        clocks.wall, clocks.thread = step / 100, step / 3000  # 100 s on the wall, 3.3 s of them computed
        limits.tick()
    assert clocks.asked < 60


def test_one_that_computes_is_stopped_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    clocks, limits = Clocks(monkeypatch), Limits(seconds=4.0)
    limits.begin(bounded=True)
    clocks.wall, clocks.thread = 4.5, 3.9
    limits.tick()
    clocks.wall, clocks.thread = 4.7, 4.1
    with pytest.raises(LimitError, match="still running after 4 s"):
        limits.tick()


def test_an_unbounded_one_is_never_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    clocks, limits = Clocks(monkeypatch), Limits(seconds=4.0)
    limits.begin(bounded=True)
    limits.begin(bounded=False)
    clocks.wall = clocks.thread = 1e9
    limits.tick()
