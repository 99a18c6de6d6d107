"""Work in a second process: the same answers as here, errors and crashes included, and nothing left running."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from export.beside import Beside, spare_core
from parcae_mobile.errors import GateError, ToolCrashedError

forks = pytest.mark.skipif(sys.platform != "linux", reason="only Linux forks here")


def gone(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("spare", [False, pytest.param(True, marks=forks)])
def test_an_answer_is_the_works_result_or_its_error(spare: bool) -> None:
    def fail() -> None:
        raise GateError("KL 1 is above 0.1")

    said: list[str] = []
    with Beside(spare, said.append) as beside:
        process, failing = beside.start("asking", os.getpid), beside.start("failing", fail)
        assert said == [] and (process() != os.getpid()) is spare
        assert process() == process() and said == ["asking"]
        with pytest.raises(GateError, match="KL 1 is above 0.1"):
            failing()


@forks
def test_a_process_that_dies_is_one_line_with_its_step() -> None:
    with Beside(spare=True) as beside:
        answer = beside.start("compression gate", lambda: os.kill(os.getpid(), signal.SIGSEGV))
        with pytest.raises(ToolCrashedError, match=r"compression gate \(SIGSEGV\); try again with --threads 1"):
            answer()


@forks
def test_nothing_goes_on_after_an_export_that_failed(tmp_path: Path) -> None:
    def work() -> None:
        (tmp_path / "process").write_text(str(os.getpid()))
        time.sleep(60)

    with pytest.raises(GateError), Beside(spare=True) as beside:
        beside.start("sleeping", work)
        while not (tmp_path / "process").exists() or not (tmp_path / "process").read_text():
            time.sleep(0.01)
        raise GateError("another one")
    assert gone(int((tmp_path / "process").read_text()))


@forks
def test_a_core_is_spare_for_a_narrow_model_unless_threads_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1})
    assert spare_core(0, 128) and not spare_core(1, 128) and not spare_core(2, 128) and not spare_core(0, 768)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0})
    assert not spare_core(0, 128)
