"""What a user would run instead: an ordinary Llama of equal effective depth, made by onnxruntime-genai's own builder.

    write_peer_llama(config, loops=8, context=2048, folder=Path("build/bench/genai-llama"))

It has a layer for each layer that a Parcae token passes at `loops` loops, the same width, heads and vocabulary, a
SwiGLU MLP with as many parameters as Parcae's MLP, and tied embeddings. Its weights are random: they say nothing about
quality and all about bytes and time. The builder quantizes them to int4 in blocks of 32.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from parcae_mobile.config import ParcaeConfig
from parcae_mobile.errors import ToolMissingError, UsageError

BLOCK_SIZE = 32
OPTIONS = ("int4_accuracy_level=4", "prune_lm_head=true")  # logits of the last position alone, as in all other rows
# The builder imports classes of model families that the locked transformers does not have; a Llama needs none of them.
LAUNCH = """
import runpy, sys, transformers
for name in ("Qwen3_5ForConditionalGeneration", "Qwen3_5MoeForConditionalGeneration"):
    if not hasattr(transformers, name):
        setattr(transformers, name, None)
runpy.run_module("onnxruntime_genai.models.builder", run_name="__main__", alter_sys=True)
"""


def llama_config(config: ParcaeConfig, loops: int, context: int) -> dict[str, Any]:
    """The Hugging Face configuration of the Llama that equals a Parcae of `loops` loops in depth and width."""
    if config.mlp_class_name != "BaseMLP":
        raise UsageError("the peer Llama is sized for an MLP of two matrices; this model's has a gate already")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": config.n_embd,
        "intermediate_size": round(config.intermediate_size * 2 / 3 / BLOCK_SIZE) * BLOCK_SIZE,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_size,
        "num_hidden_layers": config.layers(loops),
        "vocab_size": config.padded_vocab_size,
        "max_position_embeddings": context,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": float(config.rope_settings.rope_base),
        "rope_scaling": {"rope_type": "default"},  # the builder iterates over it
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 0,
        "torch_dtype": "float32",
    }


def write_peer_llama(config: ParcaeConfig, loops: int, context: int, folder: Path) -> None:
    """Build the int4 artifact in a new folder. Raises `ToolMissingError` without the builder or if it fails."""
    values = llama_config(config, loops, context)
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        scratch = Path(name)
        source, built = scratch / "checkpoint", scratch / "made"
        source.mkdir()
        _write_checkpoint(values, source)
        command = [sys.executable, "-c", LAUNCH, "-i", str(source), "-o", str(built)]
        command += ["-p", "int4", "-e", "cpu", "-c", str(scratch / "cache"), "--extra_options"]
        command += [f"int4_block_size={BLOCK_SIZE}", *OPTIONS]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not (built / "genai_config.json").exists():
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ToolMissingError(
                f"the genai baseline needs onnxruntime-genai's builder: pip install 'parcae-mobile[optimum]' ({last})"
            )
        shutil.move(built, folder)


def _write_checkpoint(values: dict[str, Any], folder: Path) -> None:
    """A checkpoint of seeded weights, and a tokenizer only because the builder asks for one."""
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(0)
    drawn = {
        name: torch.randn(shape, generator=generator) * 0.02 if len(shape) > 1 else torch.ones(shape)
        for name, shape in _shapes(values)
    }
    save_file(drawn, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(values, indent=1), encoding="utf-8")
    tokenizer: dict[str, Any] = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {"<s>": 0, "a": 1}, "unk_token": "<s>"},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "<s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(about), encoding="utf-8")


def _shapes(values: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    width, hidden = values["hidden_size"], values["intermediate_size"]
    kv_width = values["num_key_value_heads"] * values["head_dim"]
    yield "model.embed_tokens.weight", (values["vocab_size"], width)
    for layer in range(values["num_hidden_layers"]):
        for name, shape in (
            ("self_attn.q_proj", (width, width)),
            ("self_attn.k_proj", (kv_width, width)),
            ("self_attn.v_proj", (kv_width, width)),
            ("self_attn.o_proj", (width, width)),
            ("mlp.gate_proj", (hidden, width)),
            ("mlp.up_proj", (hidden, width)),
            ("mlp.down_proj", (width, hidden)),
            ("input_layernorm", (width,)),
            ("post_attention_layernorm", (width,)),
        ):
            yield f"model.layers.{layer}.{name}.weight", shape
    yield "model.norm.weight", (width,)
