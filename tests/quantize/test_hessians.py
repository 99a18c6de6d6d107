"""The moments that GPTQ gets: which inputs they count, and which they do not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from parcae_mobile import Parcae, load_model
from parcae_mobile.errors import PromptTooLongError, TensorValueError, TextError
from quantize.hessians import calibration_loops, collect_hessians, input_of, passes

FC = "transformer.core_block.0.mlp.fc.weight"
IDS = torch.randint(0, 60, (5, 12), generator=torch.Generator().manual_seed(1))


def matrices(model: Parcae) -> list[str]:
    return [name for name, parameter in model.named_parameters() if parameter.dim() == 2 and "ve_gate" not in name]


@torch.no_grad()
def core_inputs(model: Parcae, loops: int) -> list[torch.Tensor]:
    """Moments of the recurrent block's MLP input at each loop, worked out without hooks."""
    block, moments = model.transformer["core_block"][0], []
    injected, values = model.prelude(IDS, model.slots("prelude", IDS))
    state = model.zero_state(injected)
    for _ in range(loops):
        x = model.transformer["adapter"](state, injected)
        x = x + block.attn(block.norm_1(x), values[0], model.slots("core_block", IDS)[0])
        seen = block.norm_2(x).flatten(0, 1)
        moments.append(seen.T @ seen)
        state = x + block.mlp(block.norm_2(x))
    return moments


def test_the_recurrent_block_is_summed_over_every_loop(small: Callable[..., Parcae]) -> None:
    model = small()
    by_loop = core_inputs(model, 4)
    found = collect_hessians(model, IDS, [FC], loops=4)[FC]
    assert torch.allclose(found, sum(by_loop), rtol=1e-4, atol=1e-3)  # type: ignore[arg-type]
    assert not torch.allclose(found, 4 * by_loop[0], rtol=1e-2)


def test_chosen_loops_alone_can_be_counted(small: Callable[..., Parcae]) -> None:
    model = small()
    by_loop = core_inputs(model, 3)
    first = collect_hessians(model, IDS, [FC], loops=3, counted=(1,))[FC]
    ends = collect_hessians(model, IDS, [FC], loops=3, counted=(1, 3))[FC]
    assert torch.allclose(first, by_loop[0], rtol=1e-4, atol=1e-3)
    assert torch.allclose(ends, by_loop[0] + by_loop[2], rtol=1e-4, atol=1e-3)


def test_c_coda_and_head_are_summed_over_the_exits(small: Callable[..., Parcae]) -> None:
    model = small()
    name = "transformer.C.weight"
    states = [state.flatten(0, 1) for state in model.states(IDS, 4)]
    found = collect_hessians(model, IDS, [name], loops=4, exits=(2, 4))[name]
    assert torch.allclose(found, states[1].T @ states[1] + states[3].T @ states[3], rtol=1e-4, atol=1e-3)


def test_loop_counts_weigh_as_often_as_they_are_used(small: Callable[..., Parcae]) -> None:
    model = small()
    by_loop = core_inputs(model, 3)
    found = collect_hessians(model, IDS, [FC, "transformer.C.weight"], weights={1: 2, 3: 5})
    assert torch.allclose(found[FC], 7 * by_loop[0] + 5 * by_loop[1] + 5 * by_loop[2], rtol=1e-4, atol=1e-2)
    states = [state.flatten(0, 1) for state in model.states(IDS, 3)]
    exits = 2 * states[0].T @ states[0] + 5 * states[2].T @ states[2]
    assert torch.allclose(found["transformer.C.weight"], exits, rtol=1e-4, atol=1e-2)


def test_a_tied_table_has_the_moments_of_the_heads_input(small: Callable[..., Parcae]) -> None:
    model, seen = small(), []
    handle = model.lm_head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].flatten(0, 1)))
    model(IDS, loops=3)
    handle.remove()
    found = collect_hessians(model, IDS, ["transformer.wte.weight"], loops=3, exits=(3,))["transformer.wte.weight"]
    assert torch.allclose(found, seen[0].T @ seen[0], rtol=1e-4, atol=1e-3)


def test_a_table_that_is_only_looked_up_gets_none(small: Callable[..., Parcae]) -> None:
    model = small(tie_embeddings=False)
    found = collect_hessians(model, IDS, matrices(model), loops=2)
    assert "transformer.wte.weight" not in found and "value_embeds.0.weight" not in found
    assert set(found) == {name for name in matrices(model) if input_of(model, name) is not None}


def test_queries_keys_and_values_share_their_moments(small: Callable[..., Parcae]) -> None:
    found = collect_hessians(small(), IDS, matrices(small()), loops=2)
    start = "transformer.core_block.0.attn."
    assert found[start + "c_q.weight"] is found[start + "c_k.weight"] is found[start + "c_v.weight"]
    assert found[start + "c_proj.weight"] is not found[start + "c_q.weight"]


@pytest.mark.parametrize("injection", ["diagonal", "linear", "add"])
def test_the_injections_matrix_has_the_prelude_as_its_input(small: Callable[..., Parcae], injection: str) -> None:
    model = small(injection_type=injection)
    names = [name for name in matrices(model) if "adapter" in name]
    found = collect_hessians(model, IDS, names, loops=2)
    assert set(found) == set(names) and len(names) == (injection != "add")
    if injection == "diagonal":
        moments = found["transformer.adapter.B"]
        assert torch.allclose(moments.diagonal().sum(), torch.tensor(IDS.numel() * 32.0), rtol=1e-3)  # after a norm


def test_memory_is_bounded_by_more_passes(small: Callable[..., Parcae]) -> None:
    model = small()
    names, one = matrices(model), passes(model, matrices(model))
    assert len(one) == 1
    several = passes(model, names, most_bytes=4 * 32 * 32 * 2)
    assert len(several) > 2 and [name for group in several for name in group] == one[0]


def test_no_hook_is_left_behind(small: Callable[..., Parcae]) -> None:
    model = small()
    collect_hessians(model, IDS, matrices(model), loops=2)
    with pytest.raises(PromptTooLongError):
        collect_hessians(model, torch.zeros(1, 500, dtype=torch.long), matrices(model), loops=2)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


def test_activations_that_are_not_finite_name_the_matrix(small: Callable[..., Parcae]) -> None:
    model = small()
    model.transformer["prelude"][0].norm_2.weight[3] = torch.inf
    with pytest.raises(TensorValueError, match="prelude.0.mlp.fc.weight: its inputs on the calibration text are NaN"):
        collect_hessians(model, IDS, matrices(model), loops=1)


def test_windows_must_be_a_table_of_ids(small: Callable[..., Parcae]) -> None:
    with pytest.raises(TextError, match="calibration windows of shape"):
        collect_hessians(small(), IDS[0], [FC])


def test_a_model_without_a_prelude_and_one_without_a_loop_have_moments(small: Callable[..., Parcae]) -> None:
    windows = torch.randint(0, 60, (2, 12), generator=torch.Generator().manual_seed(0))
    model = small(n_layers_in_prelude=0, prelude_norm=False)
    name = "transformer.adapter.B"
    assert collect_hessians(model, windows, [name], loops=2)[name].shape == (32, 32)
    plain = load_model(Path(__file__).parents[1] / "data" / "gpt" / "tied")
    assert calibration_loops(plain) == 1
    last = "transformer.core_block.0.mlp.fc.weight"
    assert collect_hessians(plain, windows, [last])[last].shape == (64, 64)
