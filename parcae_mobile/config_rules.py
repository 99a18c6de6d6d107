"""What is known of each key of a saved configuration: which values it may have, and what the original derives.

kept = known_values(json_object, names_of_the_fields)      # unknown keys and values refused by name
values = resolved(defaults, kept)                          # types and ranges checked, derived fields filled in
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from .errors import ConfigError

# What the original's initialisation strategies leave in the forward pass: scales of embedding and logits.
_EMBEDDING_SCALE = {"takase": math.sqrt, "takase-scaled": math.sqrt}
_LOGIT_SCALE = {
    "takase-scaled": lambda width: math.sqrt(2 / 5) / math.sqrt(width),
    "llama-by-dim-ls": lambda width: 1 / math.sqrt(width),
    "noci-anagnostidis": lambda width: 1 / math.sqrt(width),
    "shaped": lambda width: 1 / math.sqrt(width),
    "deep-scale-simple": lambda width: 1 / math.sqrt(width),
    "deep-scale-full": lambda width: 1 / math.sqrt(width),
    "scaled-and-logit-scale": lambda width: 1 / math.sqrt(width),
}
_INIT_STRATEGIES = frozenset(_LOGIT_SCALE) | frozenset(
    "mitchell normal llama llama-by-dim kaiming bert megatron megatron2 small scaled scaled-geiping scaled-zero "
    "scaled-stuck takase wang deepnorm-straight deepnorm-subln bernstein illiterate scaled-large-embed".split()
)

# Keys that the original's forward pass in evaluation mode does not read.
_WITHOUT_EFFECT = frozenset(
    "hf_config skip_initialization init_orthogonal activation_checkpoint_impl debias_attention center_attention "
    "sampling_scheme lockstep_n lockstep_k curriculum_target recurrent_iteration_method strategy use_abacus".split()
)

# Keys whose other values change the arithmetic in ways that are not built here. The original names the attention
# kernel in `attn_impl` and reads it nowhere; `use_fused_head` says how the training loss is computed, and by that how
# an untied head is saved.
_ONLY: dict[str, tuple[Any, ...]] = {
    "block_class_name": ("TransformerPreNormBlock",),
    "attn_impl": ("flash", "sdpa", "tridao", "debug-skip"),
    "use_fused_head": ("pytorch", "cce", "full-triton", True, False, None, ""),
    "mup_model_scaling_factor": (1,),
    "model_class_name": ("Parcae",),
    "_class_name": ("ParcaeConfig",),
    "_is_recurrent_block_config": (False,),
    "causal": (True,),
    "norm_class_name": ("RMSNorm", "LayerNorm"),
    "mlp_class_name": ("BaseMLP", "GatedMLP"),
    "nonlin_name": ("ReLU2", "GELU", "SiLU", "ReLU"),
    "injection_type": ("diagonal", "linear", "add"),
    "state_init": ("like-init", "normal", "embed", "zero", "unit"),
}

LONGEST = 200  # characters of a value in a message
MOST_LAYERS, MOST_LOOPS = 256, 1024  # of a stage, and of training: beyond any model, and no endless work
MOST_ROTATIONS = 2**24  # positions x head size of a RoPE table, which is computed before any weight is read


def embedding_scale(strategy: str, width: int) -> float:
    """The factor on token embeddings that an initialisation strategy brings."""
    return float(_EMBEDDING_SCALE.get(strategy, lambda width: 1.0)(width))


def logit_scale(strategy: str, width: int) -> float:
    """The factor on logits that an initialisation strategy brings."""
    return float(_LOGIT_SCALE.get(strategy, lambda width: 1.0)(width))


def known_values(values: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The values of the fields `names`. Raises `ConfigError` for an unknown key or a value that is not built."""
    options: dict[str, Any] = {}
    for key, value in values.items():
        if key in _ONLY and value not in _ONLY[key]:
            raise ConfigError(f"{key} = {_short(value)} is not supported; it can be {_or(_ONLY[key])}")
        if key in names:
            options[key] = value
        elif key not in _ONLY and key not in _WITHOUT_EFFECT:
            import difflib  # here, because a host runtime wants neither of these two: they would add 1.3 MB to it

            near = difflib.get_close_matches(key[:LONGEST], [*names, *_ONLY, *_WITHOUT_EFFECT], 1)
            hint = f"; did you mean {near[0]}?" if near else "; remove it if the model does not depend on it"
            raise ConfigError(f"unknown key {_short(key)}{hint}")
    if values.get("strategy") == "axonn_tp" and not values.get("simple_ops"):
        raise ConfigError("strategy = 'axonn_tp' saves split matrices; save the checkpoint with strategy 'single'")
    return options


