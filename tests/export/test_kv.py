"""KV policies and int8 caches in artifacts, early exit, and sessions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from export.early_exit import EagerReader, HostReader, measure_exit
from export.generation import Sampling, generate
from export.hosts.base import CacheGeometry
from export.hosts.onnx_host import OnnxHost
from export.kv_choice import choose_policy
from export.kv_scales import measure_scales
from export.kv_study import read_in_pieces, study_cache
from export.targets.onnx import write_scan, write_stages
from parcae_mobile import KVCache, Parcae, load_model
from parcae_mobile.config import KV_POLICIES
from parcae_mobile.early_exit import decode_step
from parcae_mobile.errors import UsageError
from parcae_mobile.kv_cache import CacheSpec
from parcae_mobile.manifest import read_manifest
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
        windows = text_ids(folder, "heldout").windows(4, 95)
        choices[folder.name] = choose_policy(model, windows, 8, 1024)
    settled, slow = choices[EMBEDDED_MODEL.name], choices["slow-loop"]
    assert settled.policy == "shared" and settled.measured["shared"].distance.kl_mean < 1e-3
    assert slow.measured[slow.policy].bytes_per_token > settled.measured["shared"].bytes_per_token
    assert slow.measured["shared"].distance.kl_mean > 1e-3
    assert slow.measured[slow.policy].distance.kl_mean < 1e-3


def test_what_was_measured_is_in_the_manifest_and_the_report(cli: Any, mini: Path, text: Path, tmp_path: Path) -> None:
    plain = ("--model", mini, "--text", text, "--calibration", text, "--quant", "fp32", "--no-verify", "--context", 80)
    ran = cli(*plain, "--kv-dtype", "int8", "--out", tmp_path)
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


@pytest.mark.parametrize("policy", KV_POLICIES)
def test_early_exit_leaves_when_the_eager_model_does(
    stages: Path, mini_model: Parcae, mini_ids: torch.Tensor, policy: str
) -> None:
    ids = mini_ids.flatten()[:20]
    host, cache = host_of(stages, mini_model, policy), KVCache(mini_model.config, 8, policy=policy)
    host.run(ids[:5].tolist(), 8)
    mini_model(ids[None, :5], 8, cache=cache)
    threshold, seen = 0.3, set()
    for token in ids[5:]:
        expected, used = decode_step(mini_model, token.view(1, 1), 8, threshold, cache)
        logits = host.run([int(token)], 8, exit_threshold=threshold)
        assert host.loops_used == int(used)
        assert np.abs(logits - expected[0].numpy()).max() < 1e-4
        seen.add(int(used))
    assert min(seen) < 8


def test_the_exit_table_compares_with_fixed_counts(stages: Path, mini_model: Parcae, mini_ids: torch.Tensor) -> None:
    windows = torch.cat([mini_ids, mini_ids.flip(1)])
    eager = measure_exit(EagerReader(mini_model, "shared"), windows, 4, (0.0, 0.3, 0.6))
    assert [row.average_loops for row in eager.fixed] == [1, 2, 3, 4]
    assert eager.positions == 2 * 8 and eager.fixed[-1].distance.kl_mean == 0
    last = eager.rows[-1]
    assert (last.threshold, last.average_loops, last.distance.kl_mean, last.fixed_kl) == (0.0, 4.0, 0.0, 0.0)
    fewest = eager.rows[0]
    low, high = (eager.fixed[int(fewest.average_loops) - 1 + more].distance.kl_mean for more in (0, 1))
    assert 2 <= fewest.average_loops < 4 and min(low, high) <= fewest.fixed_kl <= max(low, high)
    chosen = eager.recommended
    assert chosen is not None and chosen.distance.kl_mean <= 2e-3
    assert eager.recommended_fixed.distance.kl_mean <= 2e-3
    hosted = measure_exit(HostReader(host_of(stages, mini_model, "shared")), windows, 4, (0.3, 0.6))
    for row in hosted.rows:
        twin = next(other for other in eager.rows if other.threshold == row.threshold)
        assert row.average_loops == twin.average_loops
        assert row.distance.kl_mean == pytest.approx(twin.distance.kl_mean, abs=1e-6)


def test_the_commands_measure_models_and_artifacts(
    cli: Any, mini: Path, text: Path, exported: tuple[Path, Any]
) -> None:
    small = ("--text", text, "--windows", 2, "--length", 40)
    for subject in (mini, exported[0]):
        ran = cli("early-exit", subject, *small, "--loops", 4, "--thresholds", "0.6,0.3", "--json")
        assert ran.code == 0, ran.err
        assert len(ran.json["fixed"]) == 4 and len(ran.json["early_exit"]) == 2 and ran.json["positions"] == 16
    ran = cli("early-exit", mini, *small, "--loops", 3, "--thresholds", "0.5", "--kv", "full")
    assert ran.code == 0 and "least fixed loop count" in ran.out and "cache full" in ran.out
    ran = cli("kv", mini, *small, "--loops", 3, "--pieces", "0,1", "--json")
    assert ran.code == 0 and {row["policy"] for row in ran.json["rows"]} == set(KV_POLICIES)
    ran = cli("kv", mini, *small, "--loops", 2, "--pieces", "8", "--int8")
    assert ran.code == 0 and "by 8" in ran.out and "int8" in ran.out


@pytest.mark.parametrize(
    ("code", "arguments", "words"),
    [
        (2, ["early-exit", "--thresholds", "1.5"], "--exit-threshold 1.5"),
        (2, ["early-exit", "--thresholds", "a,b"], "'a,b'"),
        (2, ["early-exit", "--kv", "ring"], "--kv ring"),
        (2, ["early-exit", "--length", "32"], "--length 32"),
        (2, ["early-exit", "--loops", "0"], "loops = 0"),
        (3, ["early-exit", "--text", "nowhere.txt"], "nowhere.txt"),
        (2, ["kv", "--pieces", "0,-1"], "--pieces"),
        (2, ["kv", "--windows", "0"], "--windows 0"),
        (3, ["kv", "nowhere"], "nowhere"),
    ],
)
def test_a_measurement_that_cannot_be(cli: Any, mini: Path, code: int, arguments: list[str], words: str) -> None:
    command, *options = arguments
    subject = [] if "nowhere" in options else [mini]
    ran = cli(command, *subject, *options)
    assert ran.code == code and words in ran.line and ran.out == ""


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
