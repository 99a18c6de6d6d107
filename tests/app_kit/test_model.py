"""The model vectors on a real artifact, driven as an app drives it: fp32 stages through onnxruntime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from export.run.generation import generate
from export.targets.host import CacheGeometry
from export.targets.onnx.runtime.host import OnnxHost
from export.targets.onnx.writer import write_stages
from parcae_mobile import load_model
from parcae_mobile.golden import weights_sha256
from parcae_mobile.sampling import Sampling
from parcae_mobile.text import EMBEDDED_MODEL
from parcae_mobile.tokenizer import TextTokenizer
from quantize import load_recipe, quantize_with


@pytest.fixture(scope="module")
def given(vectors: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    return vectors("model")


@pytest.fixture(scope="module")
def open_with(given: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], OnnxHost]:
    """The embedded model's fp32 artifact under a policy."""
    folder, model = tmp_path_factory.mktemp("stages"), load_model(EMBEDDED_MODEL)
    assert weights_sha256(model) == given["artifact"]["weights_sha256"]
    write_stages(quantize_with(model, load_recipe(given["artifact"]["recipe"]), "rtn"), folder)
    return lambda policy: OnnxHost(folder, "stages", CacheGeometry.of(model.config, 16, policy=policy), 1)


def test_the_golden_logits(given: dict[str, Any], open_with: Callable[[str], OnnxHost]) -> None:
    host = open_with("full")
    for case in given["golden"]:
        host.reset()
        row = host.run(given["input_ids"], case["loops"], [len(given["input_ids"]) - 1])[0]
        assert int(row.argmax()) == case["argmax"]
        assert np.abs(row[:: given["every"]] - case["logits"]).max() < given["tolerance"]


@pytest.mark.parametrize("policy", ["full", "shared"])
def test_greedy_answers_at_each_loop_count(
    given: dict[str, Any], open_with: Callable[[str], OnnxHost], policy: str
) -> None:
    host, tokenizer, lengths = open_with(policy), TextTokenizer.load(EMBEDDED_MODEL), []
    assert tokenizer is not None
    for case in (case for case in given["greedy"] if case["policy"] == policy):
        assert [tokenizer.bos, *tokenizer.encode(case["prompt"])] == case["given"]
        host.reset()
        steps = generate(host, case["given"], Sampling(), case["loops"], len(case["tokens"]))
        assert [step.token for step in steps] == case["tokens"], case
        lengths.append(len(case["tokens"]))
    assert sum(lengths) > 16 * len(lengths)


def test_conversations_that_change_their_loops(given: dict[str, Any], open_with: Callable[[str], OnnxHost]) -> None:
    loops = set()
    for case in given["conversations"]:
        host = open_with(case["policy"])
        assert host.prefill_chunk == given["chunk"]
        for turn in case["turns"]:
            logits, used, tokens, counts = host.prefill(turn["given"], turn["loops"]), turn["loops"], [], []
            for _ in turn["tokens"]:
                if tokens:
                    logits = host.run(tokens[-1:], turn["loops"], exit_threshold=turn["threshold"])[0]
                    used = host.loops_used
                tokens.append(int(logits.argmax()))
                counts.append(used)
            assert (tokens, counts) == (turn["tokens"], turn["loops_used"]), case["case"]
            loops.update(counts)
    assert len(loops) >= 5


def test_a_conversation_that_is_given_again_in_the_same_pieces_goes_on_with_the_same_logits(
    given: dict[str, Any], open_with: Callable[[str], OnnxHost]
) -> None:
    case = next(case for case in given["conversations"] if case["policy"] == "shared" and case["turns"][0]["threshold"])
    kept, told = [], open_with("shared")
    for turn in case["turns"]:
        given_pieces = [(turn["given"], turn["loops"])]
        given_pieces += [([token], used) for token, used in zip(turn["tokens"], turn["loops_used"][1:], strict=False)]
        for ids, used in given_pieces:
            told.run(ids, used, [len(ids) - 1])
        kept += given_pieces
    again = open_with("shared")
    for ids, used in kept:
        again.run(ids, used, [len(ids) - 1])
    assert np.array_equal(told.run([1], 8), again.run([1], 8))
