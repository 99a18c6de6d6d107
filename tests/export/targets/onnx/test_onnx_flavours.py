"""The static form and the portable flavour on a trained model: finished artifacts pass, shifted caches do not.

Mutants of what is in the files: tests/export/gates/test_mutants.py and `make mutants`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
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


@pytest.mark.parametrize("preset", ["fp32", "int8"])
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_the_finished_artifact_passes(artifacts: Any, texts: torch.Tensor, flavour: str, preset: str) -> None:
    folder, quantized = artifacts(flavour, preset)
    assert passes(folder, flavour, quantized, texts)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_host_that_shifts_cache_slots_fails(artifacts: Any, texts: torch.Tensor, flavour: str) -> None:
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
