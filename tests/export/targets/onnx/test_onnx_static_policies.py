"""Unrolled ONNX graphs whose loops share cache slots: fewer caches in the signature, the same tokens as eager."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from export.targets.host import CacheGeometry
from export.targets.onnx.clients import write_client_files
from export.targets.onnx.runtime.host import OnnxHost
from export.targets.onnx.runtime.last_position import LastPositionHost
from export.targets.onnx.static import write_static
from export.targets.onnx.writer import signatures
from export.targets.registry import WriteOptions
from parcae_mobile import Parcae
from parcae_mobile.kv_cache import KVCache
from parcae_mobile.parity import greedy
from quantize import QuantizedModel

LOOPS, PROMPT, NEW = 4, 8, 24


@pytest.fixture(scope="module")
def model(small: Callable[..., Parcae]) -> Parcae:
    """Clients choose among all rows of the head, so this one has no padded rows."""
    sizes = dict.fromkeys(("n_embd", "intermediate_size", "recurrent_embedding_dimension"), 64)
    sizes |= {"recurrent_intermediation_embedding_dimension": 64, "block_size": 112}
    return small(**sizes, vocab_size=320, padded_vocab_size=320)


@pytest.fixture(scope="module")
def folder_of(
    quantized: Callable[..., QuantizedModel], model: Parcae, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def write(policy: str) -> Path:
        if policy not in made:
            made[policy] = tmp_path_factory.mktemp(f"static-{policy}")
            graphs = {1: "model_T1.onnx", LOOPS: "model.onnx"}
            write_static(quantized(model, "fp32"), made[policy], graphs, last_logits=True, kv_policy=policy)
            options = WriteOptions("unrolled", LOOPS, LOOPS, model.config.context, "fp32", policy, counts=(1, LOOPS))
            write_client_files(model.config, made[policy], options)
        return made[policy]

    return write


def host_of(folder: Path, model: Parcae, policy: str) -> OnnxHost:
    geometry = CacheGeometry.of(model.config, LOOPS, policy=policy)
    return OnnxHost(folder, "unrolled", geometry, 1, graphs={1: "model_T1.onnx", LOOPS: "model.onnx"})


@pytest.mark.parametrize("policy", ["full", "shared", "first1+shared", "first2+shared"])
def test_every_policy_decodes_as_eager_does(
    folder_of: Callable[[str], Path], model: Parcae, mini_ids: torch.Tensor, policy: str
) -> None:
    ids, host = mini_ids.flatten()[:20], host_of(folder_of(policy), model, policy)
    cache = KVCache(model.config, LOOPS, policy=policy)
    for piece in (ids[:9], ids[9:14], *ids[14:].split(1)):
        expected = model(piece[None], LOOPS, cache=cache)[0, -1].numpy()
        assert np.abs(host.run(piece.tolist(), LOOPS, [len(piece) - 1])[0] - expected).max() < 1e-4


def test_all_positions_of_a_chunk_are_those_of_the_chunk_in_one_piece(
    folder_of: Callable[[str], Path], model: Parcae, mini_ids: torch.Tensor
) -> None:
    host = LastPositionHost(host_of(folder_of("shared"), model, "shared"))
    cache, ids = KVCache(model.config, LOOPS, policy="shared"), mini_ids.flatten()[:16]
    for piece in (ids[:10], ids[10:]):
        expected = model(piece[None], LOOPS, cache=cache)[0].numpy()
        assert np.abs(host.run(piece.tolist(), LOOPS) - expected).max() < 1e-4


def test_shared_caches_are_as_many_at_every_loop_count(
    folder_of: Callable[[str], Path], model: Parcae, mini_ids: torch.Tensor
) -> None:
    config, sizes = model.config, {}
    for policy, slots in (("full", LOOPS), ("shared", 1), ("first2+shared", 3)):
        found = signatures(folder_of(policy))
        pasts = [[port for port in one.inputs if port.name.startswith("past")] for one in found.values()]
        assert [len(ports) for ports in pasts] == [2 * config.layers(slots), 2 * config.layers(1)]
        for loops in (1, LOOPS):
            host = host_of(folder_of(policy), model, policy)
            host.run(mini_ids.flatten()[:5].tolist(), loops, [4])
            sizes[policy, loops] = host.cache_bytes
    assert sizes["shared", 1] == sizes["shared", LOOPS] < sizes["first2+shared", LOOPS] < sizes["full", LOOPS]


def test_onnxruntime_genai_generates_what_eager_does_with_shared_caches(
    folder_of: Callable[[str], Path], model: Parcae, mini_ids: torch.Tensor
) -> None:
    import onnxruntime_genai as genai

    prompt = mini_ids.flatten()[:PROMPT].tolist()
    loaded = genai.Model(str(folder_of("shared")))
    search: Any = genai.GeneratorParams(loaded)
    search.set_search_options(max_length=PROMPT + NEW, do_sample=False)
    generator, tokens = genai.Generator(loaded, search), []
    generator.append_tokens(prompt)
    while not generator.is_done() and len(tokens) < NEW:
        generator.generate_next_token()
        tokens.append(int(generator.get_next_tokens()[0]))
    cache = KVCache(model.config, LOOPS, context=PROMPT + NEW, policy="shared")
    expected = greedy(model, prompt, NEW, LOOPS, cache)
    stop = next((place + 1 for place, token in enumerate(expected) if token == 0), NEW)  # it ends at its end token
    assert tokens[:stop] == expected[:stop]
