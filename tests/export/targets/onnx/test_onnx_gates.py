"""The lowering gate on a trained model: the finished artifact passes, faults of its host and of numbers do not.

Mutants of what is in the files: tests/export/gates/test_mutants.py and `make mutants`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from export.gates.lowering import LoweringVerdict, lowering_gate
from export.run.generation import generate
from export.targets.host import CacheGeometry, Host
from export.targets.onnx.runtime.host import OnnxHost
from parcae_mobile import Parcae, load_model
from parcae_mobile.manifest import Verdict
from parcae_mobile.parity import greedy
from parcae_mobile.sampling import Sampling
from quantize import QuantizedModel

FORMS = ("stages", "scan")
LOOPS = (3,)


@pytest.fixture(scope="module")
def artifacts(
    trained: Parcae,
    quantized: Callable[..., QuantizedModel],
    write_onnx: Callable[..., OnnxHost],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str, str], tuple[Path, QuantizedModel]]:
    made: dict[tuple[str, str], tuple[Path, QuantizedModel]] = {}

    def get(form: str, preset: str = "fp32") -> tuple[Path, QuantizedModel]:
        if (form, preset) not in made:
            folder = tmp_path_factory.mktemp("trained") / form
            model = quantized(trained, preset)
            write_onnx(model, folder, form)
            made[form, preset] = folder, model
        return made[form, preset]

    return get


def opened(folder: Path, form: str, model: Parcae, kind: type[OnnxHost] = OnnxHost) -> OnnxHost:
    return kind(folder, form, CacheGeometry.of(model.config, 16), threads=1)


def judge(host: Host, quantized: QuantizedModel, texts: torch.Tensor) -> LoweringVerdict:
    return lowering_gate(host, quantized.model, texts, LOOPS, "fp32")


@pytest.mark.parametrize("form", FORMS)
def test_the_finished_artifact_passes_and_continues_as_the_eager_model_does(
    artifacts: Any, texts: torch.Tensor, form: str
) -> None:
    folder, quantized = artifacts(form)
    host = opened(folder, form, quantized.model)
    verdict = lowering_gate(host, quantized.model, texts, (1, 4, 8), "fp32")
    assert verdict.passed and not verdict.failures
    assert verdict.greedy_equal == {8: 64}  # at the trained count, or else the greatest
    assert max(distance.max_abs for distance in verdict.by_loops.values()) <= 1e-4
    assert [len(errors) for errors in verdict.state_errors.values()] == ([1, 4, 8] if form == "stages" else [1, 1, 1])
    assert max(max(errors) for errors in verdict.state_errors.values()) < 1e-4


@pytest.mark.parametrize("loops", [1, 4, 8])
def test_generation_gives_the_eager_models_greedy_tokens(artifacts: Any, texts: torch.Tensor, loops: int) -> None:
    folder, quantized = artifacts("stages")
    host = opened(folder, "stages", quantized.model)
    prompt = texts[1, :20].tolist()
    made = [step.token for step in generate(host, prompt, Sampling(), loops, 64)]
    assert made == greedy(quantized.model, prompt, 64, loops)


@pytest.mark.parametrize(("form", "by"), [("stages", -1), ("scan", 1)])
def test_a_host_whose_loop_count_is_off_by_one_fails(artifacts: Any, texts: torch.Tensor, form: str, by: int) -> None:
    class OffByOne(OnnxHost):
        def run(self, ids: Sequence[int], loops: int, *rest: Any, **more: Any) -> np.ndarray:
            return super().run(ids, loops + by, *rest, **{key: v for key, v in more.items() if key != "on_state"})

    folder, quantized = artifacts(form)
    assert not judge(opened(folder, form, quantized.model, OffByOne), quantized, texts).passed


@pytest.mark.parametrize("form", FORMS)
def test_a_host_that_shifts_cache_slots_fails(artifacts: Any, texts: torch.Tensor, form: str) -> None:
    class Shifted(OnnxHost):
        def run(self, *given: Any, **more: Any) -> np.ndarray:
            out = super().run(*given, **more)
            for key, cache in self._caches.items():
                if key.startswith("core_block"):
                    cache[:] = np.roll(cache, 1, axis=0)
            return out

    folder, quantized = artifacts(form)
    assert not judge(opened(folder, form, quantized.model, Shifted), quantized, texts).passed


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_not_finite_fail_and_can_be_written_down(
    artifacts: Any, texts: torch.Tensor, bad: float
) -> None:
    class Broken(OnnxHost):
        def run(self, *given: Any, **more: Any) -> np.ndarray:
            out = super().run(*given, **more)
            out[-1, 7] = bad
            return out

    folder, quantized = artifacts("stages")
    verdict = judge(opened(folder, "stages", quantized.model, Broken), quantized, texts[:1])
    assert not verdict.passed
    assert verdict.to_verdict().model_dump(mode="json")["by_loops"]["3"]["max_abs"] is None
    for compute in ("int8",):
        again = lowering_gate(opened(folder, "stages", quantized.model, Broken), quantized.model, texts, LOOPS, compute)
        assert not again.passed


def test_a_context_with_room_for_few_tokens_can_pass(artifacts: Any, texts: torch.Tensor) -> None:
    folder, quantized = artifacts("stages")
    geometry = CacheGeometry.of(quantized.model.config, 16, context=40)
    host = OnnxHost(folder, "stages", geometry, threads=1)
    verdict = lowering_gate(host, quantized.model, texts[:, :41], LOOPS, "fp32")
    assert verdict.passed and verdict.greedy_equal == {3: 24}
    assert verdict.budget["function.greedy_equal"] == 24


def test_the_verdict_of_the_gate_names_what_failed(artifacts: Any, texts: torch.Tensor) -> None:
    folder, quantized = artifacts("stages")
    other = replace(quantized, eager=load_model(Path(__file__).parents[3] / "data" / "tiny-trained"))
    with torch.no_grad():
        other.model.transformer["ln_f"].weight *= 1.001
    verdict = judge(opened(folder, "stages", quantized.model), other, texts[:1])
    assert any("T=3: max_abs" in line and "above 0.0001" in line for line in verdict.failures)
    written = verdict.to_verdict()
    assert isinstance(written, Verdict) and written.passed is False and "T=3" in written.note
