"""KV policies and int8 caches in artifacts, early exit, and sessions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from export.kv.choice import choose_policy, decode
from export.kv.scales import measure_scales
from export.kv.study import read_in_pieces, study_cache
from export.targets.host import CacheGeometry
from export.targets.onnx.runtime.host import OnnxHost
from export.targets.onnx.shapes import head_sizes
from export.targets.onnx.static import write_static
from export.targets.onnx.writer import write_scan, write_stages
from parcae_mobile import KVCache, Parcae, load_model
from parcae_mobile.kv_cache import CacheSpec
from parcae_mobile.loops import KV_POLICIES
from parcae_mobile.manifest import read_manifest
from parcae_mobile.stage_names import LAYER_GROUPS
from parcae_mobile.text import EMBEDDED_MODEL, text_ids

LOOPS = 4


@pytest.fixture(scope="module")
def stages(quantized: Any, mini_model: Parcae, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stages")
    write_stages(quantized(mini_model, "fp32"), folder)
    return folder


def host_of(folder: Path, model: Parcae, policy: str = "full", form: str = "stages", dtype: str = "fp32") -> OnnxHost:
    return OnnxHost(folder, form, CacheGeometry.of(model.config, 16, policy=policy), 1, dtype)


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
    for policy in ("full", "shared", "first1+shared"):
        for loops in (1, 2, 16):
            host = host_of(stages, mini_model, policy)
            host.run([1, 2, 3], loops)
            host.run([4], loops)
            sizes[policy, loops] = host.cache_bytes
    assert sizes["shared", 1] == sizes["shared", 2] == sizes["shared", 16] == sizes["full", 1]
    assert sizes["first1+shared", 2] == sizes["first1+shared", 16] == sizes["full", 2]
    assert sizes["full", 16] == 18 / 3 * sizes["full", 1]  # prelude, coda and one recurrent layer


def test_policies_decode_side_by_side_as_each_does_alone(mini_model: Parcae, mini_ids: torch.Tensor) -> None:
    windows = mini_ids.flatten()[:40].view(2, 20)
    together = decode(mini_model, windows, LOOPS, list(KV_POLICIES))
    for policy, logits in together.items():
        cache = KVCache(mini_model.config, LOOPS, batch=2, context=20, policy=policy)
        mini_model(windows[:, :10], LOOPS, cache=cache)
        alone = [mini_model(windows[:, place : place + 1], LOOPS, cache=cache) for place in range(10, 20)]
        assert torch.allclose(logits, torch.cat(alone, dim=1), atol=1e-5)
    assert not torch.allclose(together["full"], together["shared"], atol=1e-4)


def in_pieces(host: OnnxHost, ids: torch.Tensor, piece: int) -> np.ndarray:
    host.reset()
    return np.concatenate([host.run(part.tolist(), LOOPS) for part in ids.split(piece)])


def test_decoding_with_all_slots_equals_the_forward_over_the_whole_text(
    stages: Path, mini_model: Parcae, mini_ids: torch.Tensor
) -> None:
    ids = mini_ids.flatten()[:24]
    whole = mini_model(ids[None], LOOPS)[0].numpy()
    for piece in (24, 7, 1):
        assert np.abs(in_pieces(host_of(stages, mini_model), ids, piece) - whole).max() < 1e-4


@pytest.mark.parametrize("policy", ["shared", "first1+shared", "first2+shared"])
def test_pieces_show_through_a_shared_cache_as_in_eager(
    stages: Path, mini_model: Parcae, mini_ids: torch.Tensor, policy: str
) -> None:
    ids = mini_ids.flatten()[:24]
    whole = mini_model(ids[None], LOOPS)[0].numpy()
    host = host_of(stages, mini_model, policy)
    assert np.abs(in_pieces(host, ids, 24) - whole).max() < 1e-4
    for piece in (7, 1):
        expected = read_in_pieces(mini_model, ids[None], LOOPS, CacheSpec(policy), piece)[0].numpy()
        logits = in_pieces(host, ids, piece)
        assert np.abs(logits - expected).max() < 1e-4
        assert np.abs(logits[:piece] - whole[:piece]).max() < 1e-4
        assert np.abs(logits - whole).max() > 1e-3


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


def test_a_chunk_and_its_tokens_one_by_one_leave_the_same_int8_cache(
    stages: Path, quantized: Any, small: Callable[..., Parcae], mini_ids: torch.Tensor, tmp_path: Path
) -> None:
    """They go different ways through the graph; a value on a rounding edge may fall to the other side."""
    heads = {"num_attention_heads": 4, "recurrent_num_attention_heads": 4, "num_key_value_heads": 2}  # padded too
    model, ids = small(**heads, block_size=64), mini_ids % 16
    scales = measure_scales(model, ids, LOOPS)
    write_stages(quantized(model, "fp32"), tmp_path, "fp32", scales)
    geometry = CacheGeometry.of(model.config, LOOPS, head_sizes=head_sizes(model.config))
    host, caches, logits = OnnxHost(tmp_path, "stages", geometry, 1, "int8"), [], []
    for piece in (40, 1):
        logits.append(in_pieces(host, ids.flatten(), piece))
        caches.append({key: cache.astype(int) for key, cache in host._caches.items()})
    for key, cache in caches[0].items():
        apart = np.abs(cache - caches[1][key])
        assert np.abs(cache).max() > 64 and apart.max() <= 1 and np.count_nonzero(apart) < 1e-3 * apart.size
    assert np.median(np.abs(logits[0] - logits[1])) < 1e-4
    layers = sum(model.config.layer_count(stage) for stage in LAYER_GROUPS)
    assert (ways_by_length(tmp_path), ways_by_length(stages)) == (layers, 0)  # fp32 caches have one way for all
    (tmp_path / "static").mkdir()
    write_static(quantized(model, "fp32"), tmp_path / "static", {2: "model.onnx"}, kv_scales=scales)
    assert ways_by_length(tmp_path / "static") == 0  # a past may end with the text: nothing can be written into it


def ways_by_length(folder: Path) -> int:
    """Layers whose chunks of several tokens take another way than one token, in graphs that onnx finds valid."""
    for path in folder.glob("*.onnx"):
        onnx.checker.check_model(str(path))
    graphs = [onnx.load(path, load_external_data=False).graph for path in folder.glob("*.onnx")]
    return sum(node.op_type == "If" for graph in graphs for node in graph.node)


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


def test_a_settled_loop_shares_its_slots_and_a_slow_one_does_not(data: Path) -> None:
    choices = {}
    for folder in (EMBEDDED_MODEL, data / "slow-loop"):
        model = load_model(folder)
        windows = text_ids(folder, "heldout").windows(3, 79)
        choices[folder.name] = choose_policy(model, windows, 8, 1024)
    settled, slow = choices[EMBEDDED_MODEL.name], choices["slow-loop"]
    assert settled.policy == "shared" and settled.measured["shared"].distance.kl_mean < 1e-3
    assert slow.measured[slow.policy].bytes_per_token > settled.measured["shared"].bytes_per_token
    assert slow.measured["shared"].distance.kl_mean > 1e-3
    assert slow.measured[slow.policy].distance.kl_mean < 1e-3


def test_what_was_measured_is_in_the_manifest_and_the_report(cli: Any, mini: Path, text: Path, tmp_path: Path) -> None:
    plain = ("--model", mini, "--text", text, "--calibration", text, "--quant", "fp32", "--no-verify", "--context", 80)
    ran = cli(*plain, "--kv-dtype", "int8", "--details", "--out", tmp_path)
    assert ran.code == 0, ran.err
    kv = read_manifest(tmp_path / "mini-onnx-dynamic-fp32").kv
    assert set(kv.measured) == set(KV_POLICIES) and kv.measured_at_loops == 8
    for policy, slots in (("full", 8), ("shared", 1), ("first1+shared", 2), ("first2+shared", 3)):
        measured = kv.measured[policy]
        assert measured["bytes_per_token"] == 2 * (slots + 2) * 64  # int8
        assert measured["bytes_at_context"] == 80 * measured["bytes_per_token"]
        assert 0 <= measured["top1"] <= 1 and measured["kl_mean"] >= 0 and policy in ran.out
    assert kv.bytes_per_token["8"] == kv.measured[kv.policy]["bytes_per_token"]
    assert "KV policies at T=8" in ran.out and f"{kv.policy} (chosen)" in ran.out


def test_the_study_measures_every_policy_type_and_piece(mini_model: Parcae, mini_ids: torch.Tensor) -> None:
    windows = torch.cat([mini_ids, mini_ids.flip(1)])
    scales = measure_scales(mini_model, windows, LOOPS)
    rows = {(row.policy, row.dtype, row.piece): row for row in study_cache(mini_model, windows, LOOPS, (0, 8), scales)}
    assert len(rows) == 2 * 4 * 2
    for policy in KV_POLICIES:
        assert rows[policy, "fp32", 0].distance.max_abs < 1e-4  # the whole text at once sees no policy
        assert rows[policy, "int8", 0].distance.kl_mean > rows[policy, "fp32", 0].distance.kl_mean
        assert rows[policy, "fp32", 8].bytes_per_token == 4 * rows[policy, "int8", 8].bytes_per_token
    kl = [rows[policy, "fp32", 8].distance.kl_mean for policy in ("full", "first2+shared", "first1+shared", "shared")]
    assert kl[0] < 1e-9 < min(kl[1:])
