"""fp16 weights in ONNX: half the bytes in the file, fp32 arithmetic, and nothing widened at each step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from export.targets.host import CacheGeometry
from export.targets.onnx.runtime.host import OnnxHost
from export.targets.onnx.static import write_static
from export.targets.onnx.writer import read_injection, write_scan, write_stages
from parcae_mobile import Parcae
from quantize import QuantizedModel

Write = Callable[[QuantizedModel, Path], object]
FORMS: dict[str, Write] = {
    "stages": write_stages,
    "scan": write_scan,
    "unrolled": lambda model, folder: write_static(model, folder, {3: "model.onnx"}),
}


@pytest.mark.parametrize("form", FORMS)
def test_matrices_are_stored_in_fp16_and_computed_with_in_fp32(
    mini_model: Parcae, quantized: Callable[..., QuantizedModel], mini_ids: torch.Tensor, tmp_path: Path, form: str
) -> None:
    model = quantized(mini_model, "fp16")
    FORMS[form](model, tmp_path)
    kinds: dict[str, set[int]] = {}
    for path in tmp_path.glob("model*.onnx"):
        for tensor in onnx.load(path, load_external_data=False).graph.initializer:
            if tensor.external_data:
                kinds.setdefault(tensor.name.removesuffix(".half"), set()).add(tensor.data_type)
    assert model.halves
    for name, kind in kinds.items():
        assert kind == {onnx.TensorProto.FLOAT16 if name in model.halves else onnx.TensorProto.FLOAT}, name
    stored = read_injection(tmp_path)
    assert stored is not None and torch.equal(stored.matrix, mini_model.transformer["adapter"].B)
    host = OnnxHost(tmp_path, form, CacheGeometry.of(mini_model.config, 3), 1, halves=True)
    logits = host.run(mini_ids[0].tolist(), 3)
    assert np.abs(logits - model.model(mini_ids, 3)[0].detach().numpy()).max() < 2e-5


def test_a_host_lets_the_runtime_widen_matrices_when_it_loads_them(
    mini_model: Parcae, quantized: Callable[..., QuantizedModel], tmp_path: Path
) -> None:
    """One cast for each matrix, at the head of the graph, and a runtime that may fold it."""
    write_stages(quantized(mini_model, "fp16"), tmp_path)
    graph = onnx.load(tmp_path / "model_recur.onnx", load_external_data=False).graph
    casts = [node for node in graph.node if node.op_type == "Cast"]
    assert casts and list(graph.node[: len(casts)]) == casts
    assert len({node.input[0] for node in casts}) == len(casts)
    host = OnnxHost(tmp_path, "stages", CacheGeometry.of(mini_model.config, 3), 1, halves=True)
    assert host._options.graph_optimization_level != ort.GraphOptimizationLevel.ORT_DISABLE_ALL