def resolved(defaults: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Check types and ranges, then fill the fields that the original derives from others. Raises `ConfigError`."""
    config: dict[str, Any] = {**defaults, **values}
    for key in ("block_size", "n_embd", "num_attention_heads", "vocab_size", "padding_multiple"):
        integer(key, config[key], 1)
    for key in ("recurrent_embedding_dimension", "recurrent_intermediation_embedding_dimension"):
        integer(key, config[key], 1)
    for key in ("mean_recurrence", "mean_backprop_depth"):
        integer(key, config[key], 1, MOST_LOOPS)
    integer("n_layers_in_recurrent_block", config["n_layers_in_recurrent_block"], 1, MOST_LAYERS)
    for key in ("n_layers_in_prelude", "n_layers_in_coda"):
        integer(key, config[key], 0, MOST_LAYERS)
    for key in ("bias", "qk_bias", "qk_norm", "simple_ops", "prelude_norm", "tie_embeddings"):
        boolean(key, config[key])
    number("norm_eps", config["norm_eps"], above=0)
    for key in ("clip_qkv", "logit_softcap"):
        if config[key] is not None:
            number(key, config[key], above=0)
    if not isinstance(config["name"], str):
        raise ConfigError(f"name = {_short(config['name'])} must be a text")
    strategy = config["init_strategy"]
    if not isinstance(strategy, str) or strategy not in _INIT_STRATEGIES:
        raise ConfigError(f"init_strategy = {_short(strategy)} is unknown, so its scales are unknown too")
    derived = {
        "intermediate_size": 4 * config["n_embd"],
        "num_key_value_heads": config["num_attention_heads"],
        "recurrent_num_attention_heads": config["num_attention_heads"],
        "padded_vocab_size": -(-config["vocab_size"] // config["padding_multiple"]) * config["padding_multiple"],
    }
    for key, value in derived.items():
        config[key] = value if values.get(key) is None else values[key]
        integer(key, config[key], 1)
    config["vocab_size"] = min(config["vocab_size"], config["padded_vocab_size"])
    if config["randomize_positions_from"] is not None:
        integer("randomize_positions_from", config["randomize_positions_from"], 1)
    return config


def integer(key: str, value: Any, least: int, most: int = 2**31) -> None:
    """Raise `ConfigError` unless `value` is a whole number from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        bound = f"from {least} to {most}" if most < 2**31 else f"of at least {least}"
        raise ConfigError(f"{key} = {_short(value)} must be a whole number {bound}")


def number(key: str, value: Any, above: float) -> None:
    """Raise `ConfigError` unless `value` is a finite number above `above`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not _finite(value) or value <= above:
        raise ConfigError(f"{key} = {_short(value)} must be a finite number above {above}")


def boolean(key: str, value: Any) -> None:
    """Raise `ConfigError` unless `value` is true or false."""
    if not isinstance(value, bool):
        raise ConfigError(f"{key} = {_short(value)} must be true or false")


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False


def _short(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10**30:
        return "a number of more than 30 digits"
    text = repr(value)
    return text if len(text) <= LONGEST else text[:LONGEST] + "..."


def _or(values: tuple[Any, ...]) -> str:
    return " or ".join(repr(value) for value in values)
