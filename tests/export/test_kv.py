"""KV policies and int8 caches in artifacts, early exit, and sessions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from export.generation import Sampling, generate
from export.hosts.base import CacheGeometry
from export.hosts.onnx_host import OnnxHost
from export.kv_choice import choose_policy
from export.kv_scales import measure_scales
from export.targets.onnx import write_scan, write_stages
from parcae_mobile import KVCache, Parcae
from parcae_mobile.config import KV_POLICIES
from parcae_mobile.errors import UsageError
from parcae_mobile.kv_cache import CacheSpec

LOOPS = 4


@pytest.fixture(scope="module")
def stages(quantized: Any, mini_model: Parcae, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stages")
    write_stages(quantized(mini_model, "fp32"), folder)
    return folder


def host_of(folder: Path, model: Parcae, policy: str = "full", form: str = "stages", dtype: str = "fp32") -> OnnxHost:
    return OnnxHost(folder, form, CacheGeometry.of(model.config, 8, policy=policy), 1, dtype)


@pytest.mark.parametrize("policy", KV_POLICIES)
def test_every_policy_decodes_as_eager_does(
    stages: Path, mini_model: Parcae, mini_ids: torch.Tensor, policy: str
) -> None:
    host, ids = host_of(stages, mini_model, policy), mini_ids.flatten()[:24]
    cache = KVCache(mini_model.config, 8, policy=policy)
    for start, stop in ((0, 10), (10, 15), *((place, place + 1) for place in range(15, 24))):
        expected = mini_model(ids[None, start:stop], LOOPS, cache=cache)[0].numpy()
        assert np.abs(host.run(ids[start:stop].tolist(), LOOPS) - expected).max() < 1e-4


def test_a_shared_cache_takes_the_same_bytes_at_every_loop_count(stages: Path, mini_model: Parcae) -> None:
    sizes = {}
    for policy in ("full", "shared"):
        for loops in (1, 8):
            host = host_of(stages, mini_model, policy)
            host.run([1, 2, 3], loops)
            sizes[policy, loops] = host.cache_bytes
    assert sizes["shared", 1] == sizes["shared", 8] == sizes["full", 1] < sizes["full", 8]


def test_a_cache_goes_on_at_any_loop_count(stages: Path, mini_model: Parcae, mini_ids: torch.Tensor) -> None:
    host, cache, place = host_of(stages, mini_model), KVCache(mini_model.config, 8), 0
    ids = mini_ids.flatten()
    for length, loops in ((9, 3), (1, 1), (1, 8), (6, 2), (1, 5)):
        piece = ids[place : place + length]
        expected = mini_model(piece[None], loops, cache=cache)[0].numpy()
        assert np.abs(host.run(piece.tolist(), loops) - expected).max() < 1e-4
        place += length


@pytest.mark.parametrize(("form", "write"), [("stages", write_stages), ("scan", write_scan)])
def test_an_int8_cache_rounds_as_eager_does(
    quantized: Any,
    mini_model: Parcae,
    mini_ids: torch.Tensor,
    tmp_path: Path,
    form: str,
    write: Callable[..., Any],
) -> None:
    ids = mini_ids.flatten()[:30]
    scales = measure_scales(mini_model, ids[None], LOOPS)
    write(quantized(mini_model, "fp32"), tmp_path, "fp32", scales)
    host = host_of(tmp_path, mini_model, form=form, dtype="int8")
    cache = CacheSpec("full", "int8", scales).make(mini_model.config, LOOPS, 30)
    expected = mini_model(ids[None], LOOPS, cache=cache)[0].numpy()
    exact = mini_model(ids[None], LOOPS)[0].numpy()
    error = np.abs(host.run(ids.tolist(), LOOPS) - expected)
    assert np.median(error) < 1e-4  # a value on a rounding edge may fall to the other side
    assert np.median(np.abs(expected - exact)) > np.median(error)
    assert host.cache_bytes * 4 == host_bytes_fp32(mini_model, host)


def host_bytes_fp32(model: Parcae, host: OnnxHost) -> int:
    geometry = host.geometry
    return geometry.bytes_per_token(LOOPS) * min(256, geometry.context)


def test_scales_cover_what_calibration_text_reaches(mini_model: Parcae, mini_ids: torch.Tensor) -> None:
    ids = mini_ids.flatten()[None, :30]
    scales = measure_scales(mini_model, ids, LOOPS)
    cache = KVCache(mini_model.config, LOOPS, context=30)
    mini_model(ids, LOOPS, cache=cache)
    for stage, tensors in cache.keys.items():
        for layer, (key_scale, value_scale) in enumerate(scales[stage]):
            assert (
                float(tensors[:, layer].abs().max()) <= 127 * key_scale <= 1.05 * float(tensors[:, layer].abs().max())
            )
            assert float(cache.values[stage][:, layer].abs().max()) <= 127 * value_scale


def test_the_smallest_policy_that_costs_nothing_is_chosen(mini_model: Parcae, mini_ids: torch.Tensor) -> None:
    choice = choose_policy(mini_model, mini_ids.flatten()[:40].view(2, 20), 8, 20)
    assert choice.measured["full"].distance.kl_mean == 0
    chosen = choice.measured[choice.policy]
    assert chosen.distance.kl_mean < 1e-3
    smaller = [cost for cost in choice.measured.values() if cost.bytes_per_token < chosen.bytes_per_token]
    assert all(cost.distance.kl_mean >= 1e-3 for cost in smaller)


def test_early_exit_stops_when_the_state_stands_still(stages: Path, mini_model: Parcae) -> None:
    host = host_of(stages, mini_model)
    states: list[np.ndarray] = []
    host.run([5], 8, on_state=lambda loop, state: states.append(state.copy()))
    pairs = zip(states, states[1:], strict=False)
    changes = [float(np.linalg.norm(b - a) / np.linalg.norm(b)) for a, b in pairs]
    threshold = changes[2] * 1.01
    expected = next(place for place, change in enumerate(changes) if change < threshold) + 2
    host.reset()
    host.run([5], 8, exit_threshold=threshold)
    assert host.loops_used == expected < 8


def test_early_exit_is_refused_where_the_graph_runs_the_loop(
    quantized: Any, mini_model: Parcae, tmp_path: Path
) -> None:
    write_scan(quantized(mini_model, "fp32"), tmp_path)
    with pytest.raises(UsageError, match="early exit"):
        host_of(tmp_path, mini_model, form="scan").run([1], 2, exit_threshold=0.1)


def test_generation_reports_the_loops_of_each_token(stages: Path, mini_model: Parcae) -> None:
    steps = list(generate(host_of(stages, mini_model), [1, 2, 3], Sampling(), 8, 6, exit_threshold=0.9))
    assert steps[0].loops == 8  # the prompt takes all
    assert all(1 <= step.loops <= 8 for step in steps)
    assert any(step.loops < 8 for step in steps[1:])
    with pytest.raises(UsageError, match="exit-threshold"):
        list(generate(host_of(stages, mini_model), [1], Sampling(), 2, 2, exit_threshold=1.5))
