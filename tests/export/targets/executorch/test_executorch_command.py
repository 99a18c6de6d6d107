"""`parcae-export --target executorch`: what it refuses, the gate on delegation, what is reported, shared caches."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from export.report.card import CARD
from export.report.page.page import REPORT
from export.run.generation import generate
from export.targets.executorch import writer as target
from export.targets.executorch.file import PteFile
from export.targets.executorch.host import ExecutorchHost, open_host
from export.targets.executorch.lowering import check_delegation
from export.targets.executorch.readback import cache_bytes
from export.targets.executorch.writer import MODEL, write_dynamic, write_static
from parcae_mobile import Parcae, load_model
from parcae_mobile.early_exit import decode_step
from parcae_mobile.errors import UsageError
from parcae_mobile.kv_cache import KVCache
from parcae_mobile.loops import policy_slots
from parcae_mobile.manifest import Delegation, Manifest, read_manifest
from parcae_mobile.sampling import Sampling
from quantize import QuantizedModel

Cli = Callable[..., Any]
CONTEXT, LOOPS = 112, 8


@pytest.fixture(scope="module")
def shared(
    cli: Cli, mini: Path, text: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Manifest, dict[str, Any]]:
    """A verified fp32 artifact whose loops after the first share a cache slot, and what `--json` said of it."""
    out = tmp_path_factory.mktemp("shared")
    ran = cli(
        *("--target", "executorch", "--model", mini, "--quant", "fp32", "--max-loops", LOOPS, "--kv", "first1+shared"),
        *("--context", CONTEXT, "--text", text, "--threads", 1, "--out", out, "--json"),
    )
    assert ran.code == 0, ran.err
    (artifact,) = ran.json["artifacts"]
    return Path(artifact["artifact"]), read_manifest(Path(artifact["artifact"])), artifact


def test_fp16_is_refused_because_it_would_save_nothing(cli: Cli, mini: Path, tmp_path: Path) -> None:
    ran = cli("--target", "executorch", "--model", mini, "--quant", "fp16", "--out", tmp_path)
    assert ran.code == 2 and not list(tmp_path.iterdir())
    assert "executorch stores float matrices as fp32" in ran.line and "use --quant int8" in ran.line


def test_too_little_delegation_fails_the_gate_and_publishes_nothing(
    cli: Cli, mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = {"operators": 9, "operators_delegated": 9, "macs": 100, "macs_delegated": 94, "attention": 3}

    def lower(programs: object, constants: object) -> None:
        check_delegation({"forward": Delegation(delegates=1, left={"aten.mm.default": 1}, **half)})

    monkeypatch.setattr(target, "trace_unrolled", lambda *rest: {})
    monkeypatch.setattr(target, "lower", lower)
    ran = cli(
        "--target", "executorch", "--model", mini, "--quant", "fp32", "--loops", 1, "--no-verify", "--out", tmp_path
    )
    assert ran.code == 4 and not list(tmp_path.iterdir())
    assert "XNNPACK takes 94.0% of the multiply-accumulates of forward, 95% are needed" in ran.line


@pytest.mark.acceptance
def test_another_process_and_folder_give_the_same_bytes(
    shared: tuple[Path, Manifest, dict[str, Any]], mini: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "export.cli.main", "--target", "executorch", "--model", mini, "--quant", "fp32"]
    command += ["--max-loops", LOOPS, "--kv", "first1+shared", "--context", CONTEXT, "--threads", 1, "--no-verify"]
    environment = {"PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": ":".join(sys.path)}
    ran = subprocess.run(
        [*map(str, command), "--out", str(tmp_path / "there"), "--json"],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
    )
    files = json.loads(ran.stdout)["artifacts"][0]["files"]
    assert files.keys() == shared[2]["files"].keys()
    # The pages say what was judged, so an export that judges nothing has others (test_cli.py compares judged ones).
    assert {name for name, entry in files.items() if entry != shared[2]["files"][name]} == {REPORT, CARD}
    written = (shared[0] / MODEL).read_bytes()
    assert str(shared[0].parent).encode() not in written and b"site-packages" not in written


def test_manifest_and_json_say_what_xnnpack_took_and_json_what_memory_it_costs(
    shared: tuple[Path, Manifest, dict[str, Any]], cli: Cli
) -> None:
    folder, manifest, said = shared
    assert sorted(manifest.delegation) == ["coda", "prelude", "recur"] == sorted(said["delegation"])
    for name, part in manifest.delegation.items():
        assert part.macs_share == said["delegation"][name]["macs_share"] == 1.0
        assert part.operators_share > 0.8 and part.attention == manifest.geometry.layers["core_block"]
    assert [(row["loops"], row["weight_cache"]) for row in said["memory"]] == [(1, False), (LOOPS, False)]
    assert all(0 < row["caches"] < row["peak"] for row in said["memory"])
    printed = " ".join(cli("inspect", folder).out.split())
    assert "XNNPACK takes 100.0% of the multiply-accumulates" in printed


def test_every_loop_count_is_the_eager_models_up_to_fp32(shared: tuple[Path, Manifest, dict[str, Any]]) -> None:
    _, manifest, said = shared
    judged = said["lowering"]["by_loops"]
    assert said["lowering"]["passed"] and set(judged) == {"1", "2", "4", "8"} and manifest.compute == "fp32"
    for count, figures in judged.items():
        assert figures["max_abs"] < 1e-4 and len(figures["state_errors"]) == int(count)
        assert max(figures["state_errors"]) < 1e-4
    assert judged["4"]["greedy_equal"] == 64


def test_a_chunk_longer_than_one_logits_call_keeps_its_order_and_its_state(
    shared: tuple[Path, Manifest, dict[str, Any]], mini: Path
) -> None:
    folder, manifest, _ = shared
    host, model = open_host(folder, manifest, 1), load_model(mini)
    ids = torch.randint(0, model.config.vocab_size, (100,), generator=torch.Generator().manual_seed(4))
    width = model.config.recurrent_embedding_dimension
    state = torch.randn(1, len(ids), width, generator=torch.Generator().manual_seed(5))
    seen: dict[int, np.ndarray] = {}
    logits = host.run(
        ids.tolist(), 3, initial_state=state.numpy(), on_state=lambda loop, value: seen.update({loop: value})
    )
    with torch.no_grad():
        expected = model(ids[None], 3, initial_state=state)[0]
        states = list(model.states(ids[None], 3, initial_state=state))
    assert np.abs(logits - expected.numpy()).max() < 1e-4
    assert sorted(seen) == [0, 1, 2] and np.abs(seen[2] - states[2].numpy()).max() < 1e-4

    def first_nine(places: list[int] | None) -> np.ndarray:
        host.reset()
        return host.run(ids.tolist()[:9], 1, positions=places)

    assert np.array_equal(first_nine([7, 2])[1], first_nine(None)[2])


def test_greedy_tokens_and_loops_of_early_exit_are_the_eager_models(
    shared: tuple[Path, Manifest, dict[str, Any]], mini: Path, mini_ids: torch.Tensor
) -> None:
    folder, manifest, _ = shared
    host, model, prompt = open_host(folder, manifest, 1), load_model(mini), mini_ids[0, :12].tolist()
    for threshold in (0.05, 0.3):
        cache = KVCache(model.config, LOOPS, context=CONTEXT, policy="first1+shared")
        host.reset()
        steps = list(generate(host, prompt, Sampling(), LOOPS, 32, exit_threshold=threshold))
        with torch.no_grad():
            logits = model(torch.tensor([prompt]), LOOPS, cache=cache, positions=torch.tensor([len(prompt) - 1]))
        expected = [(int(logits[0, -1, : model.config.vocab_size].argmax()), LOOPS)]
        for _ in steps[1:]:
            logits, used = decode_step(model, torch.tensor([[expected[-1][0]]]), LOOPS, threshold, cache)
            expected.append((int(logits[0, -1, : model.config.vocab_size].argmax()), int(used)))
        assert [(step.token, step.loops) for step in steps] == expected
        assert min(step.loops for step in steps) < LOOPS


@pytest.mark.acceptance
@pytest.mark.parametrize("write", [write_dynamic, write_static])
def test_a_shared_cache_is_as_large_at_sixteen_loops_as_at_one(
    write: Callable[..., object], mini_model: Parcae, quantized: Callable[..., QuantizedModel], tmp_path: Path
) -> None:
    sizes = []
    for loops in (1, 16):
        write(quantized(mini_model), tmp_path, loops, 32, slots=policy_slots("shared", loops))
        sizes.append(cache_bytes(PteFile((tmp_path / MODEL).read_bytes())))
    assert sizes == [3 * 2 * 4 * 32 * mini_model.config.n_embd] * 2


def test_the_hosts_cache_bytes_are_those_of_the_files_tensors(
    shared: tuple[Path, Manifest, dict[str, Any]],
) -> None:
    folder, manifest, said = shared
    host = open_host(folder, manifest, 1)
    assert isinstance(host, ExecutorchHost)
    stored = cache_bytes(PteFile((folder / MODEL).read_bytes()))
    width = manifest.geometry.heads["core_block"] * manifest.geometry.head_size["core_block"]
    assert host.cache_bytes == stored == said["memory"][0]["caches"] == (1 + 2 + 1) * 2 * 4 * CONTEXT * width


def test_early_exit_needs_slots_that_loops_share(
    mini_model: Parcae, shared: tuple[Path, Manifest, dict[str, Any]]
) -> None:
    folder, manifest, _ = shared
    full = manifest.model_copy(update={"kv": manifest.kv.model_copy(update={"policy": "full", "slots": LOOPS})})
    with pytest.raises(UsageError, match="share a cache slot; export with --kv shared"):
        open_host(folder, full, 1).run([1], 2, exit_threshold=0.1)
