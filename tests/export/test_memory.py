"""The weights of a model are held once: while a target writes, neither the fp32 model nor dequantized weights are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from export import pipeline
from export.request import ExportRequest
from export.source import Source
from export.targets.registry import WriteOptions, find_target, load_target
from parcae_mobile import Parcae
from quantize import load_recipe, quantize_model
from quantize.apply import QuantizedModel


class Seen(Exception):
    """Ends an export where the target would write."""


def test_no_float_copy_of_a_quantized_matrix_lives_when_a_target_begins_to_write(
    mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources: list[Source] = []

    def opened(*arguments: Any, **keywords: Any) -> Source:
        sources.append(open_source(*arguments, **keywords))
        return sources[-1]

    def write(quantized: QuantizedModel, folder: Path, options: WriteOptions) -> None:
        matrices = [sources[0].model.get_parameter(name) for name in quantized.tensors]
        assert matrices and all(matrix.is_meta for matrix in matrices) and quantized.eager is None
        raise Seen

    open_source = pipeline.open_source
    monkeypatch.setattr(pipeline, "open_source", opened)
    monkeypatch.setattr(pipeline, "load_target", lambda target: SimpleNamespace(write=write))
    request = ExportRequest(
        model=str(mini), target=["onnx"], quant="int8", algorithm="rtn", out=tmp_path, verify=False, cache=False
    )
    with pytest.raises(Seen):
        pipeline.run_export(request)


@pytest.mark.parametrize("name", ["onnx", "coreml"])
def test_a_target_writes_without_dequantized_weights(name: str, small: Callable[..., Parcae], tmp_path: Path) -> None:
    quantized = quantize_model(small(), load_recipe("int8"))
    target = find_target(name)
    options = WriteOptions("stages", "dynamic", 2, 32, target.computes[0], "full", target.kv_dtypes[0])
    load_target(target).write(quantized, tmp_path, options)
    assert any(tmp_path.iterdir()) and quantized.eager is None


def test_what_executorch_traces_has_no_dequantized_weights(small: Callable[..., Parcae]) -> None:
    from export.targets.executorch.layers import friendly_model

    quantized = quantize_model(small(), load_recipe("int8"))
    friendly = friendly_model(quantized)
    assert quantized.eager is None
    assert not any(parameter.isnan().any() for parameter in friendly.parameters() if parameter.is_floating_point())
