"""ONNX artifacts with a run-time loop count: every form and preset computes what the eager model computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from export.targets.onnx import lowering as onnx_lowering
from export.targets.onnx.runtime.host import OnnxHost
from export.targets.onnx.weights import block_size, exact_in_fp16, pack, unpack
from export.targets.onnx.writer import signatures
from parcae_mobile import Parcae, load_model
from parcae_mobile.errors import PromptTooLongError, ToolMissingError, UsageError
from quantize import QuantizedModel
from quantize.recipe import parse_recipe
from quantize.tensor import QuantizedTensor, on_scale_grid

Write = Callable[..., OnnxHost]
Quantize = Callable[..., QuantizedModel]
FORMS, PRESETS = ("stages", "scan"), ("fp32", "int8", "int4", "int4-small")
UNUSED = "value_embeds.0.weight"  # the mini model's prelude layer owns no gate for its table


def initializers(folder: Path) -> dict[str, onnx.TensorProto]:
    found: dict[str, onnx.TensorProto] = {}
    for path in sorted(folder.glob("model*.onnx")):
        graph = onnx.load(path, load_external_data=False).graph
        found |= {tensor.name: tensor for tensor in graph.initializer}
    return found


def place(tensor: onnx.TensorProto) -> tuple[int, int]:
    fields = {entry.key: entry.value for entry in tensor.external_data}
    return int(fields["offset"]), int(fields["length"])


@pytest.fixture(scope="module")
def artifacts(
    tmp_path_factory: pytest.TempPathFactory, mini_model: Parcae, quantized: Quantize, write_onnx: Write
) -> Callable[[str, str], tuple[OnnxHost, QuantizedModel, Path]]:
    made: dict[tuple[str, str], Any] = {}

    def get(form: str, preset: str) -> tuple[OnnxHost, QuantizedModel, Path]:
        if (form, preset) not in made:
            folder = tmp_path_factory.mktemp(f"{form}-{preset}")
            model = quantized(mini_model, preset)
            made[form, preset] = write_onnx(model, folder, form), model, folder
        host, model, folder = made[form, preset]
        host.reset()
        return host, model, folder

    return get


@torch.no_grad()
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("preset", PRESETS)
def test_one_artifact_computes_every_loop_count(artifacts: Any, mini_ids: torch.Tensor, form: str, preset: str) -> None:
    host, quantized, _ = artifacts(form, preset)
    seen = []
    for loops in (1, 2, 5, 16):
        host.reset()
        logits = torch.from_numpy(host.run(mini_ids[0].tolist(), loops))
        torch.testing.assert_close(logits, quantized.model(mini_ids, loops)[0], atol=2e-5, rtol=1e-4)
        seen.append(logits)
    assert all(not torch.allclose(a, b, atol=1e-4) for a, b in zip(seen, seen[1:3], strict=False))


@torch.no_grad()
@pytest.mark.parametrize("form", FORMS)
def test_int8_activations_stay_close(
    mini_model: Parcae, quantized: Quantize, write_onnx: Write, mini_ids: torch.Tensor, tmp_path: Path, form: str
) -> None:
    model = quantized(mini_model, "int8")
    host = write_onnx(model, tmp_path, form, "int8")
    logits, expected = torch.from_numpy(host.run(mini_ids[0].tolist(), 3)), model.model(mini_ids, 3)[0]
    assert not torch.allclose(logits, expected, atol=1e-6)
    assert float((logits - expected).abs().mean()) < 0.05 * float(expected.std())


@torch.no_grad()
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("pieces", [[40], [16, 24], [1] * 5 + [35], [38, 1, 1]])
def test_any_division_into_chunks_gives_the_same_logits(
    artifacts: Any, mini_ids: torch.Tensor, form: str, pieces: list[int]
) -> None:
    host, quantized, _ = artifacts(form, "int4")
    parts = [host.run(chunk[0].tolist(), 3) for chunk in mini_ids.split(pieces, dim=1)]
    expected = quantized.model(mini_ids, 3)[0]
    torch.testing.assert_close(torch.from_numpy(np.concatenate(parts)), expected, atol=2e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("form", FORMS)
def test_positions_and_a_given_state_are_honoured(artifacts: Any, mini_ids: torch.Tensor, form: str) -> None:
    host, quantized, _ = artifacts(form, "fp32")
    state = torch.randn(1, 40, 64, generator=torch.Generator().manual_seed(1))
    logits = host.run(mini_ids[0].tolist(), 2, positions=[39, 3], initial_state=state.numpy())
    expected = quantized.model(mini_ids, 2, state)[0, [39, 3]]
    torch.testing.assert_close(torch.from_numpy(logits), expected, atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_states_can_be_watched(artifacts: Any, mini_ids: torch.Tensor) -> None:
    expected = list(artifacts("stages", "fp32")[1].model.states(mini_ids, 4))
    for form, loops in (("stages", [0, 1, 2, 3]), ("scan", [3])):
        host = artifacts(form, "fp32")[0]
        seen: dict[int, np.ndarray] = {}
        host.run(mini_ids[0].tolist(), 4, on_state=seen.__setitem__)
        assert sorted(seen) == loops
        for loop, state in seen.items():
            torch.testing.assert_close(torch.from_numpy(state), expected[loop], atol=2e-5, rtol=1e-4)


def test_a_host_refuses_what_does_not_fit(artifacts: Any) -> None:
    host = artifacts("stages", "fp32")[0]
    with pytest.raises(UsageError, match="loops = 0"):
        host.run([1], 0)
    with pytest.raises(UsageError, match="above the maximum of 16"):
        host.run([1], 17)
    host.run([1] * 112, 1)
    with pytest.raises(PromptTooLongError, match=r"112 \+ 1 tokens"):
        host.run([1], 1)
    host.reset()
    assert host.run([1], 1).shape == (1, 320)


def matrices(held: dict[str, onnx.TensorProto], suffix: str) -> dict[str, tuple[str, bool]]:
    """Parameters by name: the initializers' name that holds each, and whether its rows are the second half."""
    found = {}
    for label in held:
        if label.endswith(f".integers{suffix}"):
            name = label.removesuffix(f".integers{suffix}")
            first, _, second = name.partition("+")
            found[first] = name, False
            if second:
                found[f"{first.rsplit('.', 2)[0]}.{second}"] = name, True
    return found


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("preset", ["int8", "int4", "int4-small"])
def test_integers_and_scales_in_the_file_are_the_quantized_tensors(artifacts: Any, form: str, preset: str) -> None:
    _, quantized, folder = artifacts(form, preset)
    held, checked = initializers(folder), 0
    assert "transformer.wte.weight" in quantized.tensors and len(quantized.tensors) > 15
    for suffix in (".rows", ".blocks"):
        for name, (holder, second) in matrices(held, suffix).items():
            tensor = quantized.tensors[name]
            parts = [
                onnx.numpy_helper.to_array(held[f"{holder}.{part}{suffix}"], base_dir=str(folder))
                for part in ("integers", "scales")
            ]
            rows, columns = tensor.shape
            packed, scales = (part[-rows:] if second else part[:rows] for part in parts)
            assert np.array_equal(unpack(packed, tensor.bits, columns), tensor.integers.numpy()), name
            repeated = tensor.scales.repeat_interleave(tensor.group_size, 1)
            spread = np.repeat(scales, block_size(tensor), axis=1)[:, :columns]
            assert np.array_equal(spread, repeated.numpy()), name
            checked += 1
    assert checked == len(quantized.tensors)  # the tied table has a view for each use; a table without a gate has none
    assert UNUSED in quantized.tensors and not any(name.startswith(UNUSED) for name in held)


