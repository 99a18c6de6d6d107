"""The bench on the mini model: what it measures is there, adds up, and does what it says; no figure is judged here."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from export.bench import runners
from export.bench.baselines.naive_onnx import UnrolledStep, empty_past
from export.bench.baselines.peer_llama import llama_config
from export.bench.costs.kernels import chain
from export.bench.costs.traffic import cache_bytes, cache_touched, read_bandwidth, total_of, touched_onnx, weights_of
from export.bench.runners import ARTIFACT, LLAMA_CPP, NAIVE_ONNX, LlamaCppRunner, opener
from export.bench.subjects import make_baselines
from export.source import open_source
from export.targets.host import CacheGeometry
from parcae_mobile import Parcae, load_model
from parcae_mobile.config import released_config
from parcae_mobile.parity import greedy
from parcae_mobile.text import EMBEDDED_MODEL, text_ids

Cli = Callable[..., Any]


@pytest.fixture(scope="module")
def measured(cli: Cli, exported: tuple[Path, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A table of the mini model's artifact, as `--json` prints it, and the folder that keeps it."""
    out = tmp_path_factory.mktemp("bench")
    few = ("--rounds", 1, "--prompts", 1, "--context", 16, "--context", 24, "--loops", 1, "--loops", 4, "--threads", 1)
    ran = cli("bench", exported[0], "--out", out, *few, "--json")
    assert ran.code == 0, ran.err
    return out, ran.json


def test_every_loop_count_and_context_has_a_row_with_all_figures(measured: Any) -> None:
    out, said = measured
    assert {(row["variant"]["loops"], row["context"]) for row in said["rows"]} == {(1, 16), (1, 24), (4, 16), (4, 24)}
    for row in said["rows"]:
        (speed,), memory = row["speeds"], row["memory"]
        assert speed["run"] == 1 and speed["steps"] == 3 and speed["decode_ms"] > 0 and speed["first_token_ms"] > 0
        assert 0 < memory["libraries"] < memory["loaded"] <= memory["peak"] and memory["load_seconds"] > 0
        assert memory["end"] <= memory["peak"]
        assert row["cache_bytes"] == 2 * (row["variant"]["loops"] + 2) * 64 * 4 * row["context"]
        assert row["touched_bytes"] > row["cache_bytes"]
    four, one = ([row for row in said["rows"] if row["variant"]["loops"] == n] for n in (4, 1))
    assert all(a["touched_bytes"] > b["touched_bytes"] for a, b in zip(four, one, strict=True))
    assert json.loads((out / "bench.json").read_text())["runs"]["1"]["bandwidth"] > 1e8


