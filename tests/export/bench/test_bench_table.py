"""The bench's table: what is kept, merged, compared and judged. Rows are made up; nothing is timed here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.bench.goals import Goal, judge, load_goals, metric, not_measured
from export.bench.plot import plot_table
from export.bench.rows import Memory, Row, Run, Speed, Table, Variant, read_table, write_table
from export.bench.speeds import decode_times
from export.bench.table import HEAD, cells, markdown, outcome_cells
from parcae_mobile.errors import InputError, UsageError
from parcae_mobile.manifest import KV, Manifest, Quantization

MACHINE = Run(processor="made up", cores=2, bandwidth=20e9, rounds=3, tools={"numpy": "2"})


def row(loops: int = 8, context: int = 128, run: int | None = 1, decode: float = 4.0, **fields: Any) -> Row:
    """An ONNX scan row, or a baseline's where `kind` says so."""
    given_: dict[str, Any] = {"kind": "artifact", "model": "m", "target": "onnx", "loop_form": "scan", "quant": "int4"}
    given_ |= {"compute": "int8", "kv_policy": "full", "kv_dtype": "int8", "loops": loops} | fields
    times = {"first_token_ms": decode * 50, "decode_ms": decode, "decode_quartiles_ms": (decode * 0.9, decode * 1.1)}
    speeds = () if run is None else (Speed(run=run, steps=9, **times),)
    return Row(
        variant=Variant(**given_),
        context=context,
        threads=1,
        weight_bytes=90_000_000,
        model_bytes=91_000_000,
        cache_bytes=loops * context * 1000,
        touched_bytes=40_000_000,
        speeds=speeds,
    )


def memory(loaded: int = 90_000_000) -> Memory:
    return Memory(tokens=32, libraries=1, loaded=loaded, prompted=2, end=3, peak=4, load_seconds=0.5)


def table(*rows: Row, runs: int = 1) -> Table:
    made = Table(runs={number + 1: MACHINE for number in range(runs)})
    made.merge(rows)
    return made


def goal(**values: Any) -> Goal:
    return Goal.model_validate(
        {"name": "n", "model": "m", "metric": "decode_ms", "row": {}, "context": [128], **values}
    )


def test_a_table_comes_back_from_its_file(tmp_path: Path) -> None:
    kept = table(row(), row(loops=1, decode=2.0), row(run=None, context=1024).model_copy(update={"memory": memory()}))
    write_table(kept, tmp_path / "deep" / "bench.json")
    assert read_table(tmp_path / "deep" / "bench.json") == kept
    assert read_table(tmp_path / "none.json") == Table()
    assert read_table(tmp_path / "deep" / "bench.json").rows[0].variant.label == "onnx scan int4 full/int8"
    assert json.loads((tmp_path / "deep" / "bench.json").read_text())["format"] == 1


@pytest.mark.parametrize("text", ["", "[]", '{"format": 2}', '{"rows": [{"context": 0}]}', '{"format": 1, "more": 1}'])
def test_a_file_that_is_no_table_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(InputError, match="bad.json: no table of this version's bench"):
        read_table(tmp_path / "bad.json")


def test_what_a_later_run_did_not_measure_stays() -> None:
    kept = table(row(decode=4.0).model_copy(update={"memory": memory()}), row(loops=1, decode=1.0))
    assert kept.add_run(MACHINE) == 2
    kept.merge([row(run=2, decode=5.0)])
    eight = next(r for r in kept.rows if r.variant.loops == 8)
    assert eight.speed is not None and (eight.speed.run, eight.speed.decode_ms) == (2, 5.0)
    assert eight.memory == memory() and len(kept.rows) == 2 and set(kept.runs) == {1, 2}
    slower = goal(how="ratio", row={"loops": 8}, against={"loops": 1})
    assert [outcome.values for outcome in judge(kept, [slower])] == [(4.0,)], "within run 1, which measured both"


def test_a_goal_is_reached_if_every_run_reaches_it() -> None:
    once = {"how": "ratio", "row": {"loops": 8}, "against": {"loops": 1}, "at_most": [3.0]}
    kept = table(row(decode=6.0), row(loops=1, decode=2.0), row(run=2, context=512), runs=2)
    kept.merge([row(run=2, decode=8.0), row(run=2, loops=1, decode=2.0), row(run=1, context=256)])
    (outcome,) = judge(kept, [goal(**once)])
    assert outcome.values == (3.0, 4.0) and outcome.held == [True, False]
    assert outcome_cells(outcome)[-3:] == ["3.00, 4.00", "<= 3.00", "MISSED in 1 of 2"]


