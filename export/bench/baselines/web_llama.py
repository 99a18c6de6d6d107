"""What a user would run instead: a Llama of equal effective depth as GGUF, for llama.cpp, and for wllama in a browser.

    python -m export.bench.baselines.web_llama --loops 1 --loops 4 --loops 8 --out build/web-bench/llama

The shape is that of `peer_llama.py`: for each loop count T a Llama with a layer for each layer that a Parcae token
passes. Blocks are Q4_0, the tied table Q8_0, as the int4 preset stores them, or another format; weights are random and
say nothing about quality. Every letter is a token of its own, so that a prompt has as many tokens as it has letters.
"""

from __future__ import annotations

import argparse
import string
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from export.bench.baselines.peer_llama import llama_config
from parcae_mobile.config import ParcaeConfig, released_config
from parcae_mobile.errors import ToolMissingError

try:
    import gguf
except ImportError:
    raise ToolMissingError("the GGUF baseline needs gguf: pip install 'parcae-mobile[bench]'") from None

UNKNOWN, FIRST, LAST = "<unk>", "<s>", "</s>"
SPACE = "\u2581"  # how sentence-piece models write a space
NORMAL, UNKNOWN_KIND, CONTROL, UNUSED = 1, 2, 3, 5


def write_gguf(config: ParcaeConfig, loops: int, context: int, path: Path, table: str = "Q8_0") -> None:
    """Write the Llama that equals a Parcae of `loops` loops, its tied table in the format `table`.

    The same arguments give the same bytes.
    """
    values = llama_config(config, loops, context)
    width, hidden, size = values["hidden_size"], values["intermediate_size"], values["head_dim"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(values["num_hidden_layers"])
    writer.add_context_length(context)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(values["num_attention_heads"])
    writer.add_head_count_kv(values["num_key_value_heads"])
    writer.add_rope_dimension_count(size)
    writer.add_rope_freq_base(values["rope_theta"])
    writer.add_layer_norm_rms_eps(values["rms_norm_eps"])
    writer.add_vocab_size(values["vocab_size"])
    _add_tokens(writer, values["vocab_size"])
    queries, keys = values["num_attention_heads"] * size, values["num_key_value_heads"] * size
    random = np.random.default_rng(0)
    _add_matrix(writer, random, "token_embd", (values["vocab_size"], width), gguf.GGMLQuantizationType[table])
    for layer in range(values["num_hidden_layers"]):
        for name, rows, columns in (
            ("attn_q", queries, width),
            ("attn_k", keys, width),
            ("attn_v", keys, width),
            ("attn_output", width, queries),
            ("ffn_gate", hidden, width),
            ("ffn_up", hidden, width),
            ("ffn_down", width, hidden),
        ):
            kind = gguf.GGMLQuantizationType.Q4_0
            _add_matrix(writer, random, f"blk.{layer}.{name}", (rows, columns), kind)
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", np.ones(width, np.float32))
    writer.add_tensor("output_norm.weight", np.ones(width, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokens(writer: gguf.GGUFWriter, count: int) -> None:
    """A sentence-piece vocabulary of letters and a space; the other rows of the table have names that no text holds."""
    tokens = [UNKNOWN, FIRST, LAST, SPACE, *string.ascii_letters]
    kinds = [UNKNOWN_KIND, CONTROL, CONTROL] + [NORMAL] * (len(tokens) - 3)
    kinds += [UNUSED] * (count - len(tokens))
    tokens += [f"<unused{place}>" for place in range(count - len(tokens))]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * count)
    writer.add_token_types(kinds)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)


def _add_matrix(
    writer: gguf.GGUFWriter,
    random: np.random.Generator,
    name: str,
    shape: tuple[int, int],
    kind: gguf.GGMLQuantizationType,
) -> None:
    drawn = random.standard_normal(shape, np.float32) * np.float32(0.02)
    writer.add_tensor(f"{name}.weight", gguf.quants.quantize(drawn, kind), raw_dtype=kind)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the arguments and write a file for each loop count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="parcae-140m", help="a released shape")
    parser.add_argument("--loops", type=int, action="append", required=True, help="loop count; may be repeated")
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--out", type=Path, required=True, help="folder that receives T1.gguf and so on")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    for loops in options.loops:
        write_gguf(released_config(options.model), loops, options.context, options.out / f"T{loops}.gguf")


if __name__ == "__main__":
    main()
