"""The lowering gate on a trained model: the finished artifact passes, and each of these mutants of it does not."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
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


def edit(folder: Path, changes: dict[str, Callable[[np.ndarray], np.ndarray]]) -> None:
    """Change stored tensors of a written artifact in place, by their names in its graphs."""
    done = set()
    for path in folder.glob("model*.onnx"):
        for tensor in onnx.load(path, load_external_data=False).graph.initializer:
            if tensor.name in changes and tensor.name not in done:
                fields = {entry.key: entry.value for entry in tensor.external_data}
                array = onnx.numpy_helper.to_array(tensor, base_dir=str(folder))
                changed = changes[tensor.name](array.copy())
                assert not np.array_equal(changed, array)
                with (folder / fields["location"]).open("r+b") as file:
                    file.seek(int(fields["offset"]))
                    file.write(changed.astype(array.dtype).tobytes())
                done.add(tensor.name)
    assert done == set(changes)


def stored(folder: Path, name: str) -> np.ndarray:
    for path in folder.glob("model*.onnx"):
        for tensor in onnx.load(path, load_external_data=False).graph.initializer:
            if tensor.name == name:
                return np.array(onnx.numpy_helper.to_array(tensor, base_dir=str(folder)))
    raise AssertionError(f"no {name}")


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


QUERY, KEY = (f"transformer.core_block.0.attn.{name}.weight" for name in ("c_q", "c_k"))


@pytest.mark.parametrize("form", FORMS)
def test_one_matrix_a_hundredth_too_large_fails(artifacts: Any, texts: torch.Tensor, tmp_path: Path, form: str) -> None:
    folder, quantized = artifacts(form)
    for name in ("transformer.core_block.0.mlp.proj.weight", "transformer.C.weight"):
        mutant = shutil.copytree(folder, tmp_path / name)
        edit(mutant, {name: lambda array: array * np.float32(1.01)})
        assert not judge(opened(mutant, form, quantized.model), quantized, texts).passed


@pytest.mark.parametrize("form", FORMS)
def test_swapped_queries_and_keys_fail(artifacts: Any, texts: torch.Tensor, tmp_path: Path, form: str) -> None:
    folder, quantized = artifacts(form)
    mutant = shutil.copytree(folder, tmp_path / "mutant")
    query, key = stored(folder, QUERY), stored(folder, KEY)
    edit(mutant, {QUERY: lambda array: key, KEY: lambda array: query})
    assert not judge(opened(mutant, form, quantized.model), quantized, texts).passed


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("by", [-1, 1])
def test_a_loop_count_off_by_one_fails(artifacts: Any, texts: torch.Tensor, form: str, by: int) -> None:
    class OffByOne(OnnxHost):
        def run(self, ids: Sequence[int], loops: int, *rest: Any, **more: Any) -> np.ndarray:
            return super().run(ids, loops + by, *rest, **{key: v for key, v in more.items() if key != "on_state"})

    folder, quantized = artifacts(form)
    assert not judge(opened(folder, form, quantized.model, OffByOne), quantized, texts).passed


@pytest.mark.parametrize("form", FORMS)
def test_a_shifted_cache_slot_fails(artifacts: Any, texts: torch.Tensor, form: str) -> None:
    class Shifted(OnnxHost):
        def run(self, *given: Any, **more: Any) -> np.ndarray:
            out = super().run(*given, **more)
            for key, cache in self._caches.items():
                if key.startswith("core_block"):
                    cache[:] = np.roll(cache, 1, axis=0)
            return out

    folder, quantized = artifacts(form)
    assert not judge(opened(folder, form, quantized.model, Shifted), quantized, texts).passed


@pytest.mark.parametrize("form", FORMS)
def test_rotation_off_by_one_position_fails(artifacts: Any, texts: torch.Tensor, tmp_path: Path, form: str) -> None:
    """Shifting every position alike changes no distance, so the first one stays."""
    folder, quantized = artifacts(form)
    mutant = shutil.copytree(folder, tmp_path / "mutant")

    def shift(table: np.ndarray) -> np.ndarray:
        return np.concatenate([table[:1], table[2:], table[-1:]])

    edit(mutant, {"rope.cos": shift, "rope.sin": shift})
    assert not judge(opened(mutant, form, quantized.model), quantized, texts).passed


@pytest.mark.parametrize("form", FORMS)
def test_a_scale_with_a_flipped_sign_fails(artifacts: Any, texts: torch.Tensor, tmp_path: Path, form: str) -> None:
    folder, quantized = artifacts(form, "int8")
    mutant = shutil.copytree(folder, tmp_path / "mutant")

    def flip(scales: np.ndarray) -> np.ndarray:
        scales[5] *= -1
        return scales

    assert judge(opened(folder, form, quantized.model), quantized, texts).passed
    edit(mutant, {"transformer.core_block.0.mlp.fc.weight.scales.blocks": flip})
    assert not judge(opened(mutant, form, quantized.model), quantized, texts).passed


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
    other = replace(quantized, model=load_model(Path(__file__).parents[3] / "data" / "tiny-trained"))
    with torch.no_grad():
        other.model.transformer["ln_f"].weight *= 1.001
    verdict = judge(opened(folder, "stages", quantized.model), other, texts[:1])
    assert any("T=3: max_abs" in line and "above 0.0001" in line for line in verdict.failures)
    written = verdict.to_verdict()
    assert isinstance(written, Verdict) and written.passed is False and "T=3" in written.note
