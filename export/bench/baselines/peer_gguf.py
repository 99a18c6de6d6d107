"""What most people run instead: the Llama of `peer_llama`, as a GGUF file for llama.cpp.

    write_peer_gguf(config, loops=8, context=2048, path=Path("build/bench/llama-cpp/model.gguf"))

All matrices are Q4_0, 4 bits in blocks of 32 with an fp16 scale, also the table that is the head too. llama.cpp's
own quantizer gives that table 6 bits, which is slower: the comparison is with the faster file. Weights are random.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from export.bench.baselines.peer_llama import llama_config, tensor_shapes
from parcae_mobile.config import ParcaeConfig
from parcae_mobile.errors import ToolMissingError

SPREAD = 0.02  # standard deviation of the weights


def write_peer_gguf(config: ParcaeConfig, loops: int, context: int, path: Path) -> None:
    """Write the file. Raises `ToolMissingError` without the gguf package."""
    try:
        import gguf
    except ImportError:
        raise ToolMissingError("llama-cpp needs gguf: pip install 'parcae-mobile[llama-cpp]'") from None
    values = llama_config(config, loops, context)
    layers, heads = values["num_hidden_layers"], values["num_attention_heads"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(context)
    writer.add_block_count(layers)
    writer.add_embedding_length(values["hidden_size"])
    writer.add_feed_forward_length(values["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(values["num_key_value_heads"])
    writer.add_key_length(values["head_dim"])
    writer.add_value_length(values["head_dim"])
    writer.add_rope_dimension_count(values["head_dim"])
    writer.add_rope_freq_base(values["rope_theta"])
    writer.add_layer_norm_rms_eps(values["rms_norm_eps"])
    writer.add_vocab_size(values["vocab_size"])
    writer.add_tokenizer_model("no_vocab")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, layers)
    kind, random = gguf.GGMLQuantizationType.Q4_0, np.random.default_rng(0)
    for name, shape in tensor_shapes(values):
        place = names.get_name(name, try_suffixes=(".weight",))
        assert place is not None
        if len(shape) == 1:
            writer.add_tensor(place, np.ones(shape, np.float32))
        else:
            drawn = random.standard_normal(shape, np.float32) * SPREAD
            writer.add_tensor(place, gguf.quants.quantize(drawn, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
