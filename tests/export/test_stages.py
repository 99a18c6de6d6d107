"""The traced stages are the eager model's stages, and do no work twice that loops could share."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from export.stages import Stage, fold_injection, trace_stages
from parcae_mobile import KVCache, Parcae

IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])


def caches(stage: Stage, model: Parcae, name: str) -> list[torch.Tensor]:
    attention = [block.attn for block in model.transformer[name]]
    return [torch.zeros(1, a.kv_heads, 12, a.head_size) for a in attention for _ in range(2)]


@torch.no_grad()
@pytest.mark.parametrize(
    "changes",
    [{}, {"injection_type": "linear", "bias": True}, {"n_layers_in_recurrent_block": 2, "num_key_value_heads": 2}],
    ids=["diagonal", "linear", "two layers"],
)
def test_traced_programs_equal_the_eager_model_in_any_chunks(
    small: Callable[..., Parcae], changes: dict[str, Any]
) -> None:
    model = small(**changes)
    stages = trace_stages(model)
    run = {name: stage.program.module() for name, stage in stages.items()}
    past = {name: caches(stages[name], model, layers) for name, layers in LAYERS.items() if name != "recur"}
    loops = [caches(stages["recur"], model, "core_block") for _ in range(3)]
    values_count = sum(name.startswith("value_embedding") for name in stages["prelude"].outputs)
    out, done = [], 0
    for chunk in IDS.split([5, 2, 1], dim=1):
        done += chunk.shape[1]
        total = torch.tensor(done, dtype=torch.int32)
        injected, *rest = run["prelude"](input_ids=chunk, total=total, past=past["prelude"])
        values, past["prelude"] = rest[:values_count], rest[values_count:]
        state = torch.zeros(1, chunk.shape[1], 32)
        for loop in range(3):
            state, *loops[loop] = run["recur"](
                state=state, injected=injected, total=total, values=values, past=loops[loop]
            )
        positions = torch.arange(chunk.shape[1])
        logits, *past["coda"] = run["coda"](
            state=state, input_ids=chunk, positions=positions, total=total, past=past["coda"]
        )
        out.append(logits)
    torch.testing.assert_close(torch.cat(out, 1), model(IDS, 3), atol=1e-5, rtol=1e-5)
    cache = KVCache(model.config, 3)
    model(IDS, 3, cache=cache)
    torch.testing.assert_close(past["coda"][1][:, :, :8], cache.values["coda"][0, 0][:, :, :8])


LAYERS = {"prelude": "prelude", "recur": "core_block", "coda": "coda"}


def test_names_of_inputs_and_outputs_follow_the_program(small: Callable[..., Parcae]) -> None:
    stages = trace_stages(small(n_layers_in_recurrent_block=2, mean_backprop_depth=3))
    assert stages["prelude"].inputs == ("input_ids", "total", "past.0.key", "past.0.value")
    assert stages["coda"].outputs == ("logits", "present.0.key", "present.0.value")
    assert stages["recur"].inputs[:3] == ("state", "injected", "total") and stages["recur"].kv_layers == 2
    for stage in stages.values():
        signature = stage.program.graph_signature
        assert len(stage.inputs) == len(signature.user_inputs)
        assert len(stage.outputs) == len(signature.user_outputs)


def test_the_loop_does_no_work_that_all_loops_share(small: Callable[..., Parcae]) -> None:
    stages = trace_stages(small())
    recur = {str(node.target) for node in stages["recur"].program.graph.nodes if node.op == "call_function"}
    assert not any(word in target for target in recur for word in ("embedding", "softplus", "exp"))
    program = stages["recur"].program
    read = {node.name for node in program.graph.nodes if node.op == "placeholder" and node.users}
    used = {spec.target for spec in program.graph_signature.input_specs if spec.target and spec.arg.name in read}
    assert "model.transformer.adapter.decay" in used
    assert not any(name.endswith(("adapter.B", "A_log", "dt_bias", "adapter.dt")) for name in used)
    prelude = {str(n.target) for n in stages["prelude"].program.graph.nodes if n.op == "call_function"}
    assert not any("softplus" in target or "exp" in target.split(".")[1:2] for target in prelude)


@torch.no_grad()
@pytest.mark.parametrize("injection", ["diagonal", "linear", "add"])
def test_folding_the_injection_changes_no_logit_and_shares_every_tensor(
    small: Callable[..., Parcae], injection: str
) -> None:
    model = small(injection_type=injection, bias=True)
    folded = fold_injection(model)
    torch.testing.assert_close(folded(IDS, 3), model(IDS, 3), atol=1e-5, rtol=1e-5)
    assert folded.transformer["wte"].weight is model.transformer["wte"].weight
    assert type(model.transformer["adapter"]) is type(small(injection_type=injection, bias=True).transformer["adapter"])


def test_each_operator_of_a_stage_is_known_by_its_layer_count(small: Callable[..., Parcae]) -> None:
    stages = trace_stages(small(n_layers_in_prelude=2))
    counts = {
        name: sum(node.target is torch.ops.parcae.cached_attention.default for node in stage.program.graph.nodes)
        for name, stage in stages.items()
    }
    assert counts == {"prelude": 2, "recur": 1, "coda": 1}


def test_a_trace_lists_no_inputs_that_would_keep_it_for_good(small: Callable[..., Parcae]) -> None:
    def environments() -> list[ShapeEnv]:
        gc.collect()
        return [thing for thing in gc.get_objects() if type(thing) is ShapeEnv]

    earlier = environments()
    stages = trace_stages(small())
    traced = [env for env in environments() if all(env is not other for other in earlier)]
    assert stages and traced and not any(env.tracked_fakes for env in traced)
