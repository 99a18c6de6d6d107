"""Mutants of the static form and of the portable flavour: each finished artifact passes its gate, no mutant does."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from export.gates.lowering import lowering_gate
from export.targets.host import CacheGeometry
from export.targets.onnx.portable.lowering import PortableLowering
from export.targets.onnx.runtime.host import OnnxHost
from export.targets.onnx.runtime.portable import PortableHost
from export.targets.onnx.static import write_static
from export.targets.onnx.writer import write_stages
from parcae_mobile import Parcae
from quantize import QuantizedModel

FLAVOURS = ("static", "portable stages", pytest.param("portable static", marks=pytest.mark.acceptance))
GRAPHS = {2: "model_T2.onnx", 3: "model.onnx", 4: "model_T4.onnx"}
CORE = "transformer.core_block.0."
Artifact = tuple[Path, QuantizedModel]


@pytest.fixture(scope="module")
def artifacts(
    trained: Parcae, quantized: Callable[..., QuantizedModel], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Artifact]:
    made: dict[tuple[str, str], Artifact] = {}

    def get(flavour: str, preset: str = "fp32") -> Artifact:
        if (flavour, preset) not in made:
            folder, model = tmp_path_factory.mktemp("trained"), quantized(trained, preset)
            if flavour == "portable stages":
                write_stages(model, folder, "fp32", None, PortableLowering)
            else:
                write_static(model, folder, GRAPHS, portable=flavour == "portable static")
            made[flavour, preset] = folder, model
        return made[flavour, preset]

    return get


def kind_of(flavour: str) -> type[OnnxHost]:
    return OnnxHost if flavour == "static" else PortableHost


def passes(
    folder: Path, flavour: str, quantized: QuantizedModel, texts: torch.Tensor, kind: type[OnnxHost] | None = None
) -> bool:
    form, graphs = ("stages", None) if flavour == "portable stages" else ("unrolled", GRAPHS)
    geometry = CacheGeometry.of(quantized.model.config, 16)
    host = (kind or kind_of(flavour))(folder, form, geometry, 1, graphs=graphs)
    return lowering_gate(host, quantized.model, texts, (3,), "fp32").passed


def initializers(path: Path) -> list[onnx.TensorProto]:
    """Of a graph and of the bodies in it."""
    graph = onnx.load(path, load_external_data=False).graph
    bodies = [entry.g for node in graph.node for entry in node.attribute if entry.HasField("g")]
    return [tensor for part in (graph, *bodies) for tensor in part.initializer]


def edit(folder: Path, changes: dict[str, Callable[[np.ndarray], np.ndarray]]) -> None:
    """Change stored tensors in place, by the end of their names; all graphs of a folder read the same bytes."""
    done: set[str] = set()
    for path in folder.glob("model*.onnx"):
        for tensor in initializers(path):
            key = next((key for key in changes if tensor.name.endswith(key) and key not in done), None)
            if key is not None:
                fields = {entry.key: entry.value for entry in tensor.external_data}
                array = onnx.numpy_helper.to_array(tensor, base_dir=str(folder))
                changed = changes[key](array.copy())
                assert not np.array_equal(changed, array)
                with (folder / fields["location"]).open("r+b") as file:
                    file.seek(int(fields["offset"]))
                    file.write(changed.astype(array.dtype).tobytes())
                done.add(key)
    assert done == set(changes)


def stored(folder: Path, ending: str) -> np.ndarray:
    for path in folder.glob("model*.onnx"):
        for tensor in initializers(path):
            if tensor.name.endswith(ending):
                return np.array(onnx.numpy_helper.to_array(tensor, base_dir=str(folder)))
    raise AssertionError(f"no {ending}")


def float_name(name: str, flavour: str) -> str:
    return name if flavour == "static" else name + ".columns"


@pytest.mark.parametrize("preset", ["fp32", "int8"])
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_the_finished_artifact_passes(artifacts: Any, texts: torch.Tensor, flavour: str, preset: str) -> None:
    folder, quantized = artifacts(flavour, preset)
    assert passes(folder, flavour, quantized, texts)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_one_matrix_a_hundredth_too_large_fails(
    artifacts: Any, texts: torch.Tensor, tmp_path: Path, flavour: str
) -> None:
    folder, quantized = artifacts(flavour)
    mutant = shutil.copytree(folder, tmp_path / "mutant")
    edit(mutant, {float_name(CORE + "mlp.proj.weight", flavour): lambda array: array * np.float32(1.01)})
    assert not passes(mutant, flavour, quantized, texts)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_swapped_queries_and_keys_fail(artifacts: Any, texts: torch.Tensor, tmp_path: Path, flavour: str) -> None:
    folder, quantized = artifacts(flavour)
    names = [float_name(f"{CORE}attn.{part}.weight", flavour) for part in ("c_q", "c_k")]
    query, key = (stored(folder, name) for name in names)
    mutant = shutil.copytree(folder, tmp_path / "mutant")
    edit(mutant, {names[0]: lambda array: key, names[1]: lambda array: query})
    assert not passes(mutant, flavour, quantized, texts)


@pytest.mark.parametrize("by", [-1, 1])
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_loop_count_off_by_one_fails(artifacts: Any, texts: torch.Tensor, flavour: str, by: int) -> None:
    class OffByOne(kind_of(flavour)):  # type: ignore[misc]
        def run(self, ids: Sequence[int], loops: int, *rest: Any, **more: Any) -> np.ndarray:
            return super().run(ids, loops + by, *rest, **{key: v for key, v in more.items() if key != "on_state"})

    folder, quantized = artifacts(flavour)
    assert not passes(folder, flavour, quantized, texts, OffByOne)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_shifted_cache_slot_fails(artifacts: Any, texts: torch.Tensor, flavour: str) -> None:
    class Shifted(kind_of(flavour)):  # type: ignore[misc]
        def run(self, *given: Any, **more: Any) -> np.ndarray:
            out = super().run(*given, **more)
            for key, cache in self._caches.items():
                if key.startswith("core_block"):
                    cache[:] = np.roll(cache, 1, axis=0)
            if flavour == "portable static":  # two recurrent layers follow one of the prelude
                names = [f"past_key_values.{layer}.key" for layer in (1, 3, 5)]
                turned = [self._grown[name] for name in names]
                self._grown |= dict(zip(names, [*turned[1:], turned[0]], strict=True))
            return out

    folder, quantized = artifacts(flavour)
    assert not passes(folder, flavour, quantized, texts, Shifted)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_rotation_off_by_one_position_fails(artifacts: Any, texts: torch.Tensor, tmp_path: Path, flavour: str) -> None:
    """Shifting every position alike changes no distance, so the first one stays."""
    folder, quantized = artifacts(flavour)
    mutant = shutil.copytree(folder, tmp_path / "mutant")

    def shift(table: np.ndarray) -> np.ndarray:
        return np.concatenate([table[:1], table[2:], table[-1:]])

    tables = ("rope.cos", "rope.sin") if flavour == "static" else ("rope.cosines", "rope.sines")
    edit(mutant, dict.fromkeys(tables, shift))
    assert not passes(mutant, flavour, quantized, texts)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_scale_with_a_flipped_sign_fails(artifacts: Any, texts: torch.Tensor, tmp_path: Path, flavour: str) -> None:
    folder, quantized = artifacts(flavour, "int8")
    mutant = shutil.copytree(folder, tmp_path / "mutant")

    def flip(scales: np.ndarray) -> np.ndarray:
        scales[5] *= -1
        return scales

    edit(mutant, {f"{CORE}mlp.fc.weight.scales.{'blocks' if flavour == 'static' else 'columns'}": flip})
    assert not passes(mutant, flavour, quantized, texts)
