"""What `--compute` promises of an ONNX artifact is what its graphs are told and what its gate measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx


def accuracy_levels(folder: Path) -> set[int]:
    """The arithmetic that every quantized matrix product of the artifact asks for."""
    nodes = [
        node for path in folder.glob("model*.onnx") for node in onnx.load(path, load_external_data=False).graph.node
    ]
    products = [node for node in nodes if node.op_type == "MatMulNBits"]
    assert products
    return {attribute.i for node in products for attribute in node.attribute if attribute.name == "accuracy_level"}


def promise(folder: Path) -> str:
    return str(json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["promise"])


def test_int8_activations_promise_a_rate(exported: tuple[Path, dict[str, Any]]) -> None:
    folder, described = exported
    assert accuracy_levels(folder) == {4} and described["compute"] == "int8"
    assert promise(folder).startswith("agreement is a rate")
    assert {"kl_mean", "function.max_abs"} <= set(described["lowering"]["budget"])


def test_fp32_arithmetic_on_quantized_weights_promises_equal_tokens(
    cli: Callable[..., Any], mini: Path, text: Path, loose: Path, tmp_path: Path
) -> None:
    given = ("--model", mini, "--text", text, "--calibration", text, "--quant", loose, "--accept-budget")
    ran = cli(*given, "--kv", "full", "--compute", "fp32", "--max-loops", 4, "--out", tmp_path, "--json")
    assert ran.code == 0, ran.err
    (described,) = ran.json["artifacts"]
    folder = Path(described["artifact"])
    assert accuracy_levels(folder) == {1} and promise(folder).startswith("token parity")
    verdict = described["lowering"]
    assert verdict["passed"]
    assert verdict["by_loops"]["4"]["greedy_equal"] == verdict["budget"]["function.greedy_equal"]


def test_the_manifest_says_how_stored_rows_are_joined(exported: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = exported
    notes = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["quantization"]["notes"]
    graph = onnx.load(folder / "model_recur.onnx", load_external_data=False).graph
    assert any("c_q.weight+c_k.weight" in tensor.name for tensor in graph.initializer)
    assert any("c_q.weight+c_k.weight" in note for note in notes)
