"""The injection guard and comparisons, on the trained reference model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from parcae_mobile import Parcae, load_model
from parcae_mobile.errors import InputError
from parcae_mobile.parity import compare
from parcae_mobile.text import text_ids
from quantize import load_recipe, quantize_with
from quantize.algorithms import draw_windows
from quantize.comparison import compare_recipes, plot_recipes, sensitivity
from quantize.compression import HeldOut
from quantize.guard import injection_report, max_decay, store
from quantize.study.markdown import replace_table, table


@pytest.fixture(scope="module")
def model(data: Path) -> Parcae:
    return load_model(data / "tiny-trained")


@pytest.fixture(scope="module")
def held_out(model: Parcae, data: Path) -> HeldOut:
    return HeldOut(model, text_ids(data / "tiny-trained", "heldout").windows(2, 96), (1, 4, 8))


def test_the_guard_shows_that_the_matrix_and_the_decay_are_dear(held_out: HeldOut) -> None:
    rows = {(row.stored, row.format): row for row in injection_report(held_out)}
    assert len(rows) == 9 and all(row.stable for row in rows.values())
    assert rows["B", "int4"].kl[8] > 20 * rows["B", "int8"].kl[8] > 100 * rows["B", "bf16"].kl[8]
    assert rows["B", "int4"].max_decay == max_decay(held_out.reference)
    coarse, fine = rows["decay", "int4"], rows["decay", "bf16"]
    assert coarse.max_decay_error > 0.01 > fine.max_decay_error > 0
    assert coarse.state_errors[8] > coarse.state_errors[4] > 10 * fine.state_errors[4]  # it grows with the loops


def test_a_decay_near_one_loses_its_stability_when_stored_in_few_bits() -> None:
    decay = torch.tensor([0.5, 0.999])
    assert store(decay, "bf16")[1] == 1.0
    assert float(store(torch.tensor([0.9, 0.99]), "int4")[0]) == pytest.approx(0.99 * 6 / 7)


def test_an_unstable_decay_is_reported_as_one(model: Parcae, held_out: HeldOut) -> None:
    slow = HeldOut(load_slow(model), held_out.inputs, (1,))
    rows = {(row.stored, row.format): row for row in injection_report(slow)}
    assert rows["decay", "bf16"].max_decay == 1.0 and not rows["decay", "bf16"].stable
    assert rows["B", "bf16"].stable


def load_slow(model: Parcae) -> Parcae:
    """The model with its greatest decay at 0.9995."""
    from quantize.apply import with_tensors
    from quantize.guard import _rate_of

    injection = model.transformer["adapter"]
    decay = injection.decay().clone()
    decay[0] = 0.9995
    return with_tensors(model, {}, {"transformer.adapter.A_log": _rate_of(decay, injection.dt())})


def test_an_injection_without_poles_has_no_report(data: Path) -> None:
    other = load_model(data / "linear-injection")
    assert injection_report(HeldOut(other, torch.ones(1, 5, dtype=torch.long), (1,))) == []
    assert max_decay(other) is None


def test_components_are_measured_one_at_a_time(model: Parcae, held_out: HeldOut) -> None:
    rows = sensitivity(model, held_out, bits=(4,))
    names = [row.component for row in rows]
    assert names == ["token table", "value embeddings", "prelude", "injection", "recurrent block", "C", "coda"]
    assert sum(row.parameters for row in rows) == sum(
        parameter.numel() for name, parameter in model.named_parameters() if parameter.dim() == 2 and "gate" not in name
    )
    cost = {row.component: row.distance.kl_mean / row.parameters for row in rows}
    assert min(cost, key=cost.__getitem__) == "value embeddings"


def test_comparing_recipes_and_drawing_them(model: Parcae, held_out: HeldOut, tmp_path: Path) -> None:
    recipes = [load_recipe("int8"), load_recipe("int4")]
    points = compare_recipes(model, held_out, recipes, None, ("rtn", "hqq"))
    assert [(point.recipe, point.algorithm) for point in points] == [
        ("int8", "rtn"), ("int8", "hqq"), ("int4", "rtn"), ("int4", "hqq")
    ]  # fmt: skip
    assert points[0].nbytes > points[2].nbytes and points[0].distance.kl_mean < points[2].distance.kl_mean
    assert points[2].growth == pytest.approx(1, abs=0.1)
    for name in ("a.svg", "b.svg"):
        plot_recipes(points, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert "tensor bytes (MB)" in (tmp_path / "a.svg").read_text()


def test_int4_from_gptq_keeps_more_than_rounding(model: Parcae, held_out: HeldOut, data: Path) -> None:
    windows = draw_windows(text_ids(data / "tiny-trained", "calibration"), 32, 96)
    fitted, rounded = (quantize_with(model, load_recipe("int4"), algorithm, windows) for algorithm in ("gptq", "rtn"))
    assert held_out.measure(fitted.model)[0][8].kl_mean < 0.8 * held_out.measure(rounded.model)[0][8].kl_mean
    assert not fitted.notes


def test_tables_replace_their_own_place_only() -> None:
    document = "a\n<!-- table x -->\nold\n<!-- end -->\nb\n<!-- table y -->\nkept\n<!-- end -->\n"
    changed = replace_table(document, "x", table(["h"], [["1"]]))
    assert changed.startswith("a\n<!-- table x -->\n\n| h |\n| --- |\n| 1 |\n\n<!-- end -->\nb") and "kept" in changed
    assert replace_table(changed, "x", table(["h"], [["1"]])) == changed
    with pytest.raises(InputError, match="no '<!-- table z -->'"):
        replace_table(document, "z", "")
    with pytest.raises(ValueError, match="cells"):
        table(["h"], [["1", "2"]])


def test_padding_of_the_vocabulary_is_not_judged() -> None:
    logits = torch.randn(3, 8)
    padded = logits.clone()
    padded[:, 6:] += 50
    assert compare(logits, padded, keep=6).kl_mean == pytest.approx(0, abs=1e-9)
