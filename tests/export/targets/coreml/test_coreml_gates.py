"""The lowering gate on a trained model: Core ML packages pass, overflow is refused, damage ends in a clear error.

Mutants of what is in a package: tests/export/gates/test_mutants.py and `make mutants`.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from export.beside import ALONE, Beside
from export.gates.lowering import LoweringVerdict, lowering_gate
from export.gates.twins import Exact, budget_name
from export.gates.verify import verify_artifact
from export.targets.coreml import writer as coreml
from export.targets.coreml.exact import ExactHost, reference
from export.targets.coreml.host import PACKAGE, CoreMLHost
from export.targets.coreml.mil.errors import BlobError, DeclarationError, MilError, UnknownOperatorError
from export.targets.coreml.mil.files.schema import model_message
from export.targets.coreml.mil.interpreter import MilProgram
from export.targets.host import CacheGeometry, Host
from export.targets.registry import WriteOptions
from parcae_mobile import Parcae
from parcae_mobile.errors import ChecksumError
from parcae_mobile.kv_cache import CacheSpec
from parcae_mobile.parity import greedy
from quantize import QuantizedModel

CONTEXT, SHORT, LOOPS = 96, 36, 2
SPECIFICATION = Path(PACKAGE) / "Data" / "com.apple.CoreML" / "model.mlmodel"
WEIGHTS = SPECIFICATION.parent / "weights" / "weight.bin"
Artifacts = Callable[..., tuple[Path, QuantizedModel]]


@pytest.fixture(scope="module")
def texts(data: Path) -> torch.Tensor:
    held_out = np.load(data / "tiny-trained" / "heldout_tokens.npy").astype(np.int64)
    return torch.from_numpy(held_out[: 2 * 29].reshape(2, 29))


@pytest.fixture(scope="module")
def artifacts(
    trained: Parcae, quantized: Callable[..., QuantizedModel], tmp_path_factory: pytest.TempPathFactory
) -> Artifacts:
    made: dict[tuple[str, ...], tuple[Path, QuantizedModel]] = {}

    def get(
        form: Any, preset: str = "fp32", compute: Any = "fp32", kv_dtype: str | None = None
    ) -> tuple[Path, QuantizedModel]:
        key = (form, preset, compute, kv_dtype or compute)
        if key not in made:
            folder, model = tmp_path_factory.mktemp(form), quantized(trained, preset)
            static = form == "unrolled"
            loops, most = (LOOPS, LOOPS) if static else ("dynamic", LOOPS + 1)
            context = CONTEXT if static else SHORT  # of a longer one a host of SHORT could take no chunk but one token
            coreml.write(model, folder, WriteOptions(form, loops, most, context, compute, "full", key[-1]))
            made[key] = folder, model
        return made[key]

    return get


def opened(
    folder: Path, form: str, model: Parcae, context: int = SHORT, kind: type[CoreMLHost] = CoreMLHost
) -> CoreMLHost:
    """A host that believes in a short context, so that the gate continues by few tokens."""
    return kind(folder, form, CacheGeometry.of(model.config, LOOPS + (form != "unrolled"), context))


def judge(
    host: Host,
    quantized: QuantizedModel,
    texts: torch.Tensor,
    compute: str = "fp32",
    kv_dtype: str | None = None,
    beside: Beside = ALONE,
) -> LoweringVerdict:
    """Both questions, if the type rounds: the function by the same package in fp32 arithmetic."""
    spec, exact = CacheSpec(dtype=kv_dtype or compute), None
    if compute == "fp16" and isinstance(host, CoreMLHost):
        twin = ExactHost(host.folder, host.loop_form, host.geometry)
        exact = Exact(twin, reference(quantized, compute), CacheSpec(), "fp32")
    budget = budget_name(compute, spec.dtype)
    return lowering_gate(host, quantized.model, texts, (LOOPS,), budget, spec, exact=exact, beside=beside)


@pytest.mark.parametrize("form", ["unrolled", "stages", "while"])
def test_packages_pass_in_both_types(artifacts: Artifacts, texts: torch.Tensor, form: str) -> None:
    for preset, compute in (("fp32", "fp32"), ("int4" if form == "while" else "int4-palette", "fp16")):
        folder, quantized = artifacts(form, preset, compute)
        host = opened(folder, form, quantized.model)
        verdict = judge(host, quantized, texts, compute)
        assert verdict.passed, verdict.failures
        assert not host._engine.program._constants._literals, "decoded weights are let go of after the last question"
        distance = verdict.by_loops[LOOPS]
        assert distance.kl_mean < (1e-10 if compute == "fp32" else 1e-5) and distance.top1 == 1
        assert compute == "fp16" or distance.max_abs < 1e-4
        assert verdict.greedy_equal == {LOOPS: 20}
        assert [len(errors) for errors in verdict.state_errors.values()] == [
            {"unrolled": 0, "stages": 2, "while": 1}[form]
        ]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forks here")
def test_a_second_process_beside_the_gate_changes_no_figure(artifacts: Artifacts, texts: torch.Tensor) -> None:
    folder, _ = artifacts("unrolled", "int4-palette", "fp16")
    _, other = artifacts("unrolled", "fp32", "fp32")
    with Beside(spare=True) as beside:
        verdicts = [
            judge(opened(folder, "unrolled", other.model), other, texts, "fp16", None, each) for each in (beside, ALONE)
        ]
    assert verdicts[0] == verdicts[1] and verdicts[0].wrong and verdicts[0].too_costly
    assert verdicts[0].by_loops and verdicts[0].largest_fp16[LOOPS] > 0


def test_fp32_arithmetic_over_an_fp16_cache_keeps_a_budget_of_its_own(
    artifacts: Artifacts, texts: torch.Tensor
) -> None:
    folder, quantized = artifacts("unrolled", "fp32", "fp32", "fp16")
    verdict = judge(opened(folder, "unrolled", quantized.model), quantized, texts, "fp32", "fp16")
    assert verdict.passed, verdict.failures
    assert verdict.budget["function.max_abs"] == 5e-3


@pytest.mark.parametrize("compute", ["fp32", "fp16"])
def test_greedy_tokens_by_the_calls_of_swift_transformers(
    artifacts: Artifacts, texts: torch.Tensor, compute: str
) -> None:
    """One prediction for the prompt, one for each token after it, all on one state and with no position passed."""
    folder, quantized = artifacts("unrolled", "fp32", compute)
    program = MilProgram.open(folder / PACKAGE)
    state, ids, made = program.make_state(), texts[:1, :12].int(), []
    for _ in range(64 if compute == "fp32" else 32):
        logits = program.predict({"inputIds": ids}, state)["logits"]
        made.append(int(logits[0, -1, : quantized.model.config.vocab_size].argmax()))
        ids = torch.tensor([made[-1:]], dtype=torch.int32)
    model = quantized.model
    assert made == greedy(model, texts[0, :12].tolist(), len(made), LOOPS)  # fp32, whatever the package computes in
    assert float(state["position"]) == 12 + len(made) - 1


def overflowing(small: Callable[..., Parcae], **changes: Any) -> Parcae:
    """ReLU2 activations beyond 65504 in the recurrent block, brought back by the next matrix."""
    model = small(**changes)
    with torch.no_grad():
        model.transformer["core_block"][0].mlp.fc.weight.mul_(4000)
        model.transformer["core_block"][0].mlp.proj.weight.mul_(4000.0**-2)
    return model


@pytest.mark.parametrize(
    "form", [*(pytest.param(form, marks=pytest.mark.acceptance) for form in ("unrolled", "stages")), "while"]
)
def test_a_model_that_overflows_fp16_is_refused_and_the_reason_named(
    small: Callable[..., Parcae], quantized: Callable[..., QuantizedModel], tmp_path: Path, form: Any
) -> None:
    wide, verdicts = quantized(overflowing(small)), {}
    ids = torch.randint(0, 60, (2, 29), generator=torch.Generator().manual_seed(1))
    loops, most = (LOOPS, LOOPS) if form == "unrolled" else ("dynamic", LOOPS + 1)
    for compute in ("fp16", "fp32"):
        (tmp_path / compute).mkdir()
        coreml.write(wide, tmp_path / compute, WriteOptions(form, loops, most, 40, compute, "full", compute))
        verdicts[compute] = judge(opened(tmp_path / compute, form, wide.model), wide, ids, compute)
    assert not verdicts["fp16"].passed
    line = r"T=2: cast '\w*cast_\d+' of function \w+ gives inf, too near fp16's end at 65504"
    assert re.fullmatch(line + "; export with --compute fp32", verdicts["fp16"].failures[0]), verdicts["fp16"].failures
    assert verdicts["fp16"].to_verdict().by_loops[str(LOOPS)]["largest_fp16"] == float("inf")
    assert not any("fp16's end" in line for line in verdicts["fp32"].failures)  # the remedy is one


def test_values_that_no_fp16_cache_holds_are_refused_under_fp32_too(
    small: Callable[..., Parcae], quantized: Callable[..., QuantizedModel], tmp_path: Path
) -> None:
    model = small()
    with torch.no_grad():
        model.transformer["core_block"][0].attn.c_v.weight.mul_(3e5)
        model.transformer["core_block"][0].attn.c_proj.weight.div_(3e5)
    wide = quantized(model)
    coreml.write(wide, tmp_path, WriteOptions("unrolled", LOOPS, LOOPS, 40, "fp32", "full", "fp32"))
    ids = torch.randint(0, 60, (2, 29), generator=torch.Generator().manual_seed(1))
    verdict = judge(opened(tmp_path, "unrolled", model), wide, ids)
    assert not verdict.passed and "no cache of this target holds it" in verdict.failures[0], verdict.failures


def test_the_command_does_not_publish_an_overflowing_model(
    cli: Callable[..., Any], mini: Path, text: Path, tmp_path: Path
) -> None:
    wide = shutil.copytree(mini, tmp_path / "wide")
    tensors = load_file(wide / "model.safetensors")
    tensors["transformer.core_block.0.mlp.fc.weight"] *= 4000
    tensors["transformer.core_block.0.mlp.proj.weight"] *= 4000.0**-2
    save_file(tensors, wide / "model.safetensors")
    made = ("--target", "coreml", "--loops", 1, "--quant", "fp32", "--kv", "full", "--context", 36, "--out", tmp_path)
    ran = cli("--model", wide, "--text", text, "--calibration", text, *made, "--json")
    assert ran.code == 4
    (artifact,) = ran.json["artifacts"]
    assert artifact["artifact"].endswith(".failed") and not artifact["lowering"]["passed"]
    assert any("gives inf, too near fp16's end" in line and "--compute fp32" in line for line in artifact["problems"])


def damaged(folder: Path, to: Path, change: Callable[[Any], None]) -> Path:
    shutil.copytree(folder, to)
    message = model_message()()
    message.ParseFromString((to / SPECIFICATION).read_bytes())
    change(message)
    (to / SPECIFICATION).write_bytes(message.SerializeToString())
    return to


def operations(message: Any) -> Any:
    (block,) = message.mlProgram.functions["main"].block_specializations.values()
    return block.operations


def test_damage_ends_in_an_error_that_names_it(artifacts: Artifacts, tmp_path: Path) -> None:
    folder, quantized = artifacts("unrolled")

    def unknown(message: Any) -> None:
        next(op for op in operations(message) if op.type == "relu").type = "relux"

    def misshapen(message: Any) -> None:
        operation = next(op for op in operations(message) if op.type == "linear")
        operation.outputs[0].type.tensorType.dimensions[2].constant.size += 1

    with pytest.raises(UnknownOperatorError, match="relux"):
        opened(damaged(folder, tmp_path / "unknown", unknown), "unrolled", quantized.model)
    with pytest.raises(DeclarationError, match="linear"):
        opened(damaged(folder, tmp_path / "shape", misshapen), "unrolled", quantized.model).run([1, 2], LOOPS)
    missing = shutil.copytree(folder, tmp_path / "missing")
    (missing / WEIGHTS).unlink()
    with pytest.raises(MilError, match=r"weight\.bin"):
        opened(missing, "unrolled", quantized.model).run([1, 2], LOOPS)
    short = shutil.copytree(folder, tmp_path / "short")
    (short / WEIGHTS).write_bytes((short / WEIGHTS).read_bytes()[:-4000])
    with pytest.raises(BlobError, match="weight.bin"):
        opened(short, "unrolled", quantized.model).run([1, 2], LOOPS)


def test_the_command_exports_verifies_and_finds_an_altered_byte(
    cli: Callable[..., Any], mini: Path, text: Path, tmp_path: Path
) -> None:
    made = ("--target", "coreml", "--loops", 2, "--quant", "fp32", "--compute", "fp32", "--kv", "full")
    read = ("--model", mini, "--text", text, "--calibration", text)
    ran = cli(*read, *made, "--context", 70, "--out", tmp_path, "--json")
    assert ran.code == 0, ran.err
    (artifact,) = ran.json["artifacts"]
    assert artifact["verified_by"] in ("mil-interpreter", "coreml") and artifact["compute"] == "fp32"
    assert artifact["kv"]["dtype"] == "fp32" and artifact["kv"]["bytes_per_token"] == {"2": 4 * 2 * 64 * 4}
    assert artifact["lowering"]["by_loops"]["2"]["max_abs"] < 1e-4
    assert artifact["certificate"]["injection_matrix_equal"] is True
    assert artifact["lowering"]["by_loops"]["2"]["largest_fp16"] > 0
    folder = Path(artifact["artifact"])
    assert verify_artifact(folder).self_test[2].kl_mean < 1e-4
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(ChecksumError, match="weight.bin"):
        verify_artifact(folder)


def test_palettes_are_for_core_ml_alone(cli: Callable[..., Any], mini: Path, text: Path, tmp_path: Path) -> None:
    arguments = ("--model", mini, "--quant", "int4-palette", "--kv", "full", "--no-verify", "--out", tmp_path)
    for target in ("onnx", "executorch"):
        ran = cli(*arguments, "--target", target)
        assert ran.code == 2 and ran.line.endswith(f"{target} has no palettes, only integers with scales; use int4")
    ran = cli(*arguments, "--calibration", text, "--target", "coreml", "--json")
    (artifact,) = ran.json["artifacts"]
    table = json.loads((Path(artifact["artifact"]) / "manifest.json").read_text())["quantization"]["tensors"]
    entry = table["transformer.core_block.0.mlp.fc.weight"]
    assert entry == {"bits": 4, "group_size": 0, "symmetric": False, "shape": [64, 64], "palette_rows": 16}
    assert table["transformer.wte.weight"]["palette_rows"] is None


def test_an_fp32_cache_is_for_fp32_arithmetic(cli: Callable[..., Any], mini: Path, tmp_path: Path) -> None:
    ran = cli("--model", mini, "--target", "coreml", "--kv-dtype", "fp32", "--out", tmp_path)
    assert ran.code == 2 and "keys and values of --compute fp16 are fp16; use --kv-dtype fp16" in ran.line