@pytest.mark.parametrize("form", FORMS)
def test_queries_and_keys_of_one_format_are_one_product(artifacts: Any, form: str) -> None:
    folder = artifacts(form, "int4")[2]
    layers = {name for name in initializers(folder) if "c_q" in name or "c_k" in name}
    stages = ("prelude", "core_block", "coda")
    names = {f"transformer.{stage}.0.attn.c_q.weight+c_k.weight" for stage in stages}
    assert layers == {f"{name}.{part}.blocks" for name in names for part in ("integers", "scales")}
    assert any("attn.c_q.weight" in name for name in initializers(artifacts(form, "fp32")[2]))


@torch.no_grad()
@pytest.mark.parametrize("form", FORMS)
def test_rows_are_chosen_before_the_last_projection(artifacts: Any, mini_ids: torch.Tensor, form: str) -> None:
    host, quantized, folder = artifacts(form, "int4")
    path = folder / {"stages": "model_coda.onnx", "scan": "model.onnx"}[form]
    nodes = list(onnx.load(path, load_external_data=False).graph.node)
    chosen = {node.output[0] for node in nodes if node.op_type == "Gather" and "positions" in node.input}
    by_name = {name: node for node in nodes for name in node.input if name.startswith("transformer.coda.0.")}
    assert by_name["transformer.coda.0.attn.c_proj.weight.integers.blocks"].input[0] in chosen
    assert by_name["transformer.coda.0.attn.c_v.weight.integers.blocks"].input[0] not in chosen
    whole = quantized.model(mini_ids, 3)[0]
    for positions in ([39], [0, 39], [7, 7, 3]):
        host.reset()
        logits = torch.from_numpy(host.run(mini_ids[0].tolist(), 3, positions))
        torch.testing.assert_close(logits, whole[positions], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("bits", [4, 8])
def test_value_tables_whose_products_fp16_holds_have_fp16_scales(bits: int) -> None:
    generator = torch.Generator().manual_seed(bits)
    high = 2 ** (bits - 1) - 1
    integers = torch.randint(-high, high + 1, (8, 256), generator=generator).to(torch.int8)
    scales = on_scale_grid(torch.rand(8, 2, generator=generator) * torch.tensor([1e-5, 1e3]))
    tensor = QuantizedTensor(integers, scales, bits, 128)
    repeated = scales.repeat_interleave(128, 1)
    rounded = (integers.half() * repeated.half()).float()
    assert exact_in_fp16(tensor) == (bits == 4) == torch.equal(rounded, tensor.dequantize())
    assert not exact_in_fp16(QuantizedTensor(integers, scales.fill_(32768), bits, 128))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("preset", PRESETS)
def test_head_and_token_table_share_one_stored_copy(artifacts: Any, form: str, preset: str) -> None:
    _, quantized, folder = artifacts(form, preset)
    held = initializers(folder)
    if preset == "fp32":
        names = [name for name in held if "wte" in name or "lm_head" in name]
        assert names == ["transformer.wte.weight"]
    else:
        for part in ("integers", "scales"):
            rows, blocks = (held[f"transformer.wte.weight.{part}.{view}"] for view in ("rows", "blocks"))
            assert place(rows) == place(blocks)
    size = (folder / "weights.data").stat().st_size
    floats = sum(p.numel() for n, p in quantized.model.named_parameters() if n not in {UNUSED, *quantized.tensors}) * 4
    rope = quantized.model.rope.numel() * 4
    packed = sum(
        sum(part.nbytes for part in pack(t) if part is not None) for n, t in quantized.tensors.items() if n != UNUSED
    )
    tables = [t for n, t in quantized.tensors.items() if n.startswith("value_embeds") and n != UNUSED]
    packed -= sum(t.scales.numel() * 2 for t in tables if t.bits == 4)
    pages = 4096 * (len(held) + 1)
    assert floats + packed - 1024 * len(held) <= size <= floats + packed + rope + pages


@pytest.mark.parametrize("preset", PRESETS)
def test_both_forms_hold_the_same_weights_file(artifacts: Any, preset: str) -> None:
    first, second = (artifacts(form, preset)[2] / "weights.data" for form in FORMS)
    assert first.read_bytes() == second.read_bytes()


def test_every_external_tensor_lies_on_a_page_and_inside_of_the_file(artifacts: Any) -> None:
    for form in FORMS:
        folder = artifacts(form, "int4")[2]
        size = (folder / "weights.data").stat().st_size
        external = [tensor for tensor in initializers(folder).values() if tensor.external_data]
        assert external
        for tensor in external:
            offset, length = place(tensor)
            assert offset % 4096 == 0 and offset + length <= size
            assert {e.value for e in tensor.external_data if e.key == "location"} == {"weights.data"}


def test_signatures_name_every_input_and_output(artifacts: Any) -> None:
    stages = signatures(artifacts("stages", "int8")[2])
    assert list(stages) == ["model_coda.onnx", "model_prelude.onnx", "model_recur.onnx"]
    recur = {port.name: port for port in stages["model_recur.onnx"].inputs}
    assert recur["state"].shape == [1, "sequence", 64] and recur["total"].dtype == "int32"
    assert recur["past.0.key"].shape == [1, 2, "cache", 32]
    scan = signatures(artifacts("scan", "int8")[2])["model.onnx"]
    shapes = {port.name: port.shape for port in scan.inputs}
    assert shapes["past.recur.0.key"] == ["loops", 1, 2, "cache", 32]
    assert {port.name for port in scan.outputs} >= {"logits", "final_state", "present.recur.0.value"}


@pytest.mark.parametrize("form", FORMS)
def test_a_model_file_says_nothing_of_the_machine_that_made_it(artifacts: Any, form: str) -> None:
    folder = artifacts(form, "int8")[2]
    for path in folder.glob("*.onnx"):
        content = path.read_bytes()
        assert b"/" + b"work" not in content and b".py" not in content and str(folder).encode() not in content


def test_an_unknown_operator_is_refused_by_name(
    mini_model: Parcae, quantized: Quantize, write_onnx: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(onnx_lowering._HANDLERS, torch.ops.aten.relu.default)
    with pytest.raises(ToolMissingError, match="no lowering for aten.relu.default"):
        write_onnx(quantized(mini_model), tmp_path)


@torch.no_grad()
@pytest.mark.parametrize("form", FORMS)
def test_asymmetric_integers_with_zero_points_compute_the_same(
    mini_model: Parcae, write_onnx: Write, mini_ids: torch.Tensor, tmp_path: Path, form: str
) -> None:
    from quantize import quantize_with

    rule = '[[rules]]\nmatch = "transformer.adapter.*"\nbits = 32\n[[rules]]\nmatch = "*.weight"\nbits = 4\n'
    recipe = parse_recipe(f"budget = {{ kl = 1.0, top1 = 0.0 }}\n{rule}group_size = 32\nsymmetric = false\n", "asym")
    quantized = quantize_with(mini_model, recipe, "rtn")
    assert not any(tensor.symmetric for tensor in quantized.tensors.values())
    host = write_onnx(quantized, tmp_path, form)
    logits = torch.from_numpy(host.run(mini_ids[0].tolist(), 2))
    torch.testing.assert_close(logits, quantized.model(mini_ids, 2)[0], atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_the_originals_checkpoints_become_artifacts_that_give_the_originals_logits(
    golden_folder: Path, quantized: Quantize, write_onnx: Write, tmp_path: Path
) -> None:
    with np.load(golden_folder / "golden.npz") as file:
        golden = {name: file[name] for name in file.files}
    form = FORMS[len(golden_folder.name) % 2]
    host = write_onnx(quantized(load_model(golden_folder)), tmp_path, form)
    ids, state = golden["input_ids"][0].tolist(), golden["initial_state"][:1]
    for loops in golden["loops"].tolist():
        host.reset()
        whole = host.run(ids, loops, initial_state=state)
        np.testing.assert_allclose(whole, golden[f"logits_{loops}"][0], atol=5e-5, rtol=1e-4)
        host.reset()
        parts = [host.run(ids[:20], loops, initial_state=state[:, :20])]
        parts += [host.run(ids[at : at + 1], loops, initial_state=state[:, at : at + 1]) for at in range(20, len(ids))]
        np.testing.assert_allclose(np.concatenate(parts), golden[f"logits_{loops}"][0], atol=5e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(
    "changes",
    [
        {"rope_settings": {"use_rope": False}},
        {"rope_settings": {"rope_condense_ratio": 2}},
        {"num_attention_heads": 4, "recurrent_num_attention_heads": 4, "num_key_value_heads": 2},
        {"nonlin_name": "SiLU", "mlp_class_name": "GatedMLP", "init_strategy": "takase-scaled"},
        {"nonlin_name": "ReLU", "simple_ops": True, "norm_class_name": "LayerNorm", "bias": True},
        {"injection_type": "linear", "bias": True},
        {"injection_type": "add", "prelude_norm": False, "qk_norm": False, "clip_qkv": 0.2, "qk_bias": True},
        {"n_layers_in_prelude": 0, "n_layers_in_coda": 0, "tie_embeddings": False, "logit_softcap": 5},
        {"n_layers_in_recurrent_block": 3, "mean_backprop_depth": 3},
        {"block_size": 5},
    ],
    ids=lambda changes: ",".join(changes),
)
def test_options_without_a_reference_checkpoint_become_artifacts(
    small: Callable[..., Parcae], quantized: Quantize, write_onnx: Write, tmp_path: Path, changes: dict[str, Any]
) -> None:
    wide = {"n_embd": 64, "intermediate_size": 64, "recurrent_embedding_dimension": 64}
    model = quantized(small(**wide, **changes), "int8")
    host = write_onnx(model, tmp_path, FORMS["bias" in changes])
    ids = torch.tensor([[5, 4, 3, 2, 1]])
    parts = [host.run([5, 4, 3], 3), host.run([2], 3), host.run([1], 3)]
    expected = model.model(ids, 3)[0]
    torch.testing.assert_close(torch.from_numpy(np.concatenate(parts)), expected, atol=5e-5, rtol=1e-4)
