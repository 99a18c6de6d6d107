"""Algorithms by name: what `auto` is, what falls back and how that shows, that a seed decides everything."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from parcae_mobile import Parcae
from parcae_mobile.errors import GateError, TextError, UsageError
from parcae_mobile.text import TokenText, seeded_ids
from quantize import algorithms, load_recipe, quantize_with
from quantize.apply import QuantizedModel
from quantize.recipe import parse_recipe

IDS = torch.randint(0, 60, (6, 24), generator=torch.Generator().manual_seed(3))
INT4 = parse_recipe(
    'budget={kl=1,top1=0}\n[[rules]]\nmatch="transformer.adapter.*"\nbits=32\n'
    '[[rules]]\nmatch="*.weight"\nbits=4\ngroup_size=16',
    "small-int4",
)


def same(one: QuantizedModel, other: QuantizedModel) -> bool:
    return all(
        torch.equal(tensor.integers, other.tensors[name].integers)
        and torch.equal(tensor.scales, other.tensors[name].scales)
        for name, tensor in one.tensors.items()
    )


def test_auto_is_gptq_with_text_and_rounding_without(small: Callable[..., Parcae]) -> None:
    model = small()
    with_text, without = quantize_with(model, INT4, "auto", IDS), quantize_with(model, INT4, "auto")
    assert (with_text.algorithm, without.algorithm) == ("gptq", "rtn")
    assert with_text.algorithms["transformer.wte.weight"] == "gptq"
    assert with_text.algorithms["value_embeds.0.weight"] == "rtn" and not with_text.fallbacks
    assert same(without, quantize_with(model, INT4, "rtn")) and not same(with_text, without)


@pytest.mark.parametrize("algorithm", ["rtn", "hqq", "gptq"])
def test_the_same_arguments_give_the_same_integers(small: Callable[..., Parcae], algorithm: str) -> None:
    runs = [quantize_with(small(), INT4, algorithm, IDS, seed=4) for _ in range(2)]
    assert same(*runs) and list(runs[0].tensors) == list(runs[1].tensors)


def test_gptq_leaves_outputs_nearer_than_rounding(small: Callable[..., Parcae]) -> None:
    model = small(n_layers_in_recurrent_block=2)
    expected = model(IDS, loops=4)
    rounded, fitted = (quantize_with(model, INT4, algorithm, IDS).model(IDS, loops=4) for algorithm in ("rtn", "gptq"))
    assert float((fitted - expected).norm()) < 0.9 * float((rounded - expected).norm())


def test_the_given_model_is_not_changed(small: Callable[..., Parcae]) -> None:
    model, fresh = small(), small()
    quantize_with(model, INT4, "gptq", IDS)
    for (_, one), (_, other) in zip(model.named_parameters(), fresh.named_parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_matrix_without_input_falls_back_visibly(small: Callable[..., Parcae]) -> None:
    model = small()
    model.transformer["ln_f"].weight.zero_()  # the head's input is then zero
    with pytest.raises(GateError, match="fell back to rounding for 1 matrices, 0 allowed .transformer.wte.weight: its"):
        quantize_with(model, INT4, "gptq", IDS)
    allowed = quantize_with(model, INT4, "gptq", IDS, max_fallbacks=1)
    assert list(allowed.fallbacks) == ["transformer.wte.weight"]
    assert allowed.algorithms["transformer.wte.weight"] == "rtn"
    rounded = quantize_with(model, INT4, "rtn").tensors["transformer.wte.weight"]
    assert torch.equal(allowed.tensors["transformer.wte.weight"].integers, rounded.integers)


def test_a_hessian_that_was_never_seen_is_a_fall_back(small: Callable[..., Parcae]) -> None:
    model, fallbacks = small(), dict[str, str]()
    quantizer = algorithms.gptq_quantizer(model, {}, fallbacks, {})
    for name in ("transformer.C.weight", "value_embeds.0.weight"):
        weight = dict(model.named_parameters())[name]
        rule = INT4.first_match(name)
        assert rule is not None
        quantizer(name, weight, rule, 16)
    assert fallbacks == {"transformer.C.weight": "no input was seen"}


def test_progress_counts_windows_and_tensors(small: Callable[..., Parcae]) -> None:
    seen: list[tuple[str, int, int]] = []
    quantized = quantize_with(small(), INT4, "gptq", IDS, progress=lambda *step: seen.append(step))
    assert ("calibration", 1, 1) in seen
    assert [done for name, done, _ in seen if name != "calibration"] == list(range(1, len(quantized.tensors) + 1))


def test_a_text_that_is_short_for_the_matrices_is_noted(small: Callable[..., Parcae]) -> None:
    assert quantize_with(small(), INT4, "gptq", IDS).notes == [
        "calibration text of 144 tokens is short for matrices of 64 columns; give 256 or more"
    ]
    assert not quantize_with(small(), INT4, "gptq", torch.cat([IDS, IDS])).notes


def test_passes_limited_by_memory_give_the_same_integers(small: Callable[..., Parcae]) -> None:
    whole = quantize_with(small(), INT4, "gptq", IDS)
    parts = algorithms._with_gptq(small(), INT4, IDS, None, None, most_bytes=10_000)
    assert same(whole, parts) and list(whole.tensors) == list(parts.tensors)


@pytest.mark.parametrize(
    ("algorithm", "calibration", "message"),
    [
        ("gqpt", None, "--algorithm gqpt: choose one of auto, rtn, hqq, gptq, learned"),
        ("gptq", None, "--algorithm gptq needs calibration text"),
        ("learned", None, "--algorithm learned needs calibration text"),
    ],
)
def test_wrong_names_and_missing_text_are_usage_errors(
    small: Callable[..., Parcae], algorithm: str, calibration: None, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        quantize_with(small(), INT4, algorithm, calibration)


@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 9))
def test_windows_are_pieces_of_the_text_and_repeat_for_a_seed(length: int, count: int, seed: int) -> None:
    text = TokenText(torch.arange(40), "numbers")
    windows = algorithms.draw_windows(text, count, length, seed)
    assert windows.shape == (count, length) and bool((windows.diff(dim=1) == 1).all())
    assert torch.equal(windows, algorithms.draw_windows(text, count, length, seed))


def test_a_text_shorter_than_a_window_is_one_clear_line() -> None:
    with pytest.raises(TextError, match=r"seeded ids \(.*\): 100 tokens are less than a window of 256; give a longer"):
        algorithms.draw_windows(seeded_ids(60, 100), length=256)


def test_presets_quantize_a_shape_with_every_option(small: Callable[..., Parcae]) -> None:
    model = small(tie_embeddings=False, bias=True, injection_type="linear")
    quantized = quantize_with(model, load_recipe("int8"), "gptq", IDS)
    assert quantized.algorithms["lm_head.weight"] == "gptq" and quantized.algorithms["transformer.wte.weight"] == "rtn"
