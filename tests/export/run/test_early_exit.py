"""Early exit through artifacts, the table that compares it with fixed loop counts, and the commands that measure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from export.run.early_exit import MOST_KL, EagerReader, HostReader, measure_exit
from export.run.generation import generate
from export.targets.host import CacheGeometry
from export.targets.onnx.runtime.host import OnnxHost
from export.targets.onnx.writer import write_scan, write_stages
from parcae_mobile import KVCache, Parcae, load_model
from parcae_mobile.early_exit import decode_step
from parcae_mobile.errors import UsageError
from parcae_mobile.loops import KV_POLICIES
from parcae_mobile.parity import compare
from parcae_mobile.sampling import Sampling
from parcae_mobile.text import EMBEDDED_MODEL, text_ids


@pytest.fixture(scope="module")
def stages(quantized: Any, mini_model: Parcae, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stages")
    write_stages(quantized(mini_model, "fp32"), folder)
    return folder


def host_of(folder: Path, model: Parcae, policy: str = "full", form: str = "stages") -> OnnxHost:
    return OnnxHost(folder, form, CacheGeometry.of(model.config, 16, policy=policy), 1)


@pytest.mark.parametrize(("policy", "threshold"), [("shared", 0.08), ("shared", 0.05), ("full", 0.05)])
def test_the_embedded_model_needs_at_most_three_fifths_of_its_loops(policy: str, threshold: float) -> None:
    reader = EagerReader(load_model(EMBEDDED_MODEL), policy)
    windows = text_ids(EMBEDDED_MODEL, "heldout").windows(4, 79)
    every, left = (reader.read(windows, 8, 8, value) for value in (0.0, threshold))
    assert float(every.loops.double().mean()) == 8
    assert float(left.loops.double().mean()) <= 0.6 * 8
    assert compare(every.logits, left.logits).kl_mean <= MOST_KL


def test_a_loop_that_still_moves_is_not_left(data: Path) -> None:
    reader = EagerReader(load_model(data / "slow-loop"))
    windows = text_ids(data / "slow-loop", "heldout").windows(2, 59)
    assert reader.read(windows, 8, 8, 0.05).loops.unique().tolist() == [8]


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
