"""The configuration of a Parcae model, read strictly from the `config.json` that the original code saves.

    config = ParcaeConfig.from_file("checkpoint/config.json")
    config = released_config("parcae-140m")

Every key that the original writes is known here by name: it is used, or it is one that the original's forward pass
does not read (training, initialisation, monitoring), or only the listed values are accepted. An unknown key or value is
an error that names it, because an option that is silently ignored gives plausible wrong numbers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from .errors import ConfigError, UsageError

RELEASED_SHAPES = ("parcae-140m", "parcae-370m", "parcae-770m", "parcae-1.3b")

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

# Keys whose other values change the arithmetic in ways that are not built here.
_ONLY: dict[str, tuple[Any, ...]] = {
    "block_class_name": ("TransformerPreNormBlock",),
    "attn_impl": ("flash", "sdpa"),
    "use_fused_head": ("pytorch", "cce"),
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


@dataclass(frozen=True)
class RopeSettings:
    """Rotary position embedding: adjacent pairs are rotated by position / condense ratio * base^(-2i/head size)."""

    use_rope: bool = True
    rope_condense_ratio: int = 1
    rope_base: float = 50_000


@dataclass(frozen=True)
class ParcaeConfig:
    """A Parcae model's shape and options; names and defaults are those of the original's `ParcaeConfig`."""

    name: str = ""
    block_size: int = 4096
    n_embd: int = 4096
    intermediate_size: int = 0
    num_attention_heads: int = 32
    num_key_value_heads: int = 0
    vocab_size: int = 50254
    padding_multiple: int = 512
    padded_vocab_size: int = 0
    rope_settings: RopeSettings = RopeSettings()
    randomize_positions_from: int | None = None
    norm_class_name: str = "LayerNorm"
    norm_eps: float = 1e-5
    mlp_class_name: str = "BaseMLP"
    nonlin_name: str = "GELU"
    bias: bool = False
    qk_bias: bool = False
    init_strategy: str = "scaled"
    clip_qkv: float | None = None
    qk_norm: bool = False
    logit_softcap: float | None = None
    simple_ops: bool = False
    injection_type: str = "diagonal"
    n_layers_in_recurrent_block: int = 4
    n_layers_in_prelude: int = 1
    n_layers_in_coda: int = 1
    state_init: str = "like-init"
    recurrent_embedding_dimension: int = 1024
    recurrent_intermediation_embedding_dimension: int = 3520
    recurrent_num_attention_heads: int = 0
    prelude_norm: bool = False
    mean_recurrence: int = 32
    mean_backprop_depth: int = 8
    tie_embeddings: bool = False

    @classmethod
    def from_file(cls, path: str | Path) -> ParcaeConfig:
        """Read a `config.json`. Raises `ConfigError` that names the file and the key."""
        path = Path(path)
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(
                f"no config.json in {path.parent}: give a folder that holds a Parcae checkpoint"
            ) from None
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ConfigError(f"{path}: not readable as JSON ({error}); save the checkpoint again") from None
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: holds a {type(values).__name__}, not an object of ParcaeConfig fields")
        try:
            return cls.from_dict(values)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ParcaeConfig:
        """Build from the original's saved fields. Raises `ConfigError` for anything unknown or out of range."""
        known = {field.name: field for field in fields(cls)}
        kept: dict[str, Any] = {}
        for key, value in values.items():
            if key in _ONLY and value not in _ONLY[key]:
                raise ConfigError(f"{key} = {value!r} is not supported; it can be {_or(_ONLY[key])}")
            if key in known:
                kept[key] = value
            elif key not in _ONLY and key not in _WITHOUT_EFFECT:
                import difflib  # here, because a host runtime wants neither of these two: they would add 1.3 MB to it

                near = difflib.get_close_matches(key, [*known, *_ONLY, *_WITHOUT_EFFECT], 1)
                hint = f"; did you mean {near[0]}?" if near else "; remove it if the model does not depend on it"
                raise ConfigError(f"unknown key {key!r}{hint}")
        if values.get("strategy") == "axonn_tp" and not values.get("simple_ops"):
            raise ConfigError("strategy = 'axonn_tp' saves split matrices; save the checkpoint with strategy 'single'")
        kept["rope_settings"] = _rope(kept.get("rope_settings"))
        return cls(**_resolved(kept))

    def to_dict(self) -> dict[str, Any]:
        """The fields as the original saves them; `from_dict` reads them back."""
        return {**asdict(self), "_class_name": "ParcaeConfig"}

    @property
    def head_size(self) -> int:
        return self.n_embd // self.num_attention_heads

    @property
    def value_width(self) -> int:
        """Columns of a value-embedding table."""
        return self.num_key_value_heads * self.head_size

    @property
    def norm_class(self) -> str:
        """`simple_ops` makes the original use RMSNorm whatever `norm_class_name` says."""
        return "RMSNorm" if self.simple_ops else self.norm_class_name

    @property
    def embedding_scale(self) -> float:
        return float(_EMBEDDING_SCALE.get(self.init_strategy, lambda width: 1.0)(self.n_embd))

    @property
    def logit_scale(self) -> float:
        return float(_LOGIT_SCALE.get(self.init_strategy, lambda width: 1.0)(self.n_embd))

    @property
    def context(self) -> int:
        """Positions that the model can take: the block size, or the RoPE table's rows where those are fewer."""
        return min(self.block_size, self.randomize_positions_from or self.block_size)

    def layers(self, loops: int) -> int:
        """Layers that a token passes, hence (loop, layer) pairs that have keys and values of their own."""
        return self.n_layers_in_prelude + loops * self.n_layers_in_recurrent_block + self.n_layers_in_coda

    def stage_offset(self, stage: str) -> int:
        """Effective index of the first layer of `prelude`, `core_block` or `coda` (it names value embeddings)."""
        core = self.n_layers_in_prelude
        return {"prelude": 0, "core_block": core, "coda": core + self.n_layers_in_recurrent_block}[stage]

    def has_value_table(self, effective_index: int) -> bool:
        """Whether `value_embeds` has a table at this effective layer: every second one, the last included."""
        total = self.n_layers_in_prelude + self.n_layers_in_recurrent_block + self.n_layers_in_coda
        return effective_index % 2 == (total - 1) % 2

    def has_value_gate(self, stage: str, index: int) -> bool:
        """Whether a layer owns a `ve_gate`: a rule over training-time layer ids, unlike `has_value_table`'s."""
        offset = self.n_layers_in_prelude + self.n_layers_in_recurrent_block * self.mean_recurrence
        layer_id = index + {"prelude": 0, "core_block": self.n_layers_in_prelude, "coda": offset}[stage]
        depth = self.n_layers_in_recurrent_block * self.mean_backprop_depth
        return layer_id % 2 == (depth - 1) % 2


