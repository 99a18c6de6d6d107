"""The Llama that `make web-bench` runs in wllama, read back from its file."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

from export.bench.baselines.peer_llama import llama_config
from export.bench.baselines.web_llama import write_gguf
from parcae_mobile import load_model
from parcae_mobile.text import EMBEDDED_MODEL

Q4, Q8, FP32 = gguf.GGMLQuantizationType.Q4_0, gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.F32


def test_the_file_has_parcaes_depth_and_width_and_the_int4_presets_types(tmp_path: Path) -> None:
    config = load_model(EMBEDDED_MODEL).config
    path = tmp_path / "T2.gguf"
    write_gguf(config, 2, 256, path)
    read = gguf.GGUFReader(path)
    wanted = llama_config(config, 2, 256)
    for key, value in (
        ("block_count", config.layers(2)),
        ("embedding_length", config.n_embd),
        ("feed_forward_length", wanted["intermediate_size"]),
        ("attention.head_count", config.num_attention_heads),
        ("context_length", 256),
    ):
        assert read.get_field(f"llama.{key}").contents() == value
    kinds = {tensor.name: tensor.tensor_type for tensor in read.tensors}
    assert len(kinds) == 2 + 9 * config.layers(2)
    assert kinds.pop("token_embd.weight") == Q8
    assert {kind for name, kind in kinds.items() if "norm" not in name} == {Q4}
    assert {kind for name, kind in kinds.items() if "norm" in name} == {FP32}
    assert len(read.get_field("tokenizer.ggml.tokens").contents()) == config.padded_vocab_size
    write_gguf(config, 2, 256, tmp_path / "small.gguf", table="Q4_0")
    small = {tensor.name: tensor.tensor_type for tensor in gguf.GGUFReader(tmp_path / "small.gguf").tensors}
    assert small["token_embd.weight"] == Q4 and "output.weight" not in small, "the head is the table"
    again = tmp_path / "again.gguf"
    write_gguf(config, 2, 256, again)
    assert np.array_equal(np.fromfile(path, np.uint8), np.fromfile(again, np.uint8))
