"""The original's plain GPT baselines, said in the terms of a looped model, so that one code runs both.

A GPT of n layers is a prelude of n - 1 layers and a core of one, applied once: the embedding is "added" to a zero
state, nothing is projected afterwards, and no layer is computed that the original does not compute. Facts of the
original: heads may be grouped in every layer, no factor is applied to the logits, an untied head is saved as
(width, vocabulary), and a tied one may lie in the file unused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import config_rules

CLASS_NAME = "GPTConfig"
_LOOPED_KEYS = ("n_layers_in_recurrent_block", "recurrent_embedding_dimension", "mean_recurrence", "injection_type")
_LAYERS = "transformer.h."


def is_gpt(values: Mapping[str, Any]) -> bool:
    """Whether saved values are a GPT's: by their class, or where none is saved by `n_layer` without a loop."""
    if "_class_name" in values:
        return bool(values["_class_name"] == CLASS_NAME)
    return "n_layer" in values and not any(key in values for key in _LOOPED_KEYS)


def as_parcae(values: Mapping[str, Any]) -> dict[str, Any]:
    """Saved values of a GPT as those of a `ParcaeConfig`. Raises `ConfigError` for a wrong size."""
    width, layers, heads = values.get("n_embd", 4096), values.get("n_layer", 16), values.get("num_attention_heads", 32)
    for key, value in (("n_embd", width), ("n_layer", layers), ("num_attention_heads", heads)):
        config_rules.integer(key, value, 1)
    hidden = values.get("intermediate_size")
    own = {key: value for key, value in values.items() if key not in ("n_layer", "_class_name")}
    return own | {
        "injection_type": "add",
        "n_layers_in_prelude": layers - 1,
        "n_layers_in_recurrent_block": 1,
        "n_layers_in_coda": 0,
        "recurrent_embedding_dimension": width,
        "recurrent_intermediation_embedding_dimension": 4 * width if hidden is None else hidden,
        "recurrent_num_attention_heads": heads,
        "mean_recurrence": 1,
        "mean_backprop_depth": 1,
        "state_init": "zero",
        "prelude_norm": False,
    }


def as_gpt(values: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `as_parcae`."""
    looped = {*_LOOPED_KEYS, "n_layers_in_prelude", "n_layers_in_coda", "state_init", "prelude_norm"}
    looped |= {"recurrent_intermediation_embedding_dimension", "recurrent_num_attention_heads", "mean_backprop_depth"}
    own = {key: value for key, value in values.items() if key not in looped}
    return own | {"n_layer": values["n_layers_in_prelude"] + 1, "_class_name": CLASS_NAME}


def tensor_name(name: str, layers: int) -> str:
    """The name here of a GPT's tensor: `transformer.h.3...` of 4 layers is `transformer.core_block.0...`."""
    if not name.startswith(_LAYERS):
        return name
    index, _, rest = name.removeprefix(_LAYERS).partition(".")
    if index == str(layers - 1):
        return f"transformer.core_block.0.{rest}"
    return f"transformer.prelude.{index}.{rest}"