def released_config(name: str) -> ParcaeConfig:
    """The configuration of a released shape (`parcae-140m`, `parcae-370m`, `parcae-770m`, `parcae-1.3b`)."""
    if name not in RELEASED_SHAPES:
        raise UsageError(f"{name!r} is no released shape; choose one of {', '.join(RELEASED_SHAPES)}")
    from importlib import resources

    text = resources.files("parcae_mobile").joinpath("shapes", f"{name}.json").read_text(encoding="utf-8")
    return ParcaeConfig.from_dict(json.loads(text))


def _or(values: tuple[Any, ...]) -> str:
    return " or ".join(repr(value) for value in values)


def _rope(values: Any) -> RopeSettings:
    if values is None:
        return RopeSettings()
    names = {field.name for field in fields(RopeSettings)}
    if not isinstance(values, Mapping) or not set(values) <= names:
        raise ConfigError(f"rope_settings = {values!r} is not an object of {', '.join(sorted(names))}")
    rope = RopeSettings(**values)
    _number("rope_settings.rope_base", rope.rope_base, above=0)
    _number("rope_settings.rope_condense_ratio", rope.rope_condense_ratio, above=0)
    _boolean("rope_settings.use_rope", rope.use_rope)
    return rope


def _resolved(values: dict[str, Any]) -> dict[str, Any]:
    """Check types and ranges, then fill the fields that the original derives from others."""
    config: dict[str, Any] = {field.name: field.default for field in fields(ParcaeConfig)} | values
    for key in ("block_size", "n_embd", "num_attention_heads", "vocab_size", "padding_multiple", "mean_recurrence"):
        _integer(key, config[key], 1)
    for key in ("n_layers_in_recurrent_block", "recurrent_embedding_dimension", "mean_backprop_depth"):
        _integer(key, config[key], 1)
    _integer("recurrent_intermediation_embedding_dimension", config["recurrent_intermediation_embedding_dimension"], 1)
    for key in ("n_layers_in_prelude", "n_layers_in_coda"):
        _integer(key, config[key], 0)
    for key in ("bias", "qk_bias", "qk_norm", "simple_ops", "prelude_norm", "tie_embeddings"):
        _boolean(key, config[key])
    _number("norm_eps", config["norm_eps"], above=0)
    for key in ("clip_qkv", "logit_softcap"):
        if config[key] is not None:
            _number(key, config[key], above=0)

    derived = {
        "intermediate_size": 4 * config["n_embd"],
        "num_key_value_heads": config["num_attention_heads"],
        "recurrent_num_attention_heads": config["num_attention_heads"],
        "padded_vocab_size": -(-config["vocab_size"] // config["padding_multiple"]) * config["padding_multiple"],
    }
    for key, value in derived.items():
        config[key] = value if values.get(key) is None else values[key]
        _integer(key, config[key], 1)
    config["vocab_size"] = min(config["vocab_size"], config["padded_vocab_size"])
    if config["randomize_positions_from"] is not None:
        _integer("randomize_positions_from", config["randomize_positions_from"], 1)
    _check_consistency(ParcaeConfig(**config))
    return config


def _check_consistency(config: ParcaeConfig) -> None:
    """Refuse, by name, combinations that the original cannot run either or that are not built here."""
    if not isinstance(config.init_strategy, str) or config.init_strategy not in _INIT_STRATEGIES:
        raise ConfigError(f"init_strategy = {config.init_strategy!r} is unknown, so its scales are unknown too")
    if not isinstance(config.name, str):
        raise ConfigError(f"name = {config.name!r} must be a text")
    if "Gemma" in config.name:
        raise ConfigError(f"name = {config.name!r}: the original gives models named Gemma another norm; rename it")
    width, heads, kv_heads = config.n_embd, config.num_attention_heads, config.num_key_value_heads
    state, state_heads = config.recurrent_embedding_dimension, config.recurrent_num_attention_heads
    if width % heads or state % state_heads:
        raise ConfigError(f"widths {width} and {state} must be divisible by their head counts {heads}, {state_heads}")
    if heads % kv_heads:
        raise ConfigError(f"num_attention_heads = {heads} must be a multiple of num_key_value_heads = {kv_heads}")
    if config.head_size % 2 and config.rope_settings.use_rope:
        raise ConfigError(f"head size {config.head_size} is odd; RoPE rotates pairs")
    if config.rope_settings.use_rope and state // state_heads != config.head_size:
        raise ConfigError(
            f"head sizes {config.head_size} and {state // state_heads} (recurrent) must be equal for RoPE"
        )
    if config.qk_bias and kv_heads != heads:
        raise ConfigError("qk_bias with fewer key-value heads than heads has no meaning in the original")
    if config.injection_type == "add" and state != width:
        raise ConfigError(f"injection_type = 'add' needs equal widths, not {width} and {state}")
    for stage, count, kv_width in (
        ("prelude", config.n_layers_in_prelude, config.value_width),
        ("core_block", config.n_layers_in_recurrent_block, state),
        ("coda", config.n_layers_in_coda, config.value_width),
    ):
        for index in range(count):
            gate = config.has_value_gate(stage, index)
            if gate and (state if stage == "core_block" else width) < 32:
                raise ConfigError("a value gate reads 32 channels; the model is narrower")
            if gate and config.has_value_table(config.stage_offset(stage) + index) and kv_width != config.value_width:
                raise ConfigError(
                    f"{stage}.{index}: value embedding of width {config.value_width} for values {kv_width}"
                )


def _integer(key: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= 2**31:
        raise ConfigError(f"{key} = {value!r} must be a whole number of at least {least}")


def _number(key: str, value: Any, above: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= above:
        raise ConfigError(f"{key} = {value!r} must be a finite number above {above}")


def _boolean(key: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise ConfigError(f"{key} = {value!r} must be true or false")
