"""Recipes: what they say, and what they may not say."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import quantize
from parcae_mobile import Parcae, released_config
from parcae_mobile.errors import UsageError
from quantize.apply import quantize_model
from quantize.budgets import check_budget, is_looser
from quantize.planning import bytes_by_component, plan_table, total_bytes
from quantize.recipe import (
    PRESETS,
    Budget,
    Recipe,
    RecipeError,
    Rule,
    assign_rules,
    half_matrices,
    load_recipe,
    parse_recipe,
)

START = "budget = { kl = 0.1, top1 = 0.5 }\n"


def rules(*lines: str) -> str:
    return START + "".join(f"[[rules]]\n{line}\n" for line in lines)


def test_the_first_matching_rule_wins(small: Callable[..., Parcae]) -> None:
    second = 'match="transformer.prelude.*"\nbits=4\ngroup_size=16'
    recipe = parse_recipe(rules('match="*.fc.weight"\nbits=8', second), "r")
    chosen = assign_rules(recipe, small())
    assert chosen["transformer.prelude.0.mlp.fc.weight"].bits == 8
    assert chosen["transformer.prelude.0.mlp.proj.weight"].bits == 4
    assert "transformer.C.weight" not in chosen


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = 3\n" + START, "name = 3 goes into a folder's name"),
        ('name = "../../evil"\n' + START, "goes into a folder's name"),
        ('name = "a\\u0000b"\n' + START, "goes into a folder's name"),
        ('name = ""\n' + START, "goes into a folder's name"),
        (rules('match="*"\nbits=4.0'), "rule 1: bits = 4.0 must be"),
        ("budgte = 3\n" + START, "unknown key 'budgte'; did you mean budget?"),
        ('name = "x"', "give its budget"),
        ("budget = { kl = 0.1, top = 0.5 }", "budget: unknown key 'top'; did you mean top1?"),
        ("budget = { kl = -1, top1 = 0.5 }", "budget needs kl and top1"),
        ("budget = { kl = nan, top1 = 0.5 }", "budget needs kl and top1"),
        ("budget = { kl = true, top1 = 0.5 }", "budget needs kl and top1"),
        (START + "train_injection = 1", "train_injection must be true or false"),
        (START + "loop_weights = 4", "give loop counts"),
        (START + "loop_weights = { 0 = 1 }", "give loop counts"),
        (START + "loop_weights = { 4 = -1 }", "give loop counts"),
        (START + "loop_weights = { four = 1 }", "give loop counts"),
        ("rules = 3\n" + START, r"rules must be written as \[\[rules\]\]"),
        (rules('match="*"'), "rule 1: bits = None must be"),
        (rules('match="*"\nbits=5'), "rule 1: bits = 5 must be"),
        (rules('match="*"\nbits=8', 'bits=4\nmatch=""'), "rule 2: needs match"),
        (rules('match="*"\nbits=4\ngroupsize=32'), "unknown key 'groupsize'; did you mean group_size?"),
        (rules('match="*"\nbits=4\ngroup_size=-1'), "group_size = -1 must be a whole number"),
        (rules('match="*"\nbits=4\nsymmetric="no"'), "symmetric = 'no' must be true or false"),
        (rules('match="*"\nbits=4\npalette_rows=-1'), "palette_rows = -1 must be a whole number"),
        (rules('match="*"\nbits=8\npalette_rows=1'), "palette_rows goes with bits = 4"),
        (rules('match="*"\nbits=4\npalette_rows=1\ngroup_size=32'), "palette_rows goes with bits = 4 and without"),
        ("[rules", "not valid TOML"),
    ],
)
def test_a_wrong_recipe_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        parse_recipe(text, "mine")
    assert "\n" not in str(caught.value) and str(caught.value).startswith("recipe mine")


@given(st.text(max_size=60), st.sampled_from(["match", "bits", "group_size", "symmetric", "name", "budget", "x"]))
def test_any_text_is_a_recipe_or_a_recipe_error(text: str, key: str) -> None:
    for content in (text, f"{key} = {text}", rules(f"{key} = {text}"), rules(f'match = "*"\nbits = 4\n{text}')):
        with contextlib.suppress(RecipeError):
            assert isinstance(parse_recipe(content, "any"), Recipe)


@pytest.mark.parametrize("name", ["A_log", "dt_bias"])
@pytest.mark.parametrize("bits", [4, 8, 16])
def test_a_rule_on_the_poles_is_an_error_whatever_is_allowed(
    small: Callable[..., Parcae], name: str, bits: int
) -> None:
    text = "quantize_injection_matrix = true\n" + rules(f'match="transformer.adapter.{name}"\nbits={bits}')
    with pytest.raises(RecipeError, match=f"touches transformer.adapter.{name}, which sets the loop's stability"):
        assign_rules(parse_recipe(text, "mine"), small())


def test_the_injection_matrix_needs_permission(small: Callable[..., Parcae]) -> None:
    text = rules('match="*.adapter.B"\nbits=8')
    with pytest.raises(RecipeError, match="touches transformer.adapter.B; set quantize_injection_matrix = true"):
        assign_rules(parse_recipe(text, "mine"), small())
    allowed = assign_rules(parse_recipe("quantize_injection_matrix = true\n" + text, "mine"), small())
    assert list(allowed) == ["transformer.adapter.B"]


def test_a_group_that_does_not_divide_names_the_matrix(small: Callable[..., Parcae]) -> None:
    with pytest.raises(RecipeError, match="transformer.C.weight: group size 5 does not divide its 32 columns"):
        assign_rules(parse_recipe(rules('match="transformer.C.weight"\nbits=4\ngroup_size=5'), "mine"), small())


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("tied", [True, False])
def test_every_preset_leaves_injection_norms_and_gates_alone(
    small: Callable[..., Parcae], preset: str, tied: bool
) -> None:
    model = small(tie_embeddings=tied)
    quantized = quantize_model(model, load_recipe(preset))
    kept = dict(quantized.model.named_parameters())
    for name, parameter in model.named_parameters():
        if "adapter" in name or parameter.dim() != 2 or "ve_gate" in name:
            assert kept[name] is parameter
        elif preset != "fp32":
            assert [name in kind for kind in (quantized.tensors, quantized.palettes, quantized.halves)].count(True) == 1
    assert (quantized.model.lm_head.weight is quantized.model.transformer["wte"].weight) == tied


def test_sixteen_bits_round_to_values_that_fp16_holds(small: Callable[..., Parcae]) -> None:
    model = small()
    halved = quantize_model(model, load_recipe("fp16"))
    weight = halved.model.transformer["C"].weight
    assert torch.equal(weight.half().float(), weight) and not torch.equal(weight, model.transformer["C"].weight)
    assert "transformer.C.weight" in half_matrices(load_recipe("fp16"), model) and not halved.tensors
    model.transformer["C"].weight[0, 0] = 1e5
    with pytest.raises(RecipeError, match="transformer.C.weight: holds values beyond fp16's range"):
        quantize_model(model, load_recipe("fp16"))


def test_a_file_is_read_and_a_missing_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(rules('match="*.weight"\nbits=8'))
    assert load_recipe(tmp_path / "mine.toml").name == "mine"
    with pytest.raises(UsageError, match=r"--quant in4: neither a preset \(fp32, .*\) nor a TOML file"):
        load_recipe("in4")
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(RecipeError, match="bad.toml: no UTF-8 text"):
        load_recipe(tmp_path / "bad.toml")


@pytest.mark.parametrize("preset", PRESETS)
def test_planned_bytes_are_the_bytes_that_come_out(small: Callable[..., Parcae], preset: str) -> None:
    model = small(n_embd=64, recurrent_embedding_dimension=64)
    table = plan_table(load_recipe(preset), model)
    quantized = quantize_model(model, load_recipe(preset))
    for row in table:
        if row.name in quantized.stored:
            assert row.nbytes == quantized.stored[row.name].nbytes and row.bits < 16
        else:
            assert row.nbytes == row.float_bytes // (2 if row.name in quantized.halves else 1)
    assert sum(bytes_by_component(table).values()) == total_bytes(table)
    assert len(table) == len(list(model.parameters()))


def test_zero_points_are_all_that_tells_two_presets_apart(small: Callable[..., Parcae]) -> None:
    plain, shifted = (assign_rules(load_recipe(name), small()) for name in ("int4", "int4-zero-points"))
    assert load_recipe("int4-zero-points").has_zero_points and not load_recipe("int4").has_zero_points
    for name, rule in shifted.items():
        assert rule.symmetric == (rule.bits == 8)
        assert (rule.bits, rule.group_size) == (plain[name].bits, plain[name].group_size)


def test_a_plan_says_what_a_tensor_becomes(small: Callable[..., Parcae]) -> None:
    rule = Rule("transformer.C.weight", 4, 16, symmetric=False)
    table = plan_table(Recipe("r", (rule,), Budget(0, 0)), small())
    row = next(row for row in table if row.name == "transformer.C.weight")
    assert (row.format, row.component, row.float_bytes) == ("int4, groups of 16, asymmetric", "C", 4096)
    assert row.to_dict()["shape"] == (32, 32)
    assert next(row for row in table if row.name == "transformer.ln_f.weight").format == "fp32"


@pytest.mark.parametrize(
    ("preset", "megabytes"),
    [("int8", 152), ("int4", 96), ("int4-zero-points", 99), ("int4-palette", 90), ("int4-small", 81)],
)
def test_the_140m_shape_stays_below_its_size(preset: str, megabytes: float) -> None:
    with torch.device("meta"):
        model = Parcae(released_config("parcae-140m"))
    table = plan_table(load_recipe(preset), model)
    assert total_bytes(table) <= megabytes * 1e6
    assert 576e6 < sum(row.float_bytes for row in table) < 578e6


def test_recipes_compare_by_value() -> None:
    assert load_recipe("int4") == load_recipe("int4")
    assert dataclasses.replace(load_recipe("int4"), name="other") != load_recipe("int4")


def test_a_changed_preset_does_not_keep_its_name(tmp_path: Path) -> None:
    preset = load_recipe("int8")
    text = (Path(quantize.__file__).parent / "presets" / "int8.toml").read_text(encoding="utf-8")
    (tmp_path / "int8.toml").write_text(text, encoding="utf-8-sig")
    assert load_recipe(tmp_path / "int8.toml") == preset, "a copy, byte order mark and all"
    (tmp_path / "int8.toml").write_text(text.replace("1e-3", "1e-4"), encoding="utf-8")
    changed = load_recipe(tmp_path / "int8.toml")
    assert changed.name == f"int8-{changed.sha256[:6]}" and changed.sha256 != preset.sha256


def test_a_recipe_may_tighten_a_budget_and_not_loosen_it(small: Callable[..., Parcae]) -> None:
    model = small()

    def recipe(kl: float, top1: float, *lines: str) -> Recipe:
        text = "".join(f"[[rules]]\n{line}\n" for line in lines)
        return parse_recipe(f"budget = {{ kl = {kl}, top1 = {top1} }}\n{text}", "mine")

    eight = 'match = "transformer.C.weight"\nbits = 8'
    assert not is_looser(recipe(1e-3, 0.98, eight), model)
    assert is_looser(recipe(2e-3, 0.98, eight), model) and is_looser(recipe(1e-3, 0.97, eight), model)
    assert is_looser(recipe(0.045, 0.84, 'match = "nothing"\nbits = 4', eight), model), "4 bits of nothing"
    assert not is_looser(recipe(0.045, 0.84, 'match = "*.fc.weight"\nbits = 4', eight), model)
    with pytest.raises(UsageError, match="looser than that of presets with 8 bits .* --accept-budget"):
        check_budget(recipe(1.0, 0.0, eight), model, accepted=False)
    check_budget(recipe(1.0, 0.0, eight), model, accepted=True)
    for name in PRESETS:
        check_budget(load_recipe(name), model, accepted=False)