def test_a_run_that_was_measured_again_in_full_is_forgotten() -> None:
    kept = table(row(decode=4.0), row(loops=1, decode=1.0), row(run=2, context=512), runs=2)
    assert kept.add_run(MACHINE) == 3
    kept.merge([row(run=3, decode=6.0), row(run=3, loops=1, decode=2.0), row(run=3, loops=2)])
    assert set(kept.runs) == {2, 3} and all(len(r.speeds) == 1 for r in kept.rows)


@given(st.permutations([row(loops=n, decode=n + 1.0) for n in (1, 2, 4)] + [row(kind="naive-onnx", quant="fp32")]))
def test_the_order_of_merging_does_not_matter(rows: list[Row]) -> None:
    assert table(*rows) == table(*reversed(rows))


def test_times_of_two_runs_are_not_compared() -> None:
    speedup = goal(how="speedup", row={"quant": "int4"}, against={"kind": "naive-onnx"}, at_least=[7.0])
    naive = row(kind="naive-onnx", quant="fp32", kv_dtype="fp32", loop_form="unrolled", decode=32.0)
    (outcome,) = judge(table(row(), naive), [speedup])
    assert outcome.values == (8.0,) and outcome.held == [True]
    apart = table(row(run=2), naive, runs=2)
    assert judge(apart, [speedup]) == [] and not_measured(apart, [speedup]) == ["n"]
    assert cells(apart, apart.rows[0])[HEAD.index("x naive")] == "-"


def test_ratios_stand_beside_the_same_variant_at_one_loop() -> None:
    kept = table(row(decode=6.0), row(loops=1, decode=2.0), row(loops=1, decode=1.0, loop_form="stages"))
    eight = next(r for r in kept.rows if r.variant.loops == 8)
    shown = dict(zip(HEAD, cells(kept, eight), strict=True))
    assert shown["time / T=1"] == "3.00" and shown["tok/s"] == "167" and shown["loaded"] == "-"
    assert shown["roofline"] == "33%", "40 MB at 20 GB/s are 2 ms of 6"
    assert shown["prompt tok/s"] == f"{128 / 300 * 1e3:.0f}"


@pytest.mark.parametrize(
    ("how", "bounds", "value", "reached"),
    [
        ("ratio", {"at_most": [2.9]}, 3.0, False),
        ("ratio", {"at_most": [3.0]}, 3.0, True),
        ("speedup", {"at_least": [0.34]}, 1 / 3, False),
        ("difference", {"at_most": [4.0]}, 4.0, True),
        ("ratio", {}, 3.0, None),
    ],
)
def test_a_outcome_compares_within_a_variant(
    how: str, bounds: dict[str, Any], value: float, reached: bool | None
) -> None:
    judged = goal(how=how, row={"loops": 8}, against={"loops": 1}, **bounds)
    (outcome,) = judge(table(row(decode=6.0), row(loops=1, decode=2.0)), [judged])
    assert outcome.values == (pytest.approx(value),) and outcome.held == ([] if reached is None else [reached])


def test_an_against_may_name_another_context_and_bytes_need_no_run() -> None:
    kept = table(row(context=1024, decode=6.0), row(decode=5.0), row(context=1024, kv_policy="shared", run=None))
    longer = goal(how="ratio", row={"loops": 8}, against={"context": 128}, context=[1024], at_most=[1.6])
    assert [outcome.values for outcome in judge(kept, [longer])] == [(pytest.approx(1.2),)]
    cache = goal(metric="cache_bytes", how="ratio", row={"kv_policy": "shared"}, against={"kv_policy": "full"})
    cache = cache.model_copy(update={"context": [1024]})
    assert [outcome.values for outcome in judge(kept, [cache])] == [(1.0,)]


def test_rows_of_several_threads_are_named_and_compared_only_where_a_goal_says_so() -> None:
    two = row(decode=3.0).model_copy(update={"threads": 2})
    kept = table(row(decode=4.0), two)
    assert [r.label for r in kept.rows] == ["onnx scan int4 full/int8", "onnx scan int4 full/int8, 2 threads"]
    assert len(judge(kept, [goal(at_most=[3.5])])) == 1, "a goal that says nothing is of one thread"
    faster = goal(how="ratio", row={"threads": 2}, against={"threads": 1}, at_most=[0.7])
    assert [outcome.values for outcome in judge(kept, [faster])] == [(0.75,)]


