"""The lowering gate's two questions: the function, with the rounding out of the way, and what the rounding costs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from export.gates.function import FUNCTION, function_failures, own_noise, relaxed
from export.gates.lowering import lowering_gate
from export.gates.probes import Measured, Probe, far_state, measure, split
from export.gates.rounding import ROUNDING, rounding_budget
from export.gates.twins import Exact
from export.gates.verify import widened
from export.targets.host import CacheGeometry, Host
from export.targets.onnx import exact as onnx_exact
from export.targets.onnx import writer as onnx_writer
from export.targets.onnx.runtime.host import OnnxHost
from export.targets.registry import WriteOptions
from parcae_mobile import Parcae
from parcae_mobile.kv_cache import CacheSpec
from parcae_mobile.manifest import Verdict
from quantize import QuantizedModel

MLP = "transformer.core_block.0.mlp.proj.weight"


@dataclass
class Made:
    """An ONNX artifact with int8 activations, as published and with the rounding out of the way."""

    quantized: QuantizedModel
    published: Host
    exact: Host


@pytest.fixture(scope="module")
def make(
    trained: Parcae, quantized: Callable[..., QuantizedModel], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Made]:
    model = quantized(trained, "int4")

    def write(form: Any, portable: bool = False, scale: float = 1.0) -> Made:
        folder = tmp_path_factory.mktemp("onnx")
        static = form == "unrolled"
        loops: Any = 8 if static else "dynamic"
        options = WriteOptions(form, loops, 8, 96, "int8", portable=portable, last_logits=static)
        onnx_writer.write(model, folder, options)
        if scale != 1:
            multiply_scales(folder, MLP, scale)
        geometry = CacheGeometry.of(model.model.config, 8, 96)
        graphs = {8: "model.onnx"} if static else {}
        given = (folder, form, geometry, 1)
        kind = onnx_exact.ExactPortableHost if portable else onnx_exact.ExactHost
        return Made(model, OnnxHost(*given, graphs=graphs), kind(*given, graphs=graphs))

    return write


def multiply_scales(folder: Path, name: str, factor: float) -> None:
    for path in folder.glob("model*.onnx"):
        for tensor in onnx.load(path, load_external_data=False).graph.initializer:
            if tensor.name.startswith(f"{name}.scales"):
                array = onnx.numpy_helper.to_array(tensor, base_dir=str(folder))
                place = int({entry.key: entry.value for entry in tensor.external_data}["offset"])
                with (folder / "weights.data").open("r+b") as file:
                    file.seek(place)
                    file.write((array * np.float32(factor)).astype(array.dtype).tobytes())
                return
    raise AssertionError(f"no scales of {name}")


@pytest.mark.parametrize(
    ("form", "portable"),
    [("stages", False), ("scan", False), ("unrolled", False), ("unrolled", True), ("stages", True)],
)
def test_without_rounding_the_same_bytes_are_the_eager_model_from_any_state(
    make: Callable[..., Made], texts: torch.Tensor, form: str, portable: bool
) -> None:
    made = make(form, portable)
    model, ids = made.quantized.model, texts[:1, :-1]
    for probe in (
        Probe("one piece", ids),
        Probe("far", ids, state=far_state(model, ids.shape[1])),
        Probe("pieces", ids, pieces=split(ids.shape[1]), state=far_state(model, ids.shape[1])),
    ):
        measured = measure(made.exact, model, probe, 8, CacheSpec())
        assert measured.distance.max_abs < 1e-4 and measured.worst_state < 2e-5, probe.name
        seen = sorted(measured.state_max)
        assert seen == ([7] if form == "scan" or (form, portable) == ("unrolled", True) else list(range(8)))


def test_a_matrix_five_percent_off_hides_in_the_rounding_and_not_from_the_function(
    make: Callable[..., Made], texts: torch.Tensor
) -> None:
    made = make("stages", scale=1.05)
    model = made.quantized.model
    cost = lowering_gate(made.published, model, texts, (8,), "int8")
    assert cost.passed, "were it found here, nobody would need the other question"
    both = lowering_gate(
        made.published, model, texts, (8,), "int8", exact=Exact(made.exact, model, CacheSpec(), "fp32")
    )
    assert not both.passed and any("function" not in line and "state_max" in line for line in both.failures)
    assert both.right_function is False and both.too_costly == {}, "no loop count is right of a wrong function"


def test_both_questions_are_answered_in_the_verdict(make: Callable[..., Made], texts: torch.Tensor) -> None:
    made = make("stages")
    exact = Exact(made.exact, made.quantized.model, CacheSpec(), "fp32")
    verdict = lowering_gate(made.published, made.quantized.model, texts, (1, 8), "int8", exact=exact)
    assert verdict.passed and not verdict.notes
    written = verdict.to_verdict()
    assert written.by_loops["8"]["function"]["max_abs"] < 1e-4 < written.by_loops["8"]["max_abs"]
    assert written.by_loops["8"]["greedy_equal"] == 64
    assert written.budget["function.state_max"] == FUNCTION["fp32"]["state_max"] and written.budget["kl_mean"] == 1e-3


def test_a_host_that_runs_another_loop_count_cannot_hide_behind_a_converged_loop(
    make: Callable[..., Made], texts: torch.Tensor
) -> None:
    made = make("stages")
    probe = Probe("one piece", texts[:1, :-1])

    class OneMore(Host):
        def run(self, ids: Any, loops: int, *rest: Any, **more: Any) -> np.ndarray:
            return made.exact.run(ids, loops + 1, *rest, **more)

        def reset(self) -> None:
            made.exact.reset()

    measured = measure(OneMore(made.exact.geometry), made.quantized.model, probe, 7, CacheSpec())
    assert measured.worst_state == float("inf")


def test_a_sensitive_model_is_told_from_a_wrong_artifact(trained: Parcae, texts: torch.Tensor) -> None:
    probe = Probe("one piece", texts[:1, :-1])
    before = {name: values.clone() for name, values in trained.state_dict().items()}
    noise = own_noise(trained, probe, 4, CacheSpec())
    assert 0 < noise.distance.max_abs < 1e-4
    assert all(torch.equal(values, before[name]) for name, values in trained.state_dict().items())
    model = copy.deepcopy(trained)
    model.transformer["ln_f"].weight.data *= 50
    loud = own_noise(model, probe, 4, CacheSpec())
    assert loud.distance.max_abs > 20 * noise.distance.max_abs
    budget = {"max_abs": loud.distance.max_abs / 2, "cosine": 0.9999}
    wider = relaxed(budget, loud)
    assert wider["max_abs"] == pytest.approx(4 * loud.distance.max_abs) and wider["cosine"] == 0.9999
    small = Measured(loud.distance)
    assert function_failures(8, "one piece", small, budget) and not function_failures(8, "one piece", small, wider)


def test_bounds_that_a_models_own_noise_widens_are_written_down_and_verified_by(
    make: Callable[..., Made], texts: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make("stages")
    model = made.quantized.model
    assert lowering_gate(made.exact, model, texts, (2,), "fp32").to_verdict().by_loops["2"].get("allowed") is None
    monkeypatch.setitem(FUNCTION["fp32"], "max_abs", 1e-6)  # a bound that no fp32 arithmetic keeps
    verdict = lowering_gate(made.exact, model, texts, (2,), "fp32").to_verdict()
    assert verdict.passed and "own rounding noise" in verdict.note
    allowed = verdict.by_loops["2"]["allowed"]["max_abs"]
    assert 1e-6 < allowed <= 1e-4
    manifest: Any = SimpleNamespace(lowering=verdict)
    assert widened({"max_abs": 1e-6, "cosine": 0.9999}, manifest, 2) == {"max_abs": allowed, "cosine": 0.9999}
    assert widened({"max_abs": 1e-6}, manifest, 3) == {"max_abs": 1e-6}, "not judged, so not widened"


def test_top1_is_asked_of_trained_weights_alone_by_the_gate_and_by_verify() -> None:
    assert "top1" in rounding_budget("fp16", trained=True)
    asked = rounding_budget("fp16", trained=False)
    assert asked == {key: bound for key, bound in ROUNDING["fp16"].items() if key != "top1"}
    bounds = {"kl_mean": 1e-4, "top1": 0.995}
    drawn: Any = SimpleNamespace(lowering=Verdict(passed=True, by_loops={}, budget=asked))
    unjudged: Any = SimpleNamespace(lowering=Verdict(passed=None, by_loops={}))
    assert widened(bounds, drawn, 2) == {"kl_mean": 1e-4} and widened(bounds, unjudged, 2) == bounds
