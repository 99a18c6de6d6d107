"""A package that a tool loads, cleans up by coremltools' default passes and saves is the same function, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from export.gates.lowering import lowering_gate
from export.gates.twins import Exact, Rewritten
from export.targets.coreml import writer as coreml
from export.targets.coreml.attention import Caches
from export.targets.coreml.exact import rewrite
from export.targets.coreml.host import PACKAGE, CoreMLHost
from export.targets.coreml.mil.interpreter import MilProgram
from export.targets.coreml.mil.program import Reference
from export.targets.host import CacheGeometry
from export.targets.registry import WriteOptions
from parcae_mobile import Parcae
from parcae_mobile.kv_cache import CacheSpec
from quantize import QuantizedModel

LOOPS, CONTEXT = 2, 48
REST = (("unrolled", "fp16"), ("stages", "fp32"), ("stages", "fp16"), ("while", "fp32"))


def write(quantized: QuantizedModel, folder: Path, form: Any, compute: Any) -> Path:
    """The package in `saved`, and in `again` as it is after the passes."""
    for name in ("saved", "again"):
        (folder / name).mkdir()
    loops: Any = LOOPS if form == "unrolled" else "dynamic"
    coreml.write(quantized, folder / "saved", WriteOptions(form, loops, LOOPS, CONTEXT, compute, "full", compute))
    rewrite(folder / "saved", folder / "again")
    return folder


def opened(folder: Path, form: str, model: Parcae) -> CoreMLHost:
    return CoreMLHost(folder, form, CacheGeometry.of(model.config, LOOPS, CONTEXT))


@pytest.mark.parametrize(
    ("form", "compute"),
    [
        ("unrolled", "fp32"),
        ("while", "fp16"),
        *(pytest.param(*rest, marks=pytest.mark.acceptance) for rest in REST),
    ],
)
def test_each_state_is_read_once_and_the_passes_change_no_bit(
    mini_model: Parcae,
    mini_ids: torch.Tensor,
    quantized: Callable[..., QuantizedModel],
    tmp_path: Path,
    form: str,
    compute: str,
) -> None:
    made = write(quantized(mini_model), tmp_path, form, compute)
    for function in MilProgram.open(made / "saved" / PACKAGE).functions.values():
        for state in function.states:
            done = [o.type for o in function.block.walk() if Reference(state.name) in o.inputs.get("input", ())]
            # A saved update is a write and a read of what was written, which loads as one operation again.
            assert done[0] == "read_state" and done.count("read_state") <= 1 + done.count("write_state"), state.name
    ids = mini_ids[0, :10].tolist()
    logits = []
    for name in ("saved", "again"):
        host = opened(made / name, form, mini_model)
        logits.append(np.concatenate([host.run(ids[:7], LOOPS), *(host.run([token], LOOPS) for token in ids[7:])]))
    assert np.array_equal(*logits)


@pytest.fixture
def read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each layer reads the caches by itself."""

    def anew(caches: Caches) -> list[Any]:
        caches.current = [caches.writer.op("read_state", input=state) for state in caches.states]
        return caches.current

    monkeypatch.setattr(Caches, "read", anew)


@pytest.mark.acceptance
@pytest.mark.usefixtures("read_anew")
def test_reads_anew_are_no_fault_of_a_while_loop_because_the_passes_merge_none(
    mini_model: Parcae, mini_ids: torch.Tensor, quantized: Callable[..., QuantizedModel], tmp_path: Path
) -> None:
    """What docs/mutants.md says of that column."""
    made = write(quantized(mini_model), tmp_path, "while", "fp32")
    ids, logits, reads = mini_ids[0, :10].tolist(), [], []
    for name in ("saved", "again"):
        host = opened(made / name, "while", mini_model)
        logits.append(np.concatenate([host.run(ids[:7], LOOPS), *(host.run([token], LOOPS) for token in ids[7:])]))
        block = MilProgram.open(made / name / PACKAGE).functions["main"].block
        reads.append(sum(operation.type == "read_state" for operation in block.walk()))
    assert np.array_equal(*logits) and reads[0] > reads[1]


@pytest.mark.usefixtures("read_anew")
def test_a_merged_state_read_is_found_after_the_passes_and_only_there(
    mini_model: Parcae, mini_ids: torch.Tensor, quantized: Callable[..., QuantizedModel], tmp_path: Path
) -> None:
    """Layers that each read a cache anew are right as saved; the passes merge their reads."""
    model = quantized(mini_model)
    made = write(model, tmp_path, "unrolled", "fp32")
    saved, again = (opened(made / name, "unrolled", mini_model) for name in ("saved", "again"))
    spec, texts = CacheSpec(dtype="fp32"), torch.cat([mini_ids[:, :25], mini_ids[:, 8:33]])
    assert lowering_gate(saved, mini_model, texts, (LOOPS,), "fp32", spec).passed
    rewritten = Rewritten("coremltools' default passes", (Exact(again, mini_model, spec, "fp32"),))
    verdict = lowering_gate(saved, mini_model, texts, (LOOPS,), "fp32", spec, rewritten=lambda: rewritten)
    assert not verdict.passed and not verdict.right_function
    assert all("(after coremltools' default passes)" in line for line in verdict.failures), verdict.failures
