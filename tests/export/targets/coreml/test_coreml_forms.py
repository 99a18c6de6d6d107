"""Core ML packages of all three forms compute what the eager model does, hold our integers and repeat bit for bit."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from export.targets.coreml import lowering as coreml_lowering
from export.targets.coreml import writer as coreml
from export.targets.coreml.host import PACKAGE, CoreMLHost
from export.targets.coreml.mil.interpreter import MilProgram
from export.targets.host import CacheGeometry
from export.targets.registry import WriteOptions
from parcae_mobile import KVCache, Parcae, load_model
from parcae_mobile.errors import ToolMissingError, UsageError
from quantize import QuantizedModel, quantize_with
from quantize.palette import PaletteTensor
from quantize.recipe import parse_recipe

FORMS = ("unrolled", "stages", "while")
# What all forms have from one source (cache geometry, how a cache is stored) is tried on one of them.
ONE_FORM = ("stages", *(pytest.param(form, marks=pytest.mark.acceptance) for form in ("unrolled", "while")))
CONTEXT, HALF = 72, torch.float16
Write = Callable[..., CoreMLHost]
Quantize = Callable[..., QuantizedModel]


@pytest.fixture(scope="module")
def write(tmp_path_factory: pytest.TempPathFactory) -> Write:
    """Write a package, once, and open it anew: `write(quantized, "stages", "fp32", loops=3)`."""
    written: dict[tuple[object, ...], Path] = {}

    def make(
        quantized: QuantizedModel,
        form: Any,
        compute: Any = "fp32",
        loops: int = 3,
        kv: str = "full",
        kv_dtype: str | None = None,
    ) -> CoreMLHost:
        context = min(CONTEXT, quantized.model.config.context)
        static = form == "unrolled"
        options = WriteOptions(form, loops if static else "dynamic", loops, context, compute, kv, kv_dtype or compute)
        key = values_of(quantized), options
        if key not in written:
            written[key] = tmp_path_factory.mktemp("coreml")
            coreml.write(quantized, written[key], options)
        return CoreMLHost(written[key], form, CacheGeometry.of(quantized.model.config, loops, context, kv))

    return make


def values_of(quantized: QuantizedModel) -> str:
    """The digest of a model's shape, of its values and of how they are stored."""
    digest = hashlib.sha256(f"{quantized.model.config}{quantized.recipe}".encode())
    for name, parameter in quantized.model.named_parameters():
        digest.update(name.encode() + parameter.detach().numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def eager(model: Parcae, ids: torch.Tensor, loops: int, pieces: list[int], **cache: Any) -> torch.Tensor:
    held = KVCache(model.config, 3, **cache)
    return torch.cat([model(piece, loops, cache=held) for piece in ids.split(pieces, dim=1)], 1)[0]


def run(host: CoreMLHost, ids: torch.Tensor, loops: int, pieces: list[int]) -> torch.Tensor:
    host.reset()
    return torch.from_numpy(np.concatenate([host.run(piece[0].tolist(), loops) for piece in ids.split(pieces, dim=1)]))


@pytest.mark.parametrize("form", FORMS)
def test_logits_are_the_eager_models_in_one_piece_and_token_by_token(
    mini_model: Parcae, quantized: Quantize, write: Write, mini_ids: torch.Tensor, form: str
) -> None:
    host, ids = write(quantized(mini_model), form), mini_ids[:, :12]
    for loops in (3,) if form == "unrolled" else (1, 2, 3):
        for pieces in ([12], [7, 4, 1], [1] * 12):
            expected = eager(mini_model, ids, loops, pieces)
            torch.testing.assert_close(run(host, ids, loops, pieces), expected, atol=2e-5, rtol=1e-5)


# How a matrix is stored is the same in every form.
STORED = [("stages", "int4"), ("while", "int8"), ("stages", "int4-palette")]
EVERY = [(form, preset) for form in FORMS for preset in ("int4", "int8", "int4-palette")]


@pytest.mark.parametrize(
    ("form", "preset"),
    [*STORED, *(pytest.param(*pair, marks=pytest.mark.acceptance) for pair in EVERY if pair not in STORED)],
)
def test_fp16_is_near_and_integers_are_those_of_the_quantized_model(
    mini_model: Parcae, quantized: Quantize, write: Write, mini_ids: torch.Tensor, form: str, preset: str
) -> None:
    model = quantized(mini_model, preset)
    host = write(model, form, "fp16")
    logits = run(host, mini_ids, 3, [30, 10])
    expected = eager(model.model, mini_ids, 3, [30, 10], dtype=HALF)
    torch.testing.assert_close(logits, expected, atol=2e-2, rtol=2e-2)
    program = MilProgram.open(host.folder / PACKAGE)
    names, seen = {coreml_name(name): name for name in model.stored}, set()
    for function in program.functions:
        for operation in program.constants(function):
            if not operation.type.startswith("constexpr"):
                continue
            name = names[operation.name]
            stored = model.stored[name]
            if isinstance(stored, PaletteTensor):
                assert operation.type == "constexpr_lut_to_dense"
                assert torch.equal(program.stored(operation, "indices"), stored.indices)
                assert torch.equal(program.stored(operation, "lut")[:, 0, :, 0].float(), stored.values)
            else:
                assert operation.type == "constexpr_blockwise_shift_scale"
                assert torch.equal(program.stored(operation, "data").to(torch.int8), stored.integers)
                assert torch.equal(program.stored(operation, "scale").float(), stored.scales)
            meant = stored.dequantize().half()  # an integer times its scale is rounded to the compute type
            assert torch.equal(program.constant(operation.name, function), meant)
            seen.add(name)
    assert set(model.stored) - seen == {"value_embeds.0.weight"}  # a table that no layer reads


def coreml_name(name: str) -> str:
    return name.replace(".", "_")


def test_norms_gates_injection_and_rotation_stay_float(
    mini_model: Parcae, quantized: Quantize, write: Write, mini_ids: torch.Tensor
) -> None:
    host = write(quantized(mini_model, "int4"), "unrolled", "fp16")
    program = MilProgram.open(host.folder / PACKAGE)
    packed = {op.name for op in program.constants() if op.type.startswith("constexpr")}
    floats = {op.name: op.outputs[0].type.dtype.name for op in program.constants() if op.type == "const"}
    assert not any(word in name for name in packed for word in ("norm", "ve_gate", "adapter", "rope", "ln_"))
    for name in ("transformer_adapter_decay_fp32", "transformer_adapter_dt_fp32"):
        assert floats[name] == "fp32"
    assert floats["transformer_adapter_B"] == "fp16" and floats["rope_cos"] == "fp16"
    injection = mini_model.transformer["adapter"]
    stored = coreml.read_injection(host.folder)
    assert (
        stored is not None and torch.equal(stored.decay, injection.decay()) and torch.equal(stored.dt, injection.dt())
    )
    assert torch.equal(stored.matrix, injection.B.half())


def test_weights_are_stored_once_whatever_the_loop_count_and_the_number_of_functions(
    mini_model: Parcae, quantized: Quantize, write: Write
) -> None:
    model = quantized(mini_model, "int4")
    hosts = [write(model, "unrolled", "fp16", 1), write(model, "unrolled", "fp16", 4), write(model, "stages", "fp16")]
    sizes = [weight_file(host).stat().st_size for host in hosts]
    assert sizes[0] == sizes[1] and sizes[2] < 1.01 * sizes[0] + 2048
    assert hashlib.sha256(weight_file(hosts[0]).read_bytes()).digest() == hash_of(weight_file(hosts[1]))


def weight_file(host: CoreMLHost) -> Path:
    return host.folder / PACKAGE / "Data" / "com.apple.CoreML" / "weights" / "weight.bin"


def hash_of(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


@pytest.mark.acceptance
@pytest.mark.parametrize("form", ["unrolled", "stages"])
def test_another_process_writes_the_same_bytes(
    mini: Path, quantized: Quantize, write: Write, tmp_path: Path, form: str
) -> None:
    host = write(quantized(load_model(mini), "int8"), form, "fp16")
    script = (
        "import sys; from pathlib import Path\n"
        "from export.targets.registry import WriteOptions; from export.targets.coreml import writer as coreml\n"
        "from parcae_mobile import load_model; from quantize import load_recipe, quantize_with\n"
        "model = quantize_with(load_model(sys.argv[1]), load_recipe('int8'), 'rtn')\n"
        "loops = 3 if sys.argv[3] == 'unrolled' else 'dynamic'\n"
        "coreml.write(model, Path(sys.argv[2]), WriteOptions(sys.argv[3], loops, 3, 72, 'fp16', 'full', 'fp16'))\n"
    )
    root = Path(__file__).parents[4]
    environment = {"PYTHONHASHSEED": "77", "PATH": "", "PYTHONPATH": str(root)}
    arguments = [sys.executable, "-c", script, str(mini), str(tmp_path), form]
    ran = subprocess.run(arguments, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "" and ran.stderr == ""  # coremltools talks to nobody
    folder = host.folder
    written = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert [path.name for path in written] == ["model.mlmodel", "weight.bin", "Manifest.json"]
    for path in written:
        content = (folder / path).read_bytes()
        assert content == (tmp_path / path).read_bytes(), path
        assert b".py" not in content and str(folder).encode() not in content


def test_the_static_form_is_what_swift_transformers_asks_for(
    mini_model: Parcae, quantized: Quantize, write: Write
) -> None:
    host = write(quantized(mini_model), "unrolled", "fp16", 2)
    program = MilProgram.open(host.folder / PACKAGE)
    description = program.package.spec.description
    (ids,) = description.input
    ranges = [(item.lowerBound, item.upperBound) for item in ids.type.multiArrayType.shapeRange.sizeRanges]
    assert (
        ids.name == "inputIds"
        and ranges == [(1, 1), (1, CONTEXT)]
        and not ids.type.multiArrayType.enumeratedShapes.shapes
    )
    assert {state.name for state in description.state} == {"keyCache", "valueCache", "position"}
    assert [output.name for output in description.output] == ["logits"]
    assert program.metadata["co.huggingface.exporters.name"] == mini_model.config.name
    signature = coreml.signatures(host.folder)["model.mlpackage:main"]
    assert [(port.name, port.shape) for port in signature.outputs] == [("logits", [1, "sequence", 320])]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("policy", ["shared", "first1+shared"])
def test_loops_that_share_cache_slots_decode_as_the_eager_cache_of_that_policy(
    mini_model: Parcae, quantized: Quantize, write: Write, mini_ids: torch.Tensor, form: str, policy: str
) -> None:
    host, pieces = write(quantized(mini_model), form, kv=policy), [20, 1, 1, 1]
    ids = mini_ids[:, :23]
    expected = eager(mini_model, ids, 3, pieces, policy=policy)
    torch.testing.assert_close(run(host, ids, 3, pieces), expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("form", ONE_FORM)
def test_a_shared_cache_takes_the_same_bytes_at_every_loop_count(
    mini_model: Parcae, quantized: Quantize, write: Write, form: str
) -> None:
    model, sizes = quantized(mini_model), {}
    for policy in ("full", "shared"):
        for loops in (1, 16):
            host = write(model, form, "fp16", loops, kv=policy)
            sizes[policy, loops] = host.cache_bytes
            per_token = host.geometry.bytes_per_token(loops, item=2)
            assert host.cache_bytes == per_token * host.geometry.context
    assert sizes["shared", 1] == sizes["shared", 16] == sizes["full", 1] < sizes["full", 16]


@pytest.mark.parametrize("form", ONE_FORM)
def test_an_fp32_cache_is_two_halves_of_which_the_second_is_what_rounding_left(
    mini_model: Parcae, quantized: Quantize, write: Write, mini_ids: torch.Tensor, form: str
) -> None:
    ids, errors = mini_ids[:, :24], {}
    for dtype in ("fp16", "fp32"):
        host = write(quantized(mini_model), form, kv_dtype=dtype)
        errors[dtype] = float((run(host, ids, 3, [8] + [1] * 16) - eager(mini_model, ids, 3, [24])).abs().max())
        assert host.cache_bytes == host.geometry.bytes_per_token(3, {"fp16": 2, "fp32": 4}[dtype]) * CONTEXT
    assert errors["fp32"] < 1e-5 and errors["fp16"] > 20 * errors["fp32"], errors
    first, second = (torch.from_numpy(host._engine.read("valueCache"))[:, part, :, :24] for part in (0, 1))
    assert first.abs().max() > 0.1 and 0 < second.abs().max() <= first.abs().max()


@pytest.mark.parametrize("form", ["stages", "while"])
def test_a_conversation_goes_on_at_more_loops(
    mini_model: Parcae, quantized: Quantize, write: Write, mini_ids: torch.Tensor, form: str
) -> None:
    host = write(quantized(mini_model), form)
    first, second = mini_ids[:, :9], mini_ids[:, 9:12]
    cache = KVCache(mini_model.config, 3)
    with torch.no_grad():
        expected = [mini_model(first, 1, cache=cache), mini_model(second, 3, cache=cache)]
    got = [host.run(first[0].tolist(), 1), host.run(second[0].tolist(), 3)]
    torch.testing.assert_close(torch.from_numpy(np.concatenate(got)), torch.cat(expected, 1)[0], atol=2e-5, rtol=1e-5)


def test_early_exit_and_a_first_state_are_for_the_host_that_runs_the_loop(
    mini_model: Parcae, quantized: Quantize, write: Write
) -> None:
    stages, whole = write(quantized(mini_model), "stages"), write(quantized(mini_model), "while")
    stages.run([5, 6, 7], 3, exit_threshold=1e9)
    assert stages.loops_used == 1
    with pytest.raises(UsageError, match="early exit needs a host that runs the loop"):
        whole.run([5, 6, 7], 3, exit_threshold=0.1)
    static = write(quantized(mini_model), "unrolled", loops=2)
    with pytest.raises(UsageError, match="2 loops built in"):
        static.run([5], 1)


def test_a_chunk_at_the_contexts_end_is_not_padded_beyond_it(
    mini_model: Parcae, quantized: Quantize, write: Write, mini_ids: torch.Tensor
) -> None:
    host = write(quantized(mini_model), "stages")
    ids = torch.cat([mini_ids, mini_ids], 1)[:, :CONTEXT]
    torch.testing.assert_close(run(host, ids, 2, [62, 10]), eager(mini_model, ids, 2, [62, 10]), atol=2e-5, rtol=1e-5)
    with pytest.raises(UsageError.__mro__[1], match="do not fit the context"):
        host.run([1], 2)


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_settings": {"use_rope": False}},
        {"num_attention_heads": 4, "recurrent_num_attention_heads": 4, "num_key_value_heads": 2},
        {"nonlin_name": "SiLU", "mlp_class_name": "GatedMLP", "init_strategy": "takase-scaled"},
        {"nonlin_name": "GELU", "norm_class_name": "LayerNorm", "bias": True},
        {"injection_type": "linear", "bias": True},
        {"injection_type": "add", "prelude_norm": False, "qk_norm": False, "clip_qkv": 0.2, "qk_bias": True},
        {"n_layers_in_prelude": 0, "n_layers_in_coda": 0, "tie_embeddings": False, "logit_softcap": 5},
        {"n_layers_in_recurrent_block": 3, "mean_backprop_depth": 3},
        {"block_size": 6},
    ],
    ids=lambda changes: ",".join(changes),
)  # fmt: skip
def test_every_option_of_a_model_becomes_a_package(
    small: Callable[..., Parcae], quantized: Quantize, write: Write, changes: dict[str, Any]
) -> None:
    wide = {"n_embd": 64, "intermediate_size": 64, "recurrent_embedding_dimension": 64}
    model = quantized(small(**wide, **changes), "int8")
    host = write(model, FORMS[len(",".join(changes)) % 3])
    ids = torch.tensor([[5, 4, 3, 2, 1]])
    expected = eager(model.model, ids, 3, [3, 1, 1])
    torch.testing.assert_close(run(host, ids, 3, [3, 1, 1]), expected, atol=5e-5, rtol=1e-5)


@pytest.mark.acceptance
def test_the_originals_checkpoints_become_packages_that_give_the_originals_logits(
    golden_folder: Path, quantized: Quantize, write: Write
) -> None:
    with np.load(golden_folder / "golden.npz") as file:
        golden = {name: file[name] for name in file.files}
    host = write(quantized(load_model(golden_folder)), "stages", loops=int(golden["loops"].max()))
    ids, state = golden["input_ids"][0].tolist(), golden["initial_state"][:1]
    for loops in golden["loops"].tolist():
        host.reset()
        logits = host.run(ids, loops, initial_state=state)
        np.testing.assert_allclose(logits, golden[f"logits_{loops}"][0], atol=1e-4, rtol=1e-4)


def test_asymmetric_integers_have_an_offset(mini_model: Parcae, write: Write, mini_ids: torch.Tensor) -> None:
    rule = '[[rules]]\nmatch = "transformer.adapter.*"\nbits = 32\n[[rules]]\nmatch = "*.weight"\nbits = 4\n'
    recipe = parse_recipe(f"budget = {{ kl = 1.0, top1 = 0.0 }}\n{rule}group_size = 32\nsymmetric = false\n", "asym")
    model = quantize_with(mini_model, recipe, "rtn")
    assert not any(tensor.symmetric for tensor in model.tensors.values())
    host = write(model, "while")
    expected = eager(model.model, mini_ids, 2, [40])
    torch.testing.assert_close(run(host, mini_ids, 2, [40]), expected, atol=2e-5, rtol=1e-5)


def test_what_cannot_be_written_is_refused_by_name(
    small: Callable[..., Parcae], mini_model: Parcae, quantized: Quantize, write: Write, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    with pytest.raises(UsageError, match="--context 2049: a static package"):
        coreml.write(quantized(mini_model), tmp_path, WriteOptions("unrolled", 2, 2, 2049, "fp16"))
    model = small()
    with torch.no_grad():
        model.transformer["C"].weight[0, 0] = 7e4
    with pytest.raises(ToolMissingError, match="transformer.C.weight holds values beyond fp16's range"):
        write(quantized(model), "unrolled", "fp16")
    monkeypatch.delitem(coreml_lowering._HANDLERS, torch.ops.aten.relu.default)
    with pytest.raises(ToolMissingError, match="no lowering for aten.relu.default"):
        coreml.write(quantized(mini_model), tmp_path, WriteOptions("stages", "dynamic", 3, CONTEXT, "fp32"))
