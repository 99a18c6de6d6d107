"""The full matrix of Core ML packages on the embedded model: `make acceptance`.

`pytest -m acceptance -rP` on this file prints the rows of the tables in docs/coreml.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from export.gates.lowering import lowering_gate
from export.gates.twins import budget_name
from export.targets.coreml import writer as coreml
from export.targets.coreml.host import PACKAGE, CoreMLHost
from export.targets.coreml.mil.interpreter import MilProgram
from export.targets.host import CacheGeometry
from export.targets.registry import WriteOptions
from parcae_mobile import load_model
from parcae_mobile.kv_cache import CacheSpec
from parcae_mobile.parity import compare, greedy
from parcae_mobile.text import EMBEDDED_MODEL, text_ids
from quantize import QuantizedModel, load_recipe, quantize_with

CONTEXT, MOST, TEXTS, LENGTH = 96, 16, 8, 64
DYNAMIC = [(form, loops) for form in ("stages", "while") for loops in (1, 2, 4, 8, 16)]
CASES = [*(("unrolled", loops) for loops in (1, 4, 8)), *DYNAMIC]
WEIGHTS = [("fp32", "fp32"), ("fp32", "fp16"), ("int8", "fp16"), ("int4", "fp16"), ("int4-palette", "fp16")]
Made = tuple[CoreMLHost, QuantizedModel]

pytestmark = pytest.mark.acceptance


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Made]:
    """A package of each kind, written when it is first asked for: `made("stages", 8, "int4", "fp16")`."""
    models: dict[str, QuantizedModel] = {}
    packages: dict[tuple[str, int, str, str], CoreMLHost] = {}

    def get(form: Any, loops: int, preset: str, compute: Any) -> Made:
        if preset not in models:
            models[preset] = quantize_with(load_model(EMBEDDED_MODEL), load_recipe(preset), "rtn")
        model, static = models[preset], form == "unrolled"
        most = loops if static else MOST
        key = (form, most, preset, compute)
        if key not in packages:
            folder = tmp_path_factory.mktemp("coreml")
            options = WriteOptions(form, loops if static else "dynamic", most, CONTEXT, compute, "full", compute)
            coreml.write(model, folder, options)
            packages[key] = CoreMLHost(folder, form, CacheGeometry.of(model.model.config, most, CONTEXT))
        return packages[key], model

    return get


@pytest.fixture(scope="module")
def texts() -> torch.Tensor:
    return text_ids(EMBEDDED_MODEL, "heldout").windows(TEXTS, LENGTH)


@pytest.mark.parametrize(("form", "loops"), CASES)
@pytest.mark.parametrize(("preset", "compute"), WEIGHTS)
def test_the_lowering_gate(
    made: Callable[..., Made], texts: torch.Tensor, preset: str, compute: str, form: str, loops: int
) -> None:
    host, model = made(form, loops, preset, compute)
    host._engine.largest = 0.0
    verdict = lowering_gate(host, model.model, texts, (loops,), budget_name(compute, compute), CacheSpec(dtype=compute))
    distance, equal, largest = verdict.by_loops[loops], verdict.greedy_equal.get(loops), verdict.largest_fp16[loops]
    print(
        f"| {form} | {preset}, {compute} | {loops} | {distance.max_abs:.1e} | {distance.kl_mean:.1e} | "
        f"{distance.top1:.1%} | {equal} | {largest:.0f} |"
    )
    assert verdict.passed, verdict.failures


@pytest.mark.parametrize(("form", "loops"), CASES)
@pytest.mark.parametrize("compute", ["fp32", "fp16"])
def test_a_text_in_one_piece_is_the_text_token_by_token_and_the_eager_forward_without_a_cache(
    made: Callable[..., Made], texts: torch.Tensor, compute: str, form: str, loops: int
) -> None:
    host, model = made(form, loops, "fp32", compute)
    ids = texts[1, :-1].tolist()
    host.reset()
    whole = torch.from_numpy(host.run(ids, loops))
    host.reset()
    stepwise = torch.from_numpy(np.concatenate([host.run([token], loops) for token in ids]))
    with torch.no_grad():
        forward = model.model(torch.tensor([ids]), loops)[0]
    between, from_eager = compare(whole, stepwise), compare(forward, stepwise)
    print(
        f"| {form} | {compute} | {loops} | {between.max_abs:.1e} | {between.kl_mean:.1e} | "
        f"{from_eager.max_abs:.1e} | {from_eager.kl_mean:.1e} |"
    )
    if compute == "fp32":
        assert between.max_abs < 1e-4 and from_eager.max_abs < 1e-4
    assert between.kl_mean < 1e-4 and from_eager.kl_mean < 1e-4


@pytest.mark.parametrize("loops", [1, 4, 8])
@pytest.mark.parametrize("compute", ["fp32", "fp16"])
def test_greedy_tokens_by_the_calls_of_swift_transformers_are_those_of_eager_fp32(
    made: Callable[..., Made], texts: torch.Tensor, compute: str, loops: int
) -> None:
    """One prediction for the prompt, one for each token after it, all on one state and with no position passed."""
    host, model = made("unrolled", loops, "fp32", compute)
    program = MilProgram.open(host.folder / PACKAGE)
    state, ids, tokens = program.make_state(), texts[:1, :16].int(), []
    for _ in range(64):
        logits = program.predict({"inputIds": ids}, state)["logits"]
        tokens.append(int(logits[0, -1, : model.model.config.vocab_size].argmax()))
        ids = torch.tensor([tokens[-1:]], dtype=torch.int32)
    expected = greedy(model.model, texts[0, :16].tolist(), 64, loops)
    equal = next((place for place in range(64) if tokens[place] != expected[place]), 64)
    print(f"| {compute} | {loops} | {equal} |")
    assert equal >= (64 if compute == "fp32" else 32)
