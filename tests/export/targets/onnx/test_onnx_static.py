"""The unrolled ONNX form: shared weights, and clients that nobody here wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from export.targets.host import CacheGeometry
from export.targets.onnx.clients import genai_config, optimum_config, write_client_files
from export.targets.onnx.runtime.host import OnnxHost
from export.targets.onnx.runtime.last_position import LastPositionHost
from export.targets.onnx.runtime.portable import PortableHost
from export.targets.onnx.static import write_static
from export.targets.registry import WriteOptions
from parcae_mobile import Parcae, ParcaeConfig
from parcae_mobile.parity import greedy
from quantize import QuantizedModel

PROMPT, NEW = 8, 24


def options(loops: int, context: int, **more: Any) -> WriteOptions:
    return WriteOptions("unrolled", loops, loops, context, "fp32", **more)


@pytest.fixture(scope="module")
def mini_model(small: Callable[..., Parcae]) -> Parcae:
    """Clients choose among all rows of the head, so this one has no padded rows."""
    sizes = dict.fromkeys(("n_embd", "intermediate_size", "recurrent_embedding_dimension"), 64)
    sizes |= {"recurrent_intermediation_embedding_dimension": 64, "block_size": 112}
    return small(**sizes, vocab_size=320, padded_vocab_size=320)


@pytest.fixture(scope="module")
def static_folder(
    quantized: Callable[..., QuantizedModel], mini_model: Parcae, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int, str], Path]:
    made: dict[tuple[int, str], Path] = {}

    def write(loops: int, preset: str = "fp32") -> Path:
        if (loops, preset) not in made:
            folder = tmp_path_factory.mktemp(f"static-T{loops}-{preset}")
            write_static(quantized(mini_model, preset), folder, {loops: "model.onnx"})
            write_client_files(mini_model.config, folder, options(loops, mini_model.config.context))
            made[loops, preset] = folder
        return made[loops, preset]

    return write


@pytest.mark.parametrize("preset", ["fp32", "int4"])
def test_an_unrolled_graph_computes_its_loop_count(
    static_folder: Any, quantized: Any, mini_model: Parcae, mini_ids: torch.Tensor, preset: str
) -> None:
    host = OnnxHost(static_folder(3, preset), "unrolled", CacheGeometry.of(mini_model.config, 3), 1)
    ids = mini_ids.flatten()[:20]
    whole = host.run(ids.tolist(), 3)
    host.reset()
    pieces = np.concatenate([host.run(ids[:12].tolist(), 3), *(host.run([int(token)], 3) for token in ids[12:])])
    expected = quantized(mini_model, preset).model(ids[None], 3)[0].numpy()
    assert np.abs(whole - expected).max() < 1e-4
    assert np.abs(pieces - expected).max() < 1e-4


def test_graphs_of_all_loop_counts_share_byte_identical_weights(static_folder: Any) -> None:
    folders = [static_folder(loops) for loops in (1, 3)]
    weights = [(folder / "weights.data").read_bytes() for folder in folders]
    graphs = [(folder / "model.onnx").stat().st_size for folder in folders]
    assert weights[0] == weights[1]
    assert graphs[0] < graphs[1]


def test_last_logits_are_the_last_row(
    quantized: Any, mini_model: Parcae, mini_ids: torch.Tensor, tmp_path: Path
) -> None:
    write_static(quantized(mini_model, "fp32"), tmp_path, {2: "model.onnx"}, last_logits=True)
    host = OnnxHost(tmp_path, "unrolled", CacheGeometry.of(mini_model.config, 2), 1)
    ids = mini_ids.flatten()[:9]
    logits = host.run(ids.tolist(), 2, positions=[8])
    assert np.abs(logits - mini_model(ids[None], 2)[0, -1:].numpy()).max() < 1e-4


def test_onnxruntime_genai_generates_the_same_tokens(
    static_folder: Any, mini_model: Parcae, mini_ids: torch.Tensor
) -> None:
    import onnxruntime_genai as genai

    prompt = mini_ids.flatten()[:PROMPT].tolist()
    model = genai.Model(str(static_folder(3)))
    options = genai.GeneratorParams(model)
    options.set_search_options(max_length=PROMPT + NEW, do_sample=False)
    generator, tokens = genai.Generator(model, options), []
    generator.append_tokens(prompt)
    while not generator.is_done() and len(tokens) < NEW:
        generator.generate_next_token()
        tokens.append(int(generator.get_next_tokens()[0]))
    expected = greedy(mini_model, prompt, NEW, 3)
    stop = next((place + 1 for place, token in enumerate(expected) if token == 0), NEW)  # it ends at its end token
    assert tokens[:stop] == expected[:stop]


@pytest.mark.acceptance
def test_optimum_generates_the_same_tokens(static_folder: Any, mini_model: Parcae, mini_ids: torch.Tensor) -> None:
    from optimum.onnxruntime import ORTModelForCausalLM

    prompt = mini_ids.flatten()[:PROMPT].tolist()
    model = ORTModelForCausalLM.from_pretrained(str(static_folder(3)))
    tokens = model.generate(torch.tensor([prompt]), max_new_tokens=NEW, do_sample=False)[0, PROMPT:].tolist()
    assert tokens == greedy(mini_model, prompt, NEW, 3)[: len(tokens)]


def test_client_files_describe_a_layer_for_each_cache_slot(mini_model: Parcae) -> None:
    config = mini_model.config
    genai, optimum = genai_config(config, 16, 5, 64, 1, 2), optimum_config(config, 16, 8, 5, 64, 1, 2)
    assert genai["model"]["decoder"]["num_hidden_layers"] == optimum["num_hidden_layers"] == config.layers(5)
    assert genai["model"]["vocab_size"] == optimum["vocab_size"] == config.padded_vocab_size
    assert json.dumps(genai) and optimum["eos_token_id"] == 2


def test_no_client_files_where_layers_differ_in_their_caches(small: Callable[..., Parcae], tmp_path: Path) -> None:
    config: ParcaeConfig = small(num_key_value_heads=1).config
    assert config.num_key_value_heads != config.recurrent_num_attention_heads
    assert write_client_files(config, tmp_path, options(2, 64)) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("portable", [False, True])
def test_every_position_can_be_had_of_a_graph_that_gives_the_last(
    quantized: Any, mini_model: Parcae, mini_ids: torch.Tensor, tmp_path: Path, portable: bool
) -> None:
    write_static(quantized(mini_model, "fp32"), tmp_path, {2: "model.onnx"}, last_logits=True, portable=portable)
    kind = PortableHost if portable else OnnxHost
    host = LastPositionHost(kind(tmp_path, "unrolled", CacheGeometry.of(mini_model.config, 2), 1))
    ids, expected = mini_ids.flatten()[:12].tolist(), mini_model(mini_ids[:, :12], 2)[0].detach().numpy()
    first, rest = host.run(ids[:9], 2), host.run(ids[9:], 2, positions=[2, 0])
    assert host.length == host.inner.length == 12
    assert np.abs(first - expected[:9]).max() < 1e-4
    assert np.abs(rest - expected[[11, 9]]).max() < 1e-4
    host.reset()
    assert np.abs(host.run(ids, 2, positions=[11]) - expected[-1:]).max() < 1e-4
