"""A configuration is read strictly: every wrong key or value is refused by name, and nothing else is raised."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parcae_mobile import ParcaeConfig
from parcae_mobile.errors import ConfigError

KEYS = sorted(
    json.loads((Path(__file__).parents[1] / "data" / "diagonal-2-2-2" / "config.json").read_text(encoding="utf-8"))
)


def refused(values: dict[str, Any], *names: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ParcaeConfig.from_dict(values)
    message = str(caught.value)
    assert all(name in message for name in names), message
    assert "\n" not in message


def test_every_key_that_the_original_saves_is_known(golden_folder: Path) -> None:
    config = ParcaeConfig.from_file(golden_folder / "config.json")
    assert config.padded_vocab_size == 512


def test_an_unknown_key_is_refused_with_the_nearest_name(small_values: dict[str, Any]) -> None:
    refused(small_values | {"qk_nrom": True}, "'qk_nrom'", "did you mean qk_norm?")
    refused(small_values | {"zzzzzz": True}, "'zzzzzz'", "remove it")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("injection_type", "attention"),
        ("norm_class_name", "DynamicTanh"),
        ("mlp_class_name", "MoE"),
        ("nonlin_name", "Mish"),
        ("block_class_name", "TransformerPostNormBlock"),
        ("attn_impl", "ring"),
        ("causal", False),
        ("mup_model_scaling_factor", 2),
        ("state_init", "ones"),
        ("model_class_name", "GPT"),
        ("_class_name", "LlamaConfig"),
        ("_is_recurrent_block_config", True),
        ("init_strategy", "my-own"),
        ("use_fused_head", "apple"),
    ],
)
def test_an_unsupported_value_is_refused_by_key_and_value(small_values: dict[str, Any], key: str, value: Any) -> None:
    refused(small_values | {key: value}, key, repr(value))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((key, value) for key in ("block_size", "n_embd", "num_attention_heads", "vocab_size") for value in (0, -1)),
        *((key, 0) for key in ("padding_multiple", "mean_recurrence", "mean_backprop_depth", "intermediate_size")),
        *((key, 0) for key in ("n_layers_in_recurrent_block", "recurrent_embedding_dimension")),
        *((key, -1) for key in ("n_layers_in_prelude", "n_layers_in_coda", "num_key_value_heads")),
        ("recurrent_intermediation_embedding_dimension", 0),
        ("randomize_positions_from", 0),
        ("block_size", 1.5),
        ("block_size", True),
        ("block_size", "96"),
        ("block_size", 2**40),
        ("norm_eps", 0),
        ("norm_eps", float("nan")),
        ("clip_qkv", -1),
        ("clip_qkv", 0),
        ("logit_softcap", 0),
        ("logit_softcap", float("inf")),
        ("bias", 1),
        ("tie_embeddings", "yes"),
        ("rope_settings", []),
        ("rope_settings", {"base": 5}),
        ("rope_settings", {"rope_base": 0}),
        ("rope_settings", {"rope_condense_ratio": 0}),
        ("rope_settings", {"use_rope": 1}),
        ("init_strategy", ["scaled"]),
        ("init_strategy", None),
        ("name", 5),
    ],
)
def test_a_value_of_the_wrong_kind_or_range_is_refused_by_key(
    small_values: dict[str, Any], key: str, value: Any
) -> None:
    refused(small_values | {key: value}, key)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_attention_heads": 3}, "divisible"),
        ({"recurrent_num_attention_heads": 3}, "divisible"),
        ({"num_attention_heads": 4, "num_key_value_heads": 3}, "multiple"),
        ({"n_embd": 30, "num_attention_heads": 2}, "odd"),
        ({"recurrent_num_attention_heads": 4}, "must be equal for RoPE"),
        ({"qk_bias": True, "num_attention_heads": 4, "num_key_value_heads": 2}, "qk_bias"),
        ({"injection_type": "add", "recurrent_embedding_dimension": 64, "recurrent_num_attention_heads": 4}, "add"),
        ({"n_embd": 16, "recurrent_embedding_dimension": 16, "mean_backprop_depth": 3}, "gate reads 32"),
        ({"name": "Gemma-2b"}, "Gemma"),
        ({"strategy": "axonn_tp"}, "axonn_tp"),
        ({"n_layers_in_recurrent_block": 3, "mean_recurrence": 3, "num_key_value_heads": 1}, "value embedding"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(
    small_values: dict[str, Any], changes: dict[str, Any], words: str
) -> None:
    if "value embedding" in words:
        changes = changes | {"mean_backprop_depth": 1}
    refused(small_values | changes, words)


def test_derived_fields_are_filled_in() -> None:
    config = ParcaeConfig.from_dict({"n_embd": 64, "num_attention_heads": 4, "recurrent_embedding_dimension": 64})
    assert (config.intermediate_size, config.num_key_value_heads, config.recurrent_num_attention_heads) == (256, 4, 4)
    assert (config.vocab_size, config.padded_vocab_size) == (50254, 50688)  # 99 * 512
    assert ParcaeConfig.from_dict(config.to_dict() | {"padded_vocab_size": 128}).vocab_size == 128


def test_files_that_are_no_configuration_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    for content in (b"{", b"[]", b"5", b"\xff\xfe", b'{"n_embd": -1}'):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match="config.json"):
            ParcaeConfig.from_file(path)
    with pytest.raises(ConfigError, match="no config.json in"):
        ParcaeConfig.from_file(tmp_path / "none" / "config.json")


@st.composite
def valid_configs(draw: st.DrawFn) -> dict[str, Any]:
    head, heads = draw(st.sampled_from([8, 16, 32])), draw(st.sampled_from([4, 8]))
    states = draw(st.sampled_from([4, 8, 12]))
    return {
        "name": draw(st.text(max_size=8).filter(lambda name: "Gemma" not in name)),
        "block_size": draw(st.integers(1, 4096)),
        "n_embd": head * heads,
        "num_attention_heads": heads,
        "recurrent_embedding_dimension": head * states,
        "recurrent_num_attention_heads": states,
        "vocab_size": draw(st.integers(1, 100_000)),
        "padding_multiple": draw(st.sampled_from([1, 64, 512])),
        "injection_type": draw(st.sampled_from(["diagonal", "linear"])),
        "norm_class_name": draw(st.sampled_from(["RMSNorm", "LayerNorm"])),
        "nonlin_name": draw(st.sampled_from(["ReLU2", "GELU", "SiLU", "ReLU"])),
        "mlp_class_name": draw(st.sampled_from(["BaseMLP", "GatedMLP"])),
        "clip_qkv": draw(st.none() | st.floats(0.1, 10)),
        "logit_softcap": draw(st.none() | st.integers(1, 100)),
        "rope_settings": {"rope_base": draw(st.integers(1, 10**6)), "use_rope": draw(st.booleans())},
        "n_layers_in_prelude": draw(st.integers(0, 3)),
        "n_layers_in_coda": draw(st.integers(0, 3)),
        "n_layers_in_recurrent_block": 2,
        "mean_recurrence": draw(st.integers(1, 32)),
        "mean_backprop_depth": draw(st.integers(1, 8)),
        "tie_embeddings": draw(st.booleans()),
    }


@given(valid_configs())
def test_a_configuration_survives_saving_and_reading(values: dict[str, Any]) -> None:
    try:
        config = ParcaeConfig.from_dict(values)
    except ConfigError as error:  # a recurrent layer's gate may meet a table of another width
        assert "value embedding" in str(error)
        return
    assert ParcaeConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    for key, value in values.items():
        if key not in ("vocab_size", "rope_settings"):
            assert getattr(config, key) == value
    assert config.padded_vocab_size % values["padding_multiple"] == 0
    assert config.vocab_size == values["vocab_size"] <= config.padded_vocab_size


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from(KEYS), JSON, max_size=3), st.dictionaries(st.text(max_size=4), JSON, max_size=1))
def test_any_values_give_a_configuration_or_a_configuration_error(known: dict[str, Any], more: dict[str, Any]) -> None:
    small = {"n_embd": 64, "num_attention_heads": 4, "recurrent_embedding_dimension": 64, "block_size": 32}
    try:
        config = ParcaeConfig.from_dict(small | known | more)
    except ConfigError as error:
        assert str(error)
    else:
        assert config.n_embd % config.num_attention_heads == 0


@pytest.mark.parametrize("key", KEYS)
def test_no_single_key_can_raise_anything_but_a_configuration_error(key: str, small_values: dict[str, Any]) -> None:
    for value in (None, True, -3, 0, 7, 2.5, "x", [], [1], {}, {"a": 1}):
        try:
            ParcaeConfig.from_dict(small_values | {key: value})
        except ConfigError as error:
            assert str(error)
