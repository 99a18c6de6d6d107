"""Updates of a state are written in place, and nobody can tell: not a later read, a slice, a caller, nor a failure."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from export.targets.coreml.mil.errors import ExecutionError
from export.targets.coreml.mil.interpreter import MilProgram
from export.targets.coreml.mil.registry import copied
from export.targets.coreml.mil.state import Overwriting

ROWS, WIDTH = 6, 4
Save = Callable[..., Path]


def stateful(mil: Any, body: Callable[[Any, Any, Any], Any]) -> Any:
    """A program of `body(mb, x, memory)` with x (1, WIDTH) and the state memory (ROWS, WIDTH), both fp16."""
    mb, types = mil.mb, mil.types
    inputs = [mb.TensorSpec((1, WIDTH), types.fp16), mb.StateTensorSpec((ROWS, WIDTH), types.fp16)]

    @mb.program(input_specs=inputs, opset_version=mil.ct.target.iOS18)
    def program(x: Any, memory: Any) -> Any:
        return body(mb, x, memory)

    return program


def updated(mb: Any, x: Any, update: Any, row: int) -> Any:
    return mb.slice_update(x=x, update=update, begin=[row, 0], end=[row + 1, WIDTH])


def at(mb: Any, x: Any, row: int) -> Any:
    return mb.slice_by_size(x=x, begin=[row, 0], size=[1, WIDTH])


def appended(mb: Any, x: Any, memory: Any) -> Any:
    """As caches are written: one read, and each update's result is what the next one takes."""
    current = mb.read_state(input=memory)
    for row in range(3):
        x = mb.add(x=x, y=np.float16(1))
        current = mb.coreml_update_state(state=memory, value=updated(mb, current, x, row))
        x = mb.add(x=x, y=at(mb, current, max(0, row - 1)))
    return mb.identity(x=x, name="out")


def at_random(seed: int) -> Callable[[Any, Any, Any], Any]:
    """Reads, updates, writes and slices in any order, with slices that live on past later updates."""
    rng = random.Random(seed)

    def body(mb: Any, x: Any, memory: Any) -> Any:
        values, rows = [mb.read_state(input=memory)], [x]
        for _ in range(rng.randrange(4, 12)):
            kind, value = rng.choice(("read", "slice", "add", *["update"] * 3, *["write"] * 2)), rng.choice(values[-2:])
            if kind == "read":
                values.append(mb.read_state(input=memory))
            elif kind == "slice":
                rows.append(at(mb, value, rng.randrange(ROWS)))
            elif kind == "add":
                rows.append(mb.add(x=rng.choice(rows), y=np.float16(rng.randrange(1, 4))))
            elif kind == "update":
                values.append(updated(mb, value, rng.choice(rows), rng.randrange(ROWS)))
            else:
                values.append(mb.coreml_update_state(state=memory, value=value))
        return mb.concat(values=(*rows, *values[-2:]), axis=0, name="out")

    return body


def run_twice(package: Path) -> list[torch.Tensor]:
    """Two outputs and the state after each of two predictions."""
    program = MilProgram.open(package)
    state, seen = program.make_state(), []
    for value in (1.0, 2.0):
        x = torch.full((1, WIDTH), value).half()
        seen.append(program.predict({"x": x}, state)["out"])
        seen.append(state.clone()["memory"])
    return seen


@pytest.mark.parametrize("seed", range(24))
def test_any_order_of_updates_gives_what_copies_give(
    mil: Any, save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    package = Path(save(stateful(mil, at_random(seed)), tmp_path / "random.mlpackage"))
    found = run_twice(package)
    monkeypatch.setattr(Overwriting, "of", lambda *_: copied)
    for one, other in zip(found, run_twice(package), strict=True):
        assert torch.equal(one, other)


@pytest.fixture(scope="module")
def cache(mil: Any, save: Save, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(save(stateful(mil, appended), tmp_path_factory.mktemp("overwriting") / "cache.mlpackage"))


def test_a_cache_is_written_where_it_lies(cache: Path) -> None:
    program = MilProgram.open(cache)
    state = program.make_state()
    place = state._tensors["memory"].data_ptr()
    for _ in range(2):
        program.predict({"x": torch.ones(1, WIDTH).half()}, state)
    assert state._tensors["memory"].data_ptr() == place


def test_a_tensor_that_a_caller_holds_stays_as_it_was(cache: Path) -> None:
    program = MilProgram.open(cache)
    state, x = program.make_state(), torch.ones(1, WIDTH).half()
    program.predict({"x": x}, state)
    held = state["memory"]
    before = held.clone()
    program.predict({"x": x * 3}, state)
    assert torch.equal(held, before) and not torch.equal(state["memory"], before)
    mine = torch.zeros(ROWS, WIDTH).half()
    state["memory"] = mine
    program.predict({"x": x}, state)
    assert mine.eq(0).all() and not state["memory"].eq(0).all()


def test_a_prediction_that_fails_after_an_update_restores_the_state(cache: Path) -> None:
    program = MilProgram.open(cache)
    state, x = program.make_state(), torch.ones(1, WIDTH).half()
    program.predict({"x": x}, state)
    before, done = state.clone(), 0

    def fail(operation: Any, results: Any) -> None:
        nonlocal done
        done += operation.type == "slice_update"
        if done == 2:
            raise ExecutionError("after two updates")

    with pytest.raises(ExecutionError, match="after two updates"):
        program.predict({"x": x * 5}, state, observer=fail)
    assert torch.equal(state["memory"], before["memory"])


def test_a_read_between_an_update_and_its_write_sees_what_was_there(mil: Any, save: Save, tmp_path: Path) -> None:
    def body(mb: Any, x: Any, memory: Any) -> Any:
        first = mb.coreml_update_state(state=memory, value=updated(mb, mb.read_state(input=memory), x, 0))
        second = updated(mb, first, mb.add(x=x, y=np.float16(1)), 0)
        between = mb.read_state(input=memory)
        mb.coreml_update_state(state=memory, value=second)
        return mb.identity(x=at(mb, between, 0), name="out")

    program = MilProgram.open(Path(save(stateful(mil, body), tmp_path / "between.mlpackage")))
    state = program.make_state()
    out = program.predict({"x": torch.ones(1, WIDTH).half()}, state)["out"]
    assert out.eq(1).all() and state["memory"][0].eq(2).all()
