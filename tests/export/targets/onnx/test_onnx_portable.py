"""The portable ONNX flavour: standard operators, the same integers, and runtimes that know nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from export.targets.host import CacheGeometry
from export.targets.onnx.portable.lowering import PortableLowering
from export.targets.onnx.runtime.portable import PortableHost
from export.targets.onnx.static import write_static
from export.targets.onnx.writer import read_injection, write_stages
from parcae_mobile import Parcae, load_model
from parcae_mobile.errors import ToolMissingError, UsageError
from quantize import QuantizedModel, quantize_with
from quantize.recipe import parse_recipe

Quantize = Callable[..., QuantizedModel]
PRESETS = ("fp32", "fp16", "int8", "int4", "int4-small")
GRAPHS = {2: "model_T2.onnx", 3: "model.onnx"}


def unpacked(nibbles: np.ndarray, columns: int) -> np.ndarray:
    """Bytes in two's complement, the low nibble first -> (rows, columns) int8."""
    values = np.stack([nibbles & 15, nibbles >> 4], axis=-1).reshape(-1, columns)
    return ((values ^ 8).astype(np.int16) - 8).astype(np.int8)


def write(model: QuantizedModel, folder: Path, form: str) -> None:
    if form == "stages":
        write_stages(model, folder, "fp32", None, PortableLowering)
    else:
        write_static(model, folder, GRAPHS, portable=True)


def opened(folder: Path, model: Parcae, form: str) -> PortableHost:
    graphs = GRAPHS if form == "unrolled" else None
    return PortableHost(folder, form, CacheGeometry.of(model.config, 3), 1, graphs=graphs)


@pytest.fixture(scope="module")
def artifacts(
    tmp_path_factory: pytest.TempPathFactory, mini_model: Parcae, quantized: Quantize
) -> Callable[[str, str], tuple[Path, QuantizedModel]]:
    made: dict[tuple[str, str], tuple[Path, QuantizedModel]] = {}

    def get(form: str, preset: str) -> tuple[Path, QuantizedModel]:
        if (form, preset) not in made:
            folder, model = tmp_path_factory.mktemp(f"{form}-{preset}"), quantized(mini_model, preset)
            write(model, folder, form)
            made[form, preset] = folder, model
        return made[form, preset]

    return get


@pytest.mark.parametrize("form", ["stages", "unrolled"])
@pytest.mark.parametrize("preset", PRESETS)
def test_it_computes_what_eager_computes_whole_and_in_pieces(
    artifacts: Any, mini_ids: torch.Tensor, form: str, preset: str
) -> None:
    folder, model = artifacts(form, preset)
    host, ids = opened(folder, model.model, form), mini_ids[0].tolist()
    for loops in (2, 3):
        host.reset()
        whole = host.run(ids, loops)
        host.reset()
        pieces = np.concatenate([host.run(ids[:25], loops), *(host.run([token], loops) for token in ids[25:])])
        expected = model.model(mini_ids, loops)[0].detach().numpy()
        assert np.abs(whole - expected).max() < 1e-4
        assert np.abs(pieces - expected).max() < 1e-4


@pytest.mark.parametrize("form", ["stages", "unrolled"])
@pytest.mark.parametrize("preset", PRESETS)
def test_graphs_are_valid_and_hold_standard_operators_only(artifacts: Any, form: str, preset: str) -> None:
    paths = sorted(artifacts(form, preset)[0].glob("*.onnx"))
    assert paths
    for path in paths:
        onnx.checker.check_model(str(path), full_check=True)
        model = onnx.load(path, load_external_data=False)
        assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 21)]
        inner = [node for outer in model.graph.node for entry in outer.attribute for node in entry.g.node]
        assert ("Scan" in {node.op_type for node in model.graph.node}) == bool(inner) == (form == "unrolled")
        for node in [*model.graph.node, *inner]:
            assert node.domain == "" and onnx.defs.has(node.op_type, 21, "")


@pytest.mark.parametrize("preset", ["int8", "int4", "int4-small"])
def test_integers_and_scales_are_the_quantized_tensors_transposed(artifacts: Any, preset: str) -> None:
    folder, model = artifacts("stages", preset)
    held: dict[str, onnx.TensorProto] = {}
    for path in folder.glob("*.onnx"):
        held |= {tensor.name: tensor for tensor in onnx.load(path, load_external_data=False).graph.initializer}
    checked = set()
    for label, tensor in held.items():
        name, _, part = label.partition(".weight.")
        name, wanted = name + ".weight", model.tensors.get(name + ".weight")
        if wanted is None or not part:
            continue
        array = onnx.numpy_helper.to_array(tensor, base_dir=str(folder))
        if part.startswith("scales"):
            scales = wanted.scales.numpy()
            assert np.array_equal(
                array.reshape(-1), (scales.T if part.endswith(("columns", "table")) else scales).reshape(-1)
            )
            continue
        transposed = wanted.integers.T if part in ("columns", "table") else wanted.integers
        if wanted.bits == 4:
            place = {entry.key: int(entry.value) for entry in tensor.external_data if entry.key != "location"}
            if place:
                with (folder / "weights.data").open("rb") as file:
                    file.seek(place["offset"])
                    raw = np.frombuffer(file.read(place["length"]), np.uint8)
            else:
                raw = np.frombuffer(tensor.raw_data, np.uint8)
            array = unpacked(raw, transposed.shape[1])
        assert np.array_equal(array.astype(np.int8), transposed.numpy()), label
        checked.add(name)
    unused = "value_embeds.0.weight"  # the mini model's prelude layer owns no gate for its table
    assert checked == set(model.tensors) - {unused}