def test_a_goal_speaks_of_one_model_only() -> None:
    loaded = goal(metric="weight_bytes", at_most=[95.0])
    assert len(judge(table(row(), row(model="other")), [loaded])) == 1
    assert judge(table(row(model="other")), [loaded]) == []


def test_memory_is_judged_in_megabytes() -> None:
    loaded = goal(metric="loaded", at_most=[95.0])
    (outcome,) = judge(table(row().model_copy(update={"memory": memory()})), [loaded])
    assert outcome.values == (90.0,) and outcome.held == [True]
    assert metric(row(), "loaded") is None and judge(table(row()), [loaded]) == []


@pytest.mark.parametrize(
    "values",
    [
        {"row": {"size": 1}},
        {"row": {"context": 1}},
        {"metric": "seconds"},
        {"how": "ratio"},
        {"against": {"loops": 1}},
        {"at_most": [1.0, 2.0]},
        {"at_most": [1.0], "at_least": [1.0]},
    ],
)
def test_a_goal_that_means_nothing_is_refused(tmp_path: Path, values: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        goal(**values)


def test_the_packages_goals_are_well_formed_and_have_names_of_their_own(tmp_path: Path) -> None:
    goals = load_goals()
    assert len({entry.name for entry in goals}) == len(goals) > 15
    (tmp_path / "bad.toml").write_text('[[goal]]\nname = "x"\n')
    with pytest.raises(InputError, match="bad.toml: "):
        load_goals(tmp_path / "bad.toml")


def test_a_plot_is_the_same_bytes_twice_and_needs_times(tmp_path: Path) -> None:
    kept = table(row(), row(loops=1, decode=2.0), row(kind="naive-onnx", quant="fp32", decode=30.0), row(context=512))
    for name in ("a.svg", "b.svg", "a.png", "b.png"):
        plot_table(kept, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert "naive-onnx" in (tmp_path / "a.svg").read_text()
    with pytest.raises(UsageError, match="nothing to plot"):
        plot_table(table(row(run=None)), tmp_path / "c.svg")
    with pytest.raises(UsageError, match=r"\.svg or \.png"):
        plot_table(kept, tmp_path / "c.pdf")


@pytest.mark.parametrize("name", ["140m", "llama-cpp"])
def test_the_documentation_shows_the_kept_tables(name: str) -> None:
    folder = Path(__file__).parents[3] / "docs" / "bench"
    kept = read_table(folder / f"{name}.json")
    assert kept.rows and (folder / f"{name}.md").read_text() == markdown(kept)


def test_times_for_a_page_come_from_one_run_that_measured_all(tmp_path: Path) -> None:
    here, there = (Manifest.model_construct(**_identity(quant), artifact=quant) for quant in ("int4", "int8"))
    other = row(run=2, decode=6.0, quant="int8")
    kept = table(row(run=1), row(run=2, decode=5.0), row(loops=1, run=2, decode=2.0), other, row(run=3), runs=3)
    first, second = decode_times(kept, [here, there], tmp_path)
    assert first.decode_ms == {128: {1: 2.0, 8: 5.0}} and second.decode_ms == {128: {8: 6.0}}
    assert first.machine == "made up, 1 thread"
    assert decode_times(kept, [here], tmp_path)[0].decode_ms == {128: {8: 4.0}}, "the last run of it alone"
    both = table(row(), row(decode=1.0).model_copy(update={"threads": 2}))
    assert decode_times(both, [here], tmp_path)[0].decode_ms == {128: {8: 4.0}}, "one curve, of the fewest threads"
    apart = table(row(run=1), row(run=2, quant="int8"), runs=2)
    with pytest.raises(InputError, match="no run measured all of these artifacts"):
        decode_times(apart, [here, there], tmp_path)
    with pytest.raises(InputError, match="no times of int8 .*measure it with parcae-export bench"):
        decode_times(table(row()), [there], tmp_path)


def _identity(quant: str) -> dict[str, Any]:
    """The fields of a manifest that `row` makes rows of."""
    kv = KV.model_construct(policy="full", dtype="int8")
    recipe = Quantization.model_construct(recipe=quant)
    shape = {"model": "m", "target": "onnx", "loop_form": "scan", "compute": "int8", "portable": False}
    return {**shape, "kv": kv, "quantization": recipe}
