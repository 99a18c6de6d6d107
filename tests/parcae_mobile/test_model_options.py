"""Options that no reference checkpoint has, against values derived by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from parcae_mobile import KVCache, Parcae, ParcaeConfig, load_model, released_config
from parcae_mobile.errors import PromptTooLongError, UsageError
from parcae_mobile.injection import DiagonalInjection
from parcae_mobile.layers import RMSNorm, activate
from parcae_mobile.random_weights import random_model
from parcae_mobile.rope import rope_table

IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])
Small = Callable[..., Parcae]


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def same_weights(model: Parcae, source: Parcae) -> Parcae:
    model.load_state_dict(source.state_dict(), strict=True)
    return model


def test_the_condense_ratio_divides_positions(small: Small) -> None:
    settings = {"use_rope": True, "rope_condense_ratio": 3, "rope_base": 100}
    table = small(rope_settings=settings).rope
    for position, pair in ((0, 0), (5, 1), (95, 7)):
        angle = position / 3 * 100 ** (-2 * pair / 16)
        assert table[position, pair].tolist() == pytest.approx([math.cos(angle), math.sin(angle)], abs=1e-5)


def test_without_rope_queries_and_keys_are_not_rotated(small: Small) -> None:
    rotated = small()
    plain = same_weights(small(seed=1, rope_settings={"use_rope": False}), rotated)
    assert not torch.allclose(plain(IDS, 2), rotated(IDS, 2), atol=1e-4)
    rotated.rope[..., 0], rotated.rope[..., 1] = 1.0, 0.0
    torch.testing.assert_close(plain(IDS, 2), rotated(IDS, 2), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("kv_heads", [1, 2])
def test_grouped_heads_equal_repeated_key_value_heads(small: Small, kv_heads: int) -> None:
    shape = {"num_attention_heads": 4, "recurrent_num_attention_heads": 4, "n_embd": 32}
    grouped = small(num_key_value_heads=kv_heads, **shape)
    repeated = small(seed=1, **shape)
    wanted = {name: tensor.shape for name, tensor in repeated.state_dict().items()}

    def widen(name: str, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.shape == wanted[name]:
            return tensor
        if "value_embeds" in name:
            heads = tensor.unflatten(1, (kv_heads, -1)).repeat_interleave(4 // kv_heads, 1)
            return heads.flatten(1)
        return tensor.unflatten(0, (kv_heads, -1)).repeat_interleave(4 // kv_heads, 0).flatten(0, 1)

    repeated.load_state_dict({name: widen(name, tensor) for name, tensor in grouped.state_dict().items()})
    torch.testing.assert_close(grouped(IDS, 3), repeated(IDS, 3), atol=1e-5, rtol=1e-5)
    cache = KVCache(grouped.config, 3)
    pieces = [grouped(IDS[:, :5], 3, cache=cache), *(grouped(IDS[:, i : i + 1], 3, cache=cache) for i in (5, 6, 7))]
    torch.testing.assert_close(torch.cat(pieces, 1), repeated(IDS, 3), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("strategy", "embedding", "logits"),
    [
        ("takase", math.sqrt(32), 1),
        ("takase-scaled", math.sqrt(32), math.sqrt(2 / 5) / math.sqrt(32)),
        ("llama-by-dim-ls", 1, 1 / math.sqrt(32)),
        ("scaled-and-logit-scale", 1, 1 / math.sqrt(32)),
        ("scaled", 1, 1),
    ],
)
def test_init_strategies_leave_their_scales(small: Small, strategy: str, embedding: float, logits: float) -> None:
    scaled = small(init_strategy=strategy, tie_embeddings=False)
    plain = same_weights(small(seed=1, init_strategy="scaled-zero", tie_embeddings=False), scaled)
    plain.transformer["wte"].weight *= embedding
    torch.testing.assert_close(scaled(IDS, 2), plain(IDS, 2) * logits, atol=1e-5, rtol=1e-5)


def test_the_soft_cap_follows_the_logit_scale(small: Small) -> None:
    capped = small(logit_softcap=0.5, init_strategy="llama-by-dim-ls")
    plain = same_weights(small(seed=1, init_strategy="llama-by-dim-ls"), capped)
    torch.testing.assert_close(capped(IDS, 2), 0.5 * torch.tanh(plain(IDS, 2) / 0.5))


def test_simple_ops_use_rms_norm_whatever_the_norm_class_says(small: Small) -> None:
    simple, layered = small(simple_ops=True, norm_class_name="LayerNorm"), small(norm_class_name="LayerNorm")
    assert isinstance(simple.transformer["ln_f"], RMSNorm)
    assert isinstance(layered.transformer["ln_f"], nn.LayerNorm)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ReLU2", [0.0, 0.0, 2.0]),
        ("ReLU", [0.0, 0.0, 2.0]),
        ("SiLU", [-1 / (1 + math.e), 0.0, 2 / (1 + math.exp(-2))]),
        ("GELU", [-0.5 * (1 + math.erf(-1 / math.sqrt(2))), 0.0, 1 + math.erf(2 / math.sqrt(2))]),
    ],
)
def test_nonlinearities(name: str, expected: list[float]) -> None:
    assert activate(name, torch.tensor([-1.0, 0.0, 2.0])).tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("nonlinearity", ["SiLU", "ReLU"])
@pytest.mark.parametrize("mlp", ["BaseMLP", "GatedMLP"])
def test_an_mlp_of_each_kind_is_its_formula(small: Small, nonlinearity: str, mlp: str) -> None:
    block = small(nonlin_name=nonlinearity, mlp_class_name=mlp, bias=True).transformer["coda"][0].mlp
    x = torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(0))
    hidden = x @ block.fc.weight.T + block.fc.bias
    if mlp == "GatedMLP":
        first, second = hidden[..., :48], hidden[..., 48:]
    else:
        first, second = hidden, torch.ones(1)
    act = first * torch.sigmoid(first) if nonlinearity == "SiLU" else first.clamp_min(0)
    torch.testing.assert_close(block(x), (act * second) @ block.proj.weight.T + block.proj.bias)


def test_a_saved_rope_table_is_used_instead_of_the_computed_one(
    tmp_path: Path, save_small: Callable[..., Path]
) -> None:
    folder = save_small(tmp_path / "saved")
    plain = load_model(folder)
    table = rope_table(plain.config)
    turned = torch.stack([table[..., 1], table[..., 0]], -1)
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {"freqs_cis": turned[None, :, None]}, folder / "model.safetensors")
    loaded = load_model(folder)
    assert torch.equal(loaded.rope, turned)
    assert not torch.allclose(loaded(IDS, 2), plain(IDS, 2), atol=1e-4)


@pytest.mark.parametrize(
    ("layers", "depth", "recurrence", "tables", "gates"),
    [
        # 6 layers: tables at odd indices. Training ids: prelude 0 1, core 2 3, coda 18 19; odd ones own a gate.
        ((2, 2, 2), 4, 8, [1, 3, 5], [("prelude", 1), ("core_block", 1), ("coda", 1)]),
        # 4 layers: odd again. Ids: prelude 0, core 1 2, coda 9.
        ((1, 2, 1), 2, 4, [1, 3], [("core_block", 0), ("coda", 0)]),
        # 5 layers: even. Depth 3 * 2 is even, so odd ids own a gate: core 1 and 3 (not 2), coda 1 + 3 * 3 = 10 none.
        ((1, 3, 1), 2, 3, [0, 2, 4], [("core_block", 0), ("core_block", 2)]),
        # 3 layers: even. Depth 1 * 3 is odd, so even ids own a gate: prelude 0, coda 1 + 5 = 6.
        ((1, 1, 1), 3, 5, [0, 2], [("prelude", 0), ("coda", 0)]),
    ],
)
def test_value_tables_and_value_gates_follow_different_rules(
    small: Small,
    layers: tuple[int, int, int],
    depth: int,
    recurrence: int,
    tables: list[int],
    gates: list[tuple[str, int]],
) -> None:
    names = ("n_layers_in_prelude", "n_layers_in_recurrent_block", "n_layers_in_coda")
    changes = dict(zip(names, layers, strict=True))
    model = small(**changes, mean_backprop_depth=depth, mean_recurrence=recurrence)
    assert sorted(map(int, model.value_embeds)) == tables
    owned = [
        (stage, index)
        for stage in ("prelude", "core_block", "coda")
        for index, block in enumerate(model.transformer[stage])
        if block.attn.ve_gate is not None
    ]
    assert owned == gates


def test_a_value_embedding_without_a_gate_changes_nothing(small: Small) -> None:
    names = {"n_layers_in_recurrent_block": 3, "mean_backprop_depth": 2, "mean_recurrence": 3}
    model = small(**names)
    before = model(IDS, 2)
    model.value_embeds["0"].weight += 1  # the prelude's layer owns no gate here
    assert torch.equal(model(IDS, 2), before)
    model.lm_head.weight += 0.01
    assert not torch.equal(model(IDS, 2), before)


def test_the_value_gate_is_twice_a_sigmoid_of_the_first_normed_channels(small: Small) -> None:
    model = small(n_embd=64, recurrent_embedding_dimension=64, mean_backprop_depth=3, mean_recurrence=5)
    attention = model.transformer["prelude"][0].attn
    x = torch.randn(1, 4, 64, generator=torch.Generator().manual_seed(1))
    embedding = torch.randn(1, 4, 64, generator=torch.Generator().manual_seed(2))
    kept: dict[str, torch.Tensor] = {}

    class Recording:
        def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, normalise: bool) -> torch.Tensor:
            kept["value"] = v
            return v.flatten(2)

    attention(x, embedding, Recording())
    gate = 2 * torch.sigmoid(x[..., :32] @ attention.ve_gate.weight.T)
    expected = (x @ attention.c_v.weight.T).view(1, 4, 2, 32) + gate[..., None] * embedding.view(1, 4, 2, 32)
    torch.testing.assert_close(kept["value"], expected)


def test_clipping_precedes_the_bias_of_queries_and_keys(small: Small) -> None:
    model = small(clip_qkv=0.1, qk_bias=True, qk_norm=False)
    attention = model.transformer["coda"][0].attn
    kept: dict[str, torch.Tensor] = {}

    class Recording:
        def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, normalise: bool) -> torch.Tensor:
            kept.update(q=q, k=k, v=v)
            assert not normalise
            return v.flatten(2)

    x = torch.randn(1, 4, 32, generator=torch.Generator().manual_seed(1))
    attention(x, None, Recording())
    for name, layer, bias in (("q", attention.c_q, 0), ("k", attention.c_k, 1)):
        clipped = (x @ layer.weight.T).clamp(-0.1, 0.1).view(1, 4, 2, 16)
        torch.testing.assert_close(kept[name], clipped + attention.qk_bias[bias])
    assert float(kept["v"].abs().max()) <= 0.1 + 1e-7


def test_the_diagonal_injection_is_its_formula_and_its_poles_are_below_one(small: Small) -> None:
    injection = small().transformer["adapter"]
    assert isinstance(injection, DiagonalInjection)
    dt = torch.log1p(torch.exp(injection.dt_bias.double()))
    decay = torch.exp(-dt * torch.exp(injection.A_log.double()))
    assert float(decay.max()) < 1 and float(decay.min()) > 0
    state, embedded = torch.randn(2, 1, 3, 32, generator=torch.Generator().manual_seed(3)).unbind()
    expected = decay * state + dt * (embedded.double() @ injection.B.double().T)
    out = injection(state, injection.prepare(embedded))
    torch.testing.assert_close(out.double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "parameters", "layers"),
    [
        ("parcae-140m", 144_323_136, (6, 20)),
        ("parcae-370m", 388_003_328, (12, 40)),
        ("parcae-770m", 776_655_680, (18, 60)),
        ("parcae-1.3b", 1_338_591_744, (24, 80)),
    ],
)
def test_released_shapes_have_their_published_parameter_counts(
    name: str, parameters: int, layers: tuple[int, int]
) -> None:
    config = released_config(name)
    with torch.device("meta"):
        model = Parcae(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert (config.layers(1), config.layers(8)) == layers


def test_an_unknown_released_shape_is_refused() -> None:
    with pytest.raises(UsageError, match="parcae-150m.*parcae-140m"):
        released_config("parcae-150m")


@pytest.mark.parametrize("tied", [True, False])
def test_random_models_keep_ties_and_have_no_zero_matrix(small: Small, tied: bool) -> None:
    model = small(tie_embeddings=tied, bias=True, norm_class_name="LayerNorm")
    assert (model.lm_head.weight is model.transformer["wte"].weight) is tied
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter).all(), name
        if parameter.dim() >= 2:
            assert bool((parameter != 0).any(dim=-1).all()), name


def test_random_models_are_seeded(small_values: dict[str, object]) -> None:
    config = ParcaeConfig.from_dict(small_values)
    first, again, other = random_model(config, 3), random_model(config, 3), random_model(config, 4)
    assert torch.equal(first(IDS, 2), again(IDS, 2))
    assert not torch.equal(first(IDS, 2), other(IDS, 2))


@pytest.mark.parametrize("loops", [0, -1])
def test_the_recurrent_block_runs_at_least_once(small: Small, loops: int) -> None:
    with pytest.raises(UsageError, match=f"loops = {loops}"):
        small()(IDS, loops)


def test_a_text_beyond_the_context_is_refused(small: Small) -> None:
    with pytest.raises(PromptTooLongError, match="context of 96"):
        small()(torch.zeros(1, 97, dtype=torch.int64), 1)


def test_the_context_is_the_shorter_of_block_size_and_position_table(small: Small) -> None:
    assert small(randomize_positions_from=40).config.context == 40
    assert small(randomize_positions_from=400).config.context == 96
    with pytest.raises(PromptTooLongError):
        small(randomize_positions_from=40)(torch.zeros(1, 41, dtype=torch.int64), 1)


@pytest.mark.parametrize("injection", ["diagonal", "linear", "add"])
def test_states_show_every_loop(small: Small, injection: str) -> None:
    model = small(injection_type=injection)
    states = list(model.states(IDS, 3))
    assert len(states) == 3
    for loops, state in enumerate(states, 1):
        logits = model.coda(state, IDS, model.slots("coda", IDS))
        torch.testing.assert_close(logits, model(IDS, loops))