@pytest.mark.parametrize("preset", ["fp32", "int8", "int4-small"])
def test_the_tied_table_is_stored_once(artifacts: Any, preset: str) -> None:
    folder, model = artifacts("stages", preset)
    places = set()
    for path in folder.glob("*.onnx"):
        for tensor in onnx.load(path, load_external_data=False).graph.initializer:
            if "wte" in tensor.name and "scales" not in tensor.name:
                places.add(next(entry.value for entry in tensor.external_data if entry.key == "offset"))
    assert len(places) == 1


@pytest.mark.parametrize("form", ["stages", "unrolled"])
def test_the_injection_is_read_back_as_the_checkpoint_has_it(artifacts: Any, mini_model: Parcae, form: str) -> None:
    stored = read_injection(artifacts(form, "int4")[0])
    injection = mini_model.transformer["adapter"]
    assert stored is not None and torch.equal(stored.matrix, injection.B)
    assert torch.equal(stored.decay, injection.decay()) and torch.equal(stored.dt, injection.dt())


def reference_logits(folder: Path, ids: list[int], loops: int) -> np.ndarray:
    """Logits by the interpreter of the onnx package, which holds the definition of each operator, from stages."""
    stages = {
        name: ReferenceEvaluator(onnx.load(folder / f"model_{name}.onnx")) for name in ("prelude", "recur", "coda")
    }

    def call(name: str, **given: np.ndarray) -> dict[str, np.ndarray]:
        stage = stages[name]
        given["total"] = np.array(len(ids), np.int32)
        for name_, kind in zip(stage.input_names, stage.input_types, strict=True):
            if name_.startswith("past."):
                sizes = [dim.dim_value or len(ids) for dim in kind.tensor_type.shape.dim]
                given[name_] = np.zeros(sizes, np.float32)
        outputs = stage.run(None, {key: given[key] for key in stage.input_names})
        return dict(zip(stage.output_names, outputs, strict=True))

    tokens = np.array([ids], np.int64)
    given = {key: value for key, value in call("prelude", input_ids=tokens).items() if not key.startswith("present")}
    state = np.zeros_like(given["injected"])
    for _ in range(loops):
        state = call("recur", state=state, **given)["next_state"]
    return call("coda", state=state, input_ids=tokens, positions=np.arange(len(ids)))["logits"][0]


@pytest.mark.parametrize("preset", ["fp32", "int8", "int4", "int4-small"])
def test_the_reference_interpreter_of_onnx_runs_it(artifacts: Any, mini_ids: torch.Tensor, preset: str) -> None:
    folder, model = artifacts("stages", preset)
    ids = mini_ids[0, :9].tolist()
    expected = model.model(mini_ids[:, :9], 2)[0].detach().numpy()
    assert np.abs(reference_logits(folder, ids, 2) - expected).max() < 1e-4


@pytest.mark.acceptance
@pytest.mark.parametrize("preset", ["fp32", "int4"])
def test_the_reference_interpreter_of_onnx_runs_the_embedded_model(
    quantized: Quantize, tmp_path: Path, preset: str
) -> None:
    import parcae_mobile

    model = quantized(load_model(Path(parcae_mobile.__file__).parent / "tiny"), preset)
    write(model, tmp_path, "stages")
    ids = list(range(100, 116))
    expected = model.model(torch.tensor([ids]), 4)[0].detach().numpy()
    assert np.abs(reference_logits(tmp_path, ids, 4) - expected).max() < 1e-4


def test_a_static_conversation_keeps_its_loop_count(artifacts: Any) -> None:
    folder, model = artifacts("unrolled", "fp32")
    host = opened(folder, model.model, "unrolled")
    host.run([5, 4], 2)
    with pytest.raises(UsageError, match="began with 2"):
        host.run([3], 3)
    host.reset()
    host.run([5], 3)
    host.reset()
    with pytest.raises(UsageError, match="built for 2, 3"):
        host.run([5], 1)


def test_grouped_heads_and_an_untied_head_are_portable(
    small: Callable[..., Parcae], quantized: Quantize, tmp_path: Path
) -> None:
    sizes = ("n_embd", "intermediate_size", "recurrent_embedding_dimension")
    wide = dict.fromkeys((*sizes, "recurrent_intermediation_embedding_dimension"), 64)
    heads = {"num_attention_heads": 4, "recurrent_num_attention_heads": 4, "num_key_value_heads": 2}
    model = quantized(small(**wide, **heads, tie_embeddings=False, bias=True, norm_class_name="LayerNorm"), "int4")
    ids = [5, 4, 3, 2, 1]
    expected = model.model(torch.tensor([ids]), 3)[0].detach().numpy()
    for form in ("stages", "unrolled"):
        (tmp_path / form).mkdir()
        write(model, tmp_path / form, form)
        host = opened(tmp_path / form, model.model, form)
        logits = np.concatenate([host.run(ids[:3], 3), host.run(ids[3:4], 3), host.run(ids[4:], 3)])
        assert np.abs(logits - expected).max() < 1e-4


def test_what_it_cannot_store_is_refused_by_name(mini_model: Parcae, tmp_path: Path) -> None:
    rule = '[[rules]]\nmatch = "transformer.C.weight"\nbits = 4\ngroup_size = 32\nsymmetric = false\n'
    recipe = parse_recipe("budget = { kl = 1.0, top1 = 0.0 }\n" + rule, "mine")
    model = quantize_with(mini_model, recipe, "rtn")
    with pytest.raises(ToolMissingError, match="transformer.C.weight is asymmetric, 4 bits, 64 x 64"):
        write(model, tmp_path, "stages")
    scales = {stage: [(0.1, 0.1)] for stage in ("prelude", "core_block", "coda")}
    with pytest.raises(ToolMissingError, match="no int8 cache"):
        write_static(model, tmp_path, {1: "model.onnx"}, kv_scales=scales, portable=True)