def test_a_kept_table_is_shown_drawn_and_added_to(measured: Any, cli: Cli, exported: Any, tmp_path: Path) -> None:
    kept = tmp_path / "bench.json"
    kept.write_text((measured[0] / "bench.json").read_text())
    ran = cli("bench", "--show", "--table", kept, "--plot", tmp_path / "b.svg", "--markdown", tmp_path / "b.md")
    assert ran.code == 0 and "context 24" in ran.out and "decode ms" in ran.out
    assert "## Context 16" in (tmp_path / "b.md").read_text() and (tmp_path / "b.svg").exists()
    more = ("--context", 8, "--loops", 2, "--measure", "size", "--table", kept, "--json")
    ran = cli("bench", exported[0], *more)
    assert len(ran.json["rows"]) == 5
    (added,) = (row for row in ran.json["rows"] if row["context"] == 8)
    assert added["speeds"] == [] and added["memory"] is None and added["weight_bytes"] > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--measure", "taste"), "--measure taste: choose among size, memory, speed"),
        (("--loops", 0), "--loops 0: give 1 or more"),
        (("--rounds", 0), "--rounds 0: give 1 or more"),
        (("--threads", 1, "--threads", 0), "--threads 0: give 1 or more"),
        (("--plot", "a.pdf"), "--plot a.pdf"),
        (("--show", "--table", "none.json"), "there is no table at none.json"),
        (("--loop-form", "round"), "--loop-form round: choose among"),
        (("--kv", "none"), "--kv none: choose among"),
        (("--kv-dtype", "int3"), "--kv-dtype int3"),
        (("--target", "paper"), "unknown target 'paper'"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_work(
    cli: Cli, tmp_path: Path, arguments: tuple[object, ...], said: str
) -> None:
    ran = cli("bench", "--out", tmp_path / "out", *arguments)
    assert ran.code == 2 and said in ran.line
    assert not (tmp_path / "out").exists()


def test_a_context_that_no_artifact_takes_is_an_error(cli: Cli, exported: Any, tmp_path: Path) -> None:
    ran = cli("bench", exported[0], "--context", 4096, "--out", tmp_path)
    assert ran.code == 2 and "no artifact takes" in ran.line


def test_a_baseline_that_is_not_installed_is_named_before_work(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(runners.MODULES, LLAMA_CPP, ("gguf", "no_such_module"))
    ran = cli("bench", "--baseline", "llama-cpp", "--out", tmp_path / "out")
    assert ran.code == 5 and "llama-cpp needs no_such_module: pip install 'parcae-mobile[llama-cpp]'" in ran.line
    assert not (tmp_path / "out").exists()


def test_thread_counts_are_rows_of_one_run(cli: Cli, exported: Any, tmp_path: Path) -> None:
    few = ("--rounds", 1, "--prompts", 1, "--context", 16, "--loops", 2, "--measure", "speed", "--out", tmp_path)
    ran = cli("bench", exported[0], *few, "--threads", 1, "--threads", 2, "--json")
    assert ran.code == 0, ran.err
    rows = ran.json["rows"]
    assert [(row["threads"], [speed["run"] for speed in row["speeds"]]) for row in rows] == [(1, [1]), (2, [1])]


def test_a_baseline_of_another_model_is_refused(cli: Cli, exported: Any, tmp_path: Path) -> None:
    ran = cli("bench", exported[0], "--baseline", "naive-onnx", "--context", 8, "--out", tmp_path)
    assert ran.code == 2 and "here parcae-tiny, but an artifact is of mini" in ran.line


SIZES = ("--quant", "fp32", "--measure", "size", "--context", 8, "--json")


def test_what_another_model_left_behind_is_not_measured(
    cli: Cli, mini: Path, save_small: Callable[..., Path], tmp_path: Path
) -> None:
    kinds = ("--loop-form", "scan", "--loops", 2, "--out", tmp_path / "bench", *SIZES)
    assert cli("bench", "--model", mini, *kinds).code == 0
    other = save_small(tmp_path / "other" / "mini", n_embd=64, recurrent_embedding_dimension=64)
    ran = cli("bench", "--model", other, *kinds)
    assert ran.code == 0, ran.err
    manifest = json.loads(next((tmp_path / "bench").rglob("manifest.json")).read_text(encoding="utf-8"))
    assert manifest["weights_sha256"] == open_source(str(other)).weights_sha256, "not the first model's"


def test_loop_counts_that_a_bench_lacks_are_added_to_those_it_has(cli: Cli, mini: Path, tmp_path: Path) -> None:
    static = ("bench", "--model", mini, "--loop-form", "unrolled", "--out", tmp_path, *SIZES)
    assert cli(*static, "--loops", 2).code == 0
    (first,) = tmp_path.rglob("manifest.json")
    before = first.stat().st_mtime_ns
    ran = cli(*static, "--loops", 2, "--loops", 4)
    assert ran.code == 0, ran.err
    assert sorted(row["variant"]["loops"] for row in ran.json["rows"]) == [2, 4]
    assert first.stat().st_mtime_ns == before and len(list(tmp_path.rglob("manifest.json"))) == 2
    runner: Any = opener(ARTIFACT, first.parent, 2, 1)()
    runner.prefill(range(1, 9))
    for _ in range(3):
        logits = runner.step(5)
        runner.undo()
        assert runner.host.length == 8, "the context of a timed step does not drift"
    np.testing.assert_array_equal(runner.step(5), logits)


def test_memory_is_measured_without_torch(exported: tuple[Path, dict[str, Any]]) -> None:
    program = (
        "import sys; from pathlib import Path; from export.bench.memory import measure;"
        f"measure('artifact', Path({str(exported[0])!r}), 2, 8, 2, 1);"
        "print([name for name in ('torch', 'pydantic', 'onnx') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_step_undone_is_repeated_exactly(exported: tuple[Path, dict[str, Any]]) -> None:
    runner = opener(ARTIFACT, exported[0], 4, 1)()
    first = runner.prefill(range(1, 17))
    again = runner.step(5)
    runner.undo()
    assert (runner.step(5) == again).all() and not (first == again).all()


def test_a_naive_export_unrolls_the_eager_model(mini_model: Parcae, mini_ids: torch.Tensor) -> None:
    step, past = UnrolledStep(mini_model, 3), empty_past(mini_model, 3)
    with torch.no_grad():
        _, past = step(mini_ids[:, :-3], past)
        for place in (-3, -2, -1):
            logits, past = step(mini_ids[:, [place]], past)
        expected = mini_model(mini_ids, 3)[:, -1]
    assert past[0].shape == (1, 2, mini_ids.shape[1], 32) and len(past) == 2 * 5
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.acceptance
def test_a_naive_files_greedy_tokens_are_the_trained_models(tmp_path: Path) -> None:
    model = load_model(EMBEDDED_MODEL)
    (subject,) = make_baselines(open_source(None), [NAIVE_ONNX], 4, [64], tmp_path)
    runner = opener(NAIVE_ONNX, subject.folder, 4, 1)()
    prompt = text_ids(EMBEDDED_MODEL, "heldout").ids[:20].tolist()
    logits, made = runner.prefill(prompt), []
    for _ in range(64):
        made.append(int(logits[: model.config.vocab_size].argmax()))
        logits = runner.step(made[-1])
    assert made == greedy(model, prompt, 64, 4)
    again = runner.step(7)
    runner.undo()
    np.testing.assert_allclose(runner.step(7), again, rtol=0, atol=1e-6)
    weights = sum(parameter.numel() for parameter in model.parameters()) * 4
    assert weights <= weights_of(subject.folder) < 1.1 * weights, "tied tables and loops are stored once"


@pytest.mark.acceptance
def test_genais_builder_makes_the_peer(tmp_path: Path) -> None:
    source = open_source(None)
    (subject,) = make_baselines(source, ["genai-llama"], 2, [64], tmp_path)
    runner = opener("genai-llama", subject.folder, 2, 1)()
    logits = runner.prefill(range(1, 20))
    assert logits.shape == (source.model.config.padded_vocab_size,)
    again = runner.step(5)
    runner.undo()
    np.testing.assert_array_equal(runner.step(5), again)
    graph = onnx.load(subject.folder / "model.onnx", load_external_data=False).graph
    layers = sum(node.op_type == "GroupQueryAttention" for node in graph.node)
    assert layers == source.model.config.layers(2)
    blocks = {
        a.i for node in graph.node if node.op_type == "MatMulNBits" for a in node.attribute if a.name == "block_size"
    }
    assert blocks == {32}


def test_the_peer_has_parcaes_depth_width_and_layer_size() -> None:
    config = released_config("parcae-140m")
    peer = llama_config(config, 8, 2048)
    assert (peer["num_hidden_layers"], peer["hidden_size"], peer["intermediate_size"]) == (20, 768, 2048)
    assert (peer["num_attention_heads"], peer["vocab_size"], peer["tie_word_embeddings"]) == (6, 32768, True)
    assert 3 * peer["intermediate_size"] == 2 * config.intermediate_size, "three matrices against two"


def test_a_step_of_llama_cpp_follows_the_tokens_before_it() -> None:
    class Library:
        """Stands for llama_cpp: it keeps what it is given, as `Llama.eval` does, and answers with the last token."""

        class Llama:
            def __init__(self, path: str, **options: Any) -> None:
                self.options, self.n_tokens, self.ids, self.ctx = options, 0, [0] * 16, self

            def reset(self) -> None:
                self.n_tokens = 0

            def eval(self, ids: Any) -> None:
                self.ids[self.n_tokens : self.n_tokens + len(ids)] = ids
                self.n_tokens += len(ids)

            def n_vocab(self) -> int:
                return 1

        @staticmethod
        def llama_get_logits(llama: Any) -> Any:
            return (ctypes.c_float * 1)(sum(llama.ids[: llama.n_tokens]))

    runner = LlamaCppRunner(Library, Path("m.gguf"), 2)
    assert runner.llama.options["n_threads"] == runner.llama.options["n_threads_batch"] == 2
    assert runner.prefill([1, 2, 3]).tolist() == [6] and runner.step(4).tolist() == [10]
    runner.undo()
    assert runner.step(5).tolist() == [11] and runner.prefill([7]).tolist() == [7]


@pytest.mark.acceptance
def test_llama_cpp_runs_the_peer(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp", reason="compiled at installation: pip install 'parcae-mobile[llama-cpp]'")
    source = open_source(None)
    (subject,) = make_baselines(source, [LLAMA_CPP], 2, [64], tmp_path)
    runner = opener(LLAMA_CPP, subject.folder, 2, 1)()
    logits = runner.prefill(range(1, 20))
    assert logits.shape == (source.model.config.padded_vocab_size,) and np.isfinite(logits).all()
    again = runner.step(5)
    runner.undo()
    np.testing.assert_allclose(runner.step(5), again, rtol=0, atol=1e-4)
    assert not np.allclose(runner.prefill(range(2, 21)), logits, atol=1e-3)


@pytest.mark.parametrize("form", [(4, 32, True), (4, 128, False), (8, 256, False)])
def test_a_chain_of_kernels_multiplies_every_matrix_of_two_blocks(form: tuple[int, int, bool]) -> None:
    graph = chain(*form).graph
    stored = sum(np.prod(tensor.dims) for tensor in graph.initializer if tensor.name.startswith("b"))
    assert len(graph.node) == 12 and stored == 2 * (4 * 768**2 + 2 * 768 * 3072) * form[0] // 8
    onnx.checker.check_model(onnx.helper.make_model(graph, opset_imports=chain(*form).opset_import))


def test_touched_bytes_follow_the_nodes(tmp_path: Path) -> None:
    def weights(name: str, *shape: int) -> TensorProto:
        return helper.make_tensor(name, TensorProto.FLOAT, shape, np.zeros(shape, np.float32).tobytes(), raw=True)

    body_x = helper.make_tensor_value_info("b", TensorProto.FLOAT, [1, 4])
    body = helper.make_graph([helper.make_node("MatMul", ["b", "inner"], ["c"])], "body", [body_x], [body_x])
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["a"]),
        helper.make_node("Transpose", ["square"], ["turned"]),
        helper.make_node("MatMul", ["a", "turned"], ["b0"]),
        helper.make_node("MatMul", ["b0", "turned"], ["b1"]),
        helper.make_node("Scan", ["b1"], ["y"], body=body, num_scan_inputs=0),
    ]
    initializers = [weights("table", 100, 4), weights("square", 4, 4), weights("inner", 4, 2)]
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", [], [], initializers)), tmp_path / "m.onnx")
    square, inner = 4 * 4 * 4, 4 * 2 * 4
    assert touched_onnx([(tmp_path / "m.onnx", 1)], loops=5) == 2 * square + 5 * inner
    assert touched_onnx([(tmp_path / "m.onnx", 3)]) == 3 * (2 * square + inner)
    assert weights_of(tmp_path) == total_of(tmp_path) == (tmp_path / "m.onnx").stat().st_size


def test_a_shared_cache_is_held_once_and_read_by_every_loop() -> None:
    config = released_config("parcae-140m")
    full, shared = (CacheGeometry.of(config, 16, policy=policy) for policy in ("full", "shared"))
    assert cache_bytes(full, 8, 1024, "fp32") == 20 * 2 * 768 * 4 * 1024
    assert cache_bytes(shared, 8, 1024, "int8") == cache_bytes(shared, 1, 1024, "int8") == 6 * 2 * 768 * 1024
    assert cache_touched(shared, 8, 1024, "int8") == cache_touched(full, 8, 1024, "int8") == 20 * 2 * 768 * 1024


def test_bandwidth_is_that_of_memory() -> None:
    assert 1e8 < read_bandwidth(megabytes=64, repeats=2) < 1e12
