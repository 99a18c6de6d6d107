"""The configuration of a model, read strictly from the `config.json` that the original code saves.

    config = ParcaeConfig.from_file("checkpoint/config.json")
    config = released_config("parcae-140m")

Every key that the original writes is known by name (config_rules.py): it is used, or it is one that the original's
forward pass does not read (training, initialisation, monitoring), or only the listed values are accepted. An unknown
key or value is an error that names it, because an option that is silently ignored gives plausible wrong numbers.

The same repository's plain GPT baselines are configurations too, with `plain` set: what their layers are called here
says gpt_config.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from . import config_rules, gpt_config
from .errors import ConfigError, UsageError
from .json_file import read_object
from .loops import LOOPS
from .stage_names import LAYER_GROUPS

RELEASED_SHAPES = ("parcae-140m", "parcae-370m", "parcae-770m", "parcae-1.3b")


@dataclass(frozen=True)
class RopeSettings:
    """Rotary position embedding: adjacent pairs are rotated by position / condense ratio * base^(-2i/head size)."""

    use_rope: bool = True
    rope_condense_ratio: int = 1
    rope_base: float = 50_000


@dataclass(frozen=True)
class ParcaeConfig:
    """A model's shape and options; names and defaults are those of the original's `ParcaeConfig`.

    `plain` is not the original's: it marks a GPT baseline, which is n - 1 prelude layers and one core layer that is
    applied once, with no state, no injection and no projection after it.
    """

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
    use_fused_head: str | bool | None = "pytorch"
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
    plain: bool = False

    @classmethod
    def from_file(cls, path: str | Path) -> ParcaeConfig:
        """Read a `config.json`. Raises `ConfigError` that names the file and the key."""
        path = Path(path)
        if not path.exists():
            raise ConfigError(f"no {path.name} in {path.parent}: give a folder that holds a Parcae checkpoint")
        values = read_object(path, ConfigError)
        try:
            return cls.from_dict(values)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ParcaeConfig:
        """Build from the original's saved fields. Raises `ConfigError` for anything unknown or out of range."""
        plain = gpt_config.is_gpt(values)
        if plain:
            values = gpt_config.as_parcae(values)
        known = {field.name: field for field in fields(cls) if field.name != "plain"}
        known_values = config_rules.known_values(values, list(known))
        known_values["rope_settings"] = _rope(known_values.get("rope_settings"))
        resolved = config_rules.resolved({name: field.default for name, field in known.items()}, known_values)
        config = cls(**resolved, plain=plain)
        _check_consistency(config)
        return config

    def to_dict(self) -> dict[str, Any]:
        """The fields as the original saves them; `from_dict` reads them back."""
        values = asdict(self)
        if values.pop("plain"):
            return gpt_config.as_gpt(values)
        return {**values, "_class_name": "ParcaeConfig"}

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
        return config_rules.embedding_scale(self.init_strategy, self.n_embd)

    @property
    def logit_scale(self) -> float:
        """A factor on the logits; the original's GPT applies none."""
        return 1.0 if self.plain else config_rules.logit_scale(self.init_strategy, self.n_embd)

    @property
    def transposed_head(self) -> bool:
        """Whether an untied head is saved as (width, vocabulary): always for GPT, else by the memory-saving head."""
        return not self.tie_embeddings and (self.plain or self.use_fused_head == "full-triton")

    @property
    def context(self) -> int:
        """Positions that the model can take: the block size, or the RoPE table's rows where those are fewer."""
        return min(self.block_size, self.randomize_positions_from or self.block_size)

    @property
    def judged_loops(self) -> tuple[int, ...]:
        """The loop counts at which a model is judged; a plain one has no loop."""
        return (1,) if self.plain else LOOPS

    def layer_count(self, stage: str) -> int:
        """Layers of `prelude`, `core_block` or `coda`."""
        counts = {
            "prelude": self.n_layers_in_prelude,
            "core_block": self.n_layers_in_recurrent_block,
            "coda": self.n_layers_in_coda,
        }
        return counts[stage]

    def width(self, stage: str) -> int:
        """Channels of a stage's layers."""
        return self.recurrent_embedding_dimension if stage == "core_block" else self.n_embd

    def hidden_width(self, stage: str) -> int:
        """Channels inside of a stage's MLPs."""
        recurrent = self.recurrent_intermediation_embedding_dimension
        return recurrent if stage == "core_block" else self.intermediate_size

    def heads(self, stage: str) -> int:
        """Query heads of a stage's layers."""
        return self.recurrent_num_attention_heads if stage == "core_block" else self.num_attention_heads

    def kv_heads(self, stage: str) -> int:
        """Heads that keys and values are computed for; the original's recurrent block has no grouped heads."""
        return self.heads(stage) if stage == "core_block" and not self.plain else self.num_key_value_heads

    def cached_heads(self, stage: str) -> int:
        """Heads whose keys and values are kept: a bias on keys gives each query head keys of its own."""
        return self.heads(stage) if self.qk_bias else self.kv_heads(stage)

    def head_width(self, stage: str) -> int:
        """Channels of one head of a stage's layers."""
        return self.width(stage) // self.heads(stage)

    def layers(self, loops: int) -> int:
        """Layers that a token passes, hence (loop, layer) pairs that have keys and values of their own."""
        return self.n_layers_in_prelude + loops * self.n_layers_in_recurrent_block + self.n_layers_in_coda

    def stage_offset(self, stage: str) -> int:
        """Effective index of the first layer of `prelude`, `core_block` or `coda` (it names value embeddings)."""
        core = self.n_layers_in_prelude
        return {"prelude": 0, "core_block": core, "coda": core + self.n_layers_in_recurrent_block}[stage]

    def has_value_table(self, effective_index: int) -> bool:
        """Whether `value_embeds` has a table at this effective layer: every second one, the last included."""
        return effective_index % 2 == (self.layers(loops=1) - 1) % 2

    def has_value_gate(self, stage: str, index: int) -> bool:
        """Whether a layer owns a `ve_gate`: a rule over training-time layer ids, unlike `has_value_table`'s."""
        if self.plain:
            return self.has_value_table(self.stage_offset(stage) + index)
        offset = self.n_layers_in_prelude + self.n_layers_in_recurrent_block * self.mean_recurrence
        layer_id = index + {"prelude": 0, "core_block": self.n_layers_in_prelude, "coda": offset}[stage]
        depth = self.n_layers_in_recurrent_block * self.mean_backprop_depth
        return layer_id % 2 == (depth - 1) % 2


