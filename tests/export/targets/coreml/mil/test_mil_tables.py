"""Large tables of which rows are gathered: the same results as from a table that was decoded as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from export.targets.coreml.mil import tables
from export.targets.coreml.mil.errors import MilError
from export.targets.coreml.mil.interpreter import MilProgram

ROWS, WIDTH = 12, 16
FORMS = ("int4", "uint4 with offsets", "int8, one scale", "palette", "palettes of rows")


def table_of(mb: Any, narrow: Any, form: str) -> Any:
    rng = np.random.default_rng(3)
    if form.startswith("palette"):
        indices = narrow("uint4", rng.integers(0, 16, (ROWS, WIDTH)))
        lut = rng.random((ROWS if form == "palettes of rows" else 1, 2, 16, 1)).astype(np.float16)
        return mb.constexpr_lut_to_dense(indices=indices, lut=lut, name="table")
    name = form.split()[0].rstrip(",")
    low = 0 if name == "uint4" else -8
    parts = {"data": narrow(name, rng.integers(low, low + 16, (ROWS, WIDTH)))}
    grid = (1, 1) if "one scale" in form else (ROWS, 2)
    parts["scale"] = rng.random(grid).astype(np.float16)
    if "offsets" in form:
        parts["offset"] = narrow(name, rng.integers(low, low + 16, grid))
    return mb.constexpr_blockwise_shift_scale(**parts, name="table")


@pytest.fixture(scope="module", params=FORMS)
def package(request: Any, mil: Any, save: Any, narrow: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of a table, and a product with it in a branch of its own."""
    mb, types = mil.mb, mil.types

    @mb.program(
        input_specs=[
            mb.TensorSpec((2, WIDTH), types.fp16),
            mb.TensorSpec((1, 3), types.int32),
            mb.TensorSpec((1,), types.int32),
        ],
        opset_version=mil.ct.target.iOS18,
    )
    def program(x: Any, ids: Any, all_of_it: Any) -> Any:
        table = table_of(mb, narrow, request.param)
        rows = mb.gather(x=table, indices=ids, axis=0, name="rows")
        total = mb.cond(
            pred=mb.cast(x=mb.squeeze(x=all_of_it), dtype="bool"),
            _true_fn=lambda: mb.reduce_sum(x=mb.linear(x=x, weight=table), axes=[0, 1]),
            _false_fn=lambda: mb.reduce_sum(x=x, axes=[0, 1]),
        )
        return rows, mb.identity(x=total, name="total")

    return Path(save(program, tmp_path_factory.mktemp("table") / "table.mlpackage"))


def predict(package: Path, ids: list[int], all_of_it: int = 0, rounds: bool = True) -> tuple[MilProgram, Any]:
    program = MilProgram.open(package)
    inputs = {"x": torch.ones(2, WIDTH).half(), "ids": np.array([ids], np.int32), "all_of_it": [all_of_it]}
    return program, program.predict(inputs, rounds=rounds)


@pytest.mark.parametrize("rounds", [True, False])
@pytest.mark.parametrize("ids", [[3, 0, 11], [5, 5, 5]])
def test_rows_are_those_of_the_whole_table(
    package: Path, ids: list[int], rounds: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, wanted = predict(package, ids, rounds=rounds)
    monkeypatch.setattr(tables, "LEAST_VALUES", 0)
    program, got = predict(package, ids, rounds=rounds)
    assert got.keys() == wanted.keys() and all(torch.equal(got[name], wanted[name]) for name in wanted)
    assert not program._constants._folded


def test_what_wants_the_whole_table_has_it(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, wanted = predict(package, [1, 2, 3], all_of_it=1)
    monkeypatch.setattr(tables, "LEAST_VALUES", 0)
    program, got = predict(package, [1, 2, 3], all_of_it=1)
    assert all(torch.equal(got[name], wanted[name]) for name in wanted) and len(program._constants._folded) == 1
    assert torch.equal(program.constant("table"), MilProgram.open(package).constant("table"))


def test_a_row_that_is_not_there_is_refused_in_the_same_words(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    messages = []
    for least in (2**24, 0):
        monkeypatch.setattr(tables, "LEAST_VALUES", least)
        with pytest.raises(MilError) as raised:
            predict(package, [1, ROWS, 2])
        messages.append(str(raised.value))
    assert messages[0] == messages[1]


def test_only_the_rows_that_are_wanted_are_read(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "LEAST_VALUES", 0)
    read: list[int] = []
    original = tables.Constants.rows

    def rows(constants: Any, item: Any, wanted: Any, where: Any) -> Any:
        read.extend(wanted.tolist())
        return original(constants, item, wanted, where)

    monkeypatch.setattr(tables.Constants, "rows", rows)
    predict(package, [7, 2, 7])
    assert set(read) == {2, 7}
