"""What the study measures: windows that no choice looked at, the cloze, and the front."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from parcae_mobile import Parcae, ParcaeConfig
from parcae_mobile.text import TokenText, seeded_ids
from quantize.compression import HeldOut
from quantize.learning_run import Learning
from quantize.planning import PlannedTensor, component
from quantize.recipe import load_recipe
from quantize.study import shapes
from quantize.study import trials as trials_module
from quantize.study.bench import LENGTH, WINDOWS, Bench, reported_windows
from quantize.study.bits_and_loops import Judge, Point, grown, recipes, rows
from quantize.study.bits_plot import draw
from quantize.study.front import TIME_OF_INT8, FrontPoint, multiplied, on_front, variants
from quantize.study.learned import learned
from quantize.study.trial_list import HEADS, trials
from quantize.study.trials import Figures, tables


def test_reported_windows_follow_those_of_all_other_tables() -> None:
    size = LENGTH + 1
    text = TokenText(torch.arange(size * (WINDOWS + 300)), "numbers")
    starts = reported_windows(text)[:, 0] // size
    assert len(starts) == 64 and int(starts.min()) > WINDOWS and int(starts.max()) > WINDOWS + 290
    assert bool(((starts - WINDOWS) % 2 == 1).all())


def test_a_model_is_no_distance_from_itself_and_the_cloze_counts_the_likeliest(small: Callable[..., Parcae]) -> None:
    model = small()
    judge = Judge(model, torch.randint(0, 60, (2, 17), generator=torch.Generator().manual_seed(1)))
    points = judge.measure(model, "fp32", "")
    assert [point.loops for point in points] == [1, 2, 4, 8, 12, 16]
    assert all(point.kl == pytest.approx(0, abs=1e-9) and point.state_error == 0 for point in points)
    sure = torch.zeros(2, 16, 64).scatter_(2, judge.targets[..., None], 9.0)
    assert judge.cloze(sure) == 1.0 and judge.cloze(-sure) == 0.0


def test_the_tables_and_the_picture_of_points(tmp_path: Path) -> None:
    counts = (1, 2, 4, 8, 12, 16)
    points = [Point("fp32", "", t, 0.0, 1.0, 0.8, 0.0) for t in counts]
    points += [Point("int4", "gptq", t, 0.01 * t, 0.9, 0.79, 0.1) for t in counts]
    text = rows(points)
    assert "| int4 | gptq | 0.01000 |" in text and "| 4.000 |" in text and "-1.00%" in text and "fp32 |" not in text
    for name in ("a.svg", "b.svg"):
        draw({"one": points}, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_errors_of_a_contracting_loop_settle_and_others_add_up() -> None:
    assert grown(0.5) == pytest.approx((1 - 2**-16) / (1 - 2**-4)) and grown(1.0) == 4.0
    assert 1 < grown(0.5) < grown(0.98) < 4


def test_recipes_of_the_studies_differ_where_they_say() -> None:
    assert [recipe.name for recipe in recipes()][3:] == ["int4, value tables int3", "int4, value tables int2"]
    rule = recipes()[4].first_match("value_embeds.0.weight")
    assert rule is not None and (rule.bits, rule.group_size) == (2, 128)
    found = list(variants())
    assert len(found) == 24
    for group, symmetric, eight, recipe in found:
        fc = recipe.first_match("transformer.core_block.0.mlp.fc.weight")
        output = recipe.first_match("transformer.core_block.0.attn.c_proj.weight")
        coda = recipe.first_match("transformer.coda.0.attn.c_proj.weight")
        assert fc is not None and output is not None and coda is not None
        assert (coda.bits, coda.group_size, coda.symmetric) == (4, group, symmetric)
        assert (fc.bits, output.bits) == (8 if eight == "all" else 4, 8 if eight in ("all", "values, outputs") else 4)


def test_a_point_is_on_the_front_if_nothing_smaller_and_faster_is_nearer() -> None:
    recipe = load_recipe("int4")
    found = [FrontPoint(*values, recipe) for values in ((1, 1, 0.3), (2, 1, 0.2), (2.5, 1, 0.25), (3, 0.5, 0.4))]
    assert [on_front(point, found) for point in found] == [True, True, False, True]


def test_time_counts_the_recurrent_block_as_often_as_it_runs() -> None:
    def row(name: str, shape: tuple[int, ...], bits: int) -> PlannedTensor:
        return PlannedTensor(name, component(name), shape, "", bits, 128, True, 0, 0)

    block, head = row("transformer.core_block.0.mlp.fc.weight", (4, 8), 4), row("lm_head.weight", (4, 8), 8)
    looked_up = row("value_embeds.1.weight", (4, 8), 4)
    assert multiplied([block]) == 8 * 32
    assert multiplied([block, head, looked_up]) == pytest.approx(8 * 32 + 32 * TIME_OF_INT8)


def test_the_stages_of_learned_rounding_are_rows(small: Callable[..., Parcae], tmp_path: Path) -> None:
    model = small(block_size=256, vocab_size=64)
    text = seeded_ids(64, 34 * LENGTH)
    windows = text.windows(2, 40)
    bench = Bench(model, windows, text, HeldOut(model, windows, (8,)), windows[:1])
    rows = learned(bench, tmp_path, ("int4-small",), Learning(steps=1, loops=(1, 1))).splitlines()[2:]
    assert [row.split(" | ")[1] for row in rows] == ["gptq", "integers moved", "learned"]
    assert rows[0] != rows[1].replace("integers moved", "gptq")


def test_what_a_step_costs_at_a_shape(small_values: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    wide = {"intermediate_size": 64, "recurrent_intermediation_embedding_dimension": 64, "block_size": 256}
    monkeypatch.setattr(shapes, "released_config", lambda name: ParcaeConfig.from_dict({**small_values, **wide}))
    heads, _, row = shapes.learning_costs("parcae-140m", 1).splitlines()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    assert "seconds a step" in heads and row.startswith(f"| parcae-140m | {device} | 0 | 1024 |")


def test_trials_have_names_of_their_own_and_a_head_for_every_label() -> None:
    every = trials()
    assert len({trial.name for trial in every}) == len(every)
    assert all(len(HEADS[trial.table]) == len(trial.labels) for trial in every)
    assert {trial.table for trial in every} == set(HEADS)


def test_tables_of_trials_show_what_is_kept_and_name_what_was_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials_module, "KEPT", tmp_path / "trials.json")
    figures = Figures(0.006, 0.004, 0.005, 0.0051, 0.0001, 0.95, 1.01, 60.0, "cpu")
    (tmp_path / "trials.json").write_text(json.dumps({"rates/0.01": asdict(figures)}))
    text = tables(["rates", "front"])
    assert "| 0.01 | 0.00600 | 0.00400 | 0.00510 | 0.00010 | 95.00% | 1.010 | 60 |" in text
    assert "Not run: rates/0.0025, rates/0.005, rates/0.02." in text
    assert "front/32/symmetric/none" in text


def test_a_trial_that_stands_in_two_tables_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials_module, "KEPT", tmp_path / "trials.json")
    figures = Figures(0.006, 0.004, 0.005, 0.0051, 0.0001, 0.95, 1.01, 60.0, "cpu")
    (tmp_path / "trials.json").write_text(json.dumps({"steps/int4/300": asdict(figures)}))
    same = {"loops/drawn, 2 to settled/all loops", "rates/0.005", "text/70%/300"}
    assert set(trials_module.load()) == {"steps/int4/300", "parts/rounding, scales, gains", *same}
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("it is measured already"))
    assert trials_module.run_all([trial for trial in trials() if trial.name in same], jobs=1, minutes=None)