def released_config(name: str) -> ParcaeConfig:
    """The configuration of a released shape (`parcae-140m`, `parcae-370m`, `parcae-770m`, `parcae-1.3b`)."""
    if name not in RELEASED_SHAPES:
        raise UsageError(f"{name!r} is no released shape; choose one of {', '.join(RELEASED_SHAPES)}")
    from importlib import resources

    with resources.as_file(resources.files("parcae_mobile").joinpath("shapes", f"{name}.json")) as path:
        return ParcaeConfig.from_file(path)


def _rope(values: Any) -> RopeSettings:
    if values is None:
        return RopeSettings()
    names = {field.name for field in fields(RopeSettings)}
    if not isinstance(values, Mapping) or not set(values) <= names:
        raise ConfigError(f"rope_settings = {str(values)[:200]} is not an object of {', '.join(sorted(names))}")
    rope = RopeSettings(**values)
    config_rules.number("rope_settings.rope_base", rope.rope_base, above=0)
    config_rules.number("rope_settings.rope_condense_ratio", rope.rope_condense_ratio, above=0)
    config_rules.boolean("rope_settings.use_rope", rope.use_rope)
    return rope


def _check_consistency(config: ParcaeConfig) -> None:
    """Refuse, by name, combinations that the original cannot run either or that are not built here."""
    if "Gemma" in config.name:
        raise ConfigError(f"name = {config.name!r}: the original gives models named Gemma another norm; rename it")
    for stage in ("prelude", "core_block"):
        if config.width(stage) % config.heads(stage):
            raise ConfigError(f"width {config.width(stage)} must be divisible by its {config.heads(stage)} heads")
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    width, state = config.n_embd, config.recurrent_embedding_dimension
    if heads % kv_heads:
        raise ConfigError(f"num_attention_heads = {heads} must be a multiple of num_key_value_heads = {kv_heads}")
    if config.head_size % 2 and config.rope_settings.use_rope:
        raise ConfigError(f"head size {config.head_size} is odd; RoPE rotates pairs")
    if config.rope_settings.use_rope and config.head_width("core_block") != config.head_size:
        recurrent = config.head_width("core_block")
        raise ConfigError(f"head sizes {config.head_size} and {recurrent} (recurrent) must be equal for RoPE")
    if config.qk_bias and kv_heads not in (1, heads):
        raise ConfigError(
            f"qk_bias has a row for each of {heads} heads and there are {kv_heads} heads of keys: the original cannot "
            "add the two; it takes as many key-value heads as heads, or one"
        )
    positions = config.randomize_positions_from or config.block_size
    if positions * config.head_size > config_rules.MOST_ROTATIONS:
        raise ConfigError(
            f"{positions} positions for heads of {config.head_size} channels make a RoPE table of more than "
            f"{config_rules.MOST_ROTATIONS} values; lower block_size (or randomize_positions_from)"
        )
    if config.injection_type == "add" and state != width:
        raise ConfigError(f"injection_type = 'add' needs equal widths, not {width} and {state}")
    for stage in LAYER_GROUPS:
        values = config.kv_heads(stage) * config.head_width(stage)
        for index in range(config.layer_count(stage)):
            gate = config.has_value_gate(stage, index)
            if gate and config.width(stage) < 32:
                raise ConfigError("a value gate reads 32 channels; the model is narrower")
            if gate and config.has_value_table(config.stage_offset(stage) + index) and values != config.value_width:
                raise ConfigError(f"{stage}.{index}: value embedding of width {config.value_width} for values {values}")
