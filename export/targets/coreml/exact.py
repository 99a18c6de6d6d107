"""A Core ML package with fp16's rounding out of the way: the interpreter runs the same program in fp32 arithmetic.

    host, model = open_exact(folder, manifest), reference(quantized, "fp16")

Results that the package declares fp16 stay as they were computed, states too. What is left of fp16 is what the package
stores, so the eager model it is compared with has weights and rotation rounded to fp16. In the forms whose loop lies
in the program its operations are watched: a first state is put in the place of zeros, states after each loop are seen.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from export.targets.coreml.engine import Engine, Interpreter
from export.targets.coreml.host import PACKAGE, CoreMLHost
from export.targets.coreml.mil.program import Operation
from export.targets.host import CacheGeometry, Chunk, Host
from parcae_mobile.heap import give_back_heap
from parcae_mobile.kv_cache import KVCache, Slot
from parcae_mobile.manifest import Manifest
from parcae_mobile.model import Parcae
from quantize.apply import QuantizedModel

STILL_ROUNDS = False
KEPT_FP32 = ("norm", "ln_", "A_log", "dt_bias")  # parameters with these in their names are stored in fp32


def open_exact(folder: Path, manifest: Manifest, threads: int = 0) -> Host:
    """The package in the interpreter, on fp32 arithmetic, on any machine."""
    if threads:
        torch.set_num_threads(threads)
    return ExactHost(folder, manifest.loop_form, CacheGeometry.from_manifest(manifest))


@torch.no_grad()
def reference(quantized: QuantizedModel, compute: str) -> Parcae:
    """The eager model with the values that a package of this compute type stores; it shares those that stay."""
    if compute != "fp16":
        return quantized.model
    with torch.device("meta"):
        model = NormaliseFirst(quantized.config)
    stored = {
        name: parameter
        if name in quantized.stored or any(part in name for part in KEPT_FP32)
        else parameter.half().float()
        for name, parameter in quantized.model.named_parameters()
    }
    if quantized.config.tie_embeddings:
        stored["lm_head.weight"] = stored["transformer.wte.weight"]
    model.load_state_dict(stored, assign=True)
    model.rope = quantized.model.rope.half().float()
    return model.eval().requires_grad_(False)


def rewrite(folder: Path, to: Path) -> str | None:
    """The package after coremltools' default passes, as tools write it that load, change and save a package."""
    from export.targets.coreml.package import reprocess

    reprocess(folder / PACKAGE, to / PACKAGE)
    gc.collect()  # operations and their arguments point at each other
    give_back_heap()
    return "coremltools' default passes"


class NormaliseFirst(Parcae):
    """The model with the packages' order of QK-norm and RoPE. A table rounded to fp16 is no rotation any more, and a
    norm after it would take that back."""

    def slots(self, stage: str, input_ids: Tensor, cache: KVCache | None = None, loop: int = 0) -> Sequence[Slot]:
        return [_NormaliseFirst(slot) for slot in super().slots(stage, input_ids, cache, loop)]


class _NormaliseFirst:
    """A slot that is given normalised queries and keys."""

    def __init__(self, slot: Slot) -> None:
        self.slot = slot

    def attend(self, query: Tensor, key: Tensor, value: Tensor, normalise: bool) -> Tensor:
        if normalise:
            query, key = (functional.rms_norm(x, (x.shape[-1],)) for x in (query, key))
        return self.slot.attend(query, key, value, False)


class Unrounded(Interpreter):
    """The interpreter on fp32 arithmetic; `substitutes` stand for results of operations, `watch` sees all others."""

    def __init__(self, package: Path) -> None:
        self.substitutes: Mapping[str, Tensor] = {}
        self.watch: Callable[[Operation, tuple[Tensor, ...]], None] | None = None
        super().__init__(package)

    def reset(self) -> None:
        self.state = self.program.make_state(dtype=torch.float32)

    def predict(self, function: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        outputs = self.program.predict(
            inputs, self.state, function, observer=self.watch, rounds=False, substitutes=self.substitutes
        )
        return {name: tensor.numpy() for name, tensor in outputs.items()}


class ExactHost(CoreMLHost):
    """One package on fp32 arithmetic. Not thread-safe."""

    _engine: Unrounded

    def open_engine(self, package: Path) -> Engine:
        return Unrounded(package)

    def __init__(self, folder: Path, loop_form: str, geometry: CacheGeometry) -> None:
        super().__init__(folder, loop_form, geometry)
        self.takes_state = True

    def _run_whole(self, chunk: Chunk) -> np.ndarray:
        engine, shape = self._engine, (1, chunk.length, self.geometry.state_width)
        if chunk.state is not None:
            operations = engine.program.functions["main"].block.walk()
            zeros = next(operation.name for operation in operations if operation.type == "fill_like")
            engine.substitutes = {zeros: torch.from_numpy(chunk.state)}
        seen: list[np.ndarray] = []
        part = ""

        def watch(operation: Operation, results: tuple[Tensor, ...]) -> None:
            """The last result of a loop that has a state's shape is the state: a residual sum ends the block."""
            nonlocal part
            if not operation.name.startswith("recur"):
                return
            name = "_".join(operation.name.split("_")[:2])
            if operation.type == "less" if self.loop_form == "while" else name != part:
                part = name
                seen.append(np.zeros(0, np.float32))
            if results and tuple(results[0].shape) == shape and results[0].is_floating_point():
                seen[-1] = results[0].float().numpy().copy()

        engine.watch = watch
        try:
            logits = super()._run_whole(replace(chunk, on_state=None))
        finally:
            engine.substitutes, engine.watch = {}, None
        if chunk.on_state is not None:
            for loop, state in enumerate(state for state in seen if state.size):
                chunk.on_state(loop, state)
        return logits
