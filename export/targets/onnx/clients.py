"""Files that stock clients look for beside a static ONNX artifact.

`genai_config.json` and `tokenizer_config.json` let onnxruntime-genai load the folder, `config.json` Optimum's
`ORTModelForCausalLM`. Both take the unrolled loop for an ordinary decoder with a layer for each pair of caches. They
describe `model.onnx`; where a folder holds graphs of other loop counts, `genai_overlay_T2.json` and so on change what
differs (`og.Config(folder).overlay(text)`), and Optimum takes the graph's file name and number of layers as arguments.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from export.targets.onnx.graph import ACCURACY_LEVELS
from export.targets.onnx.shapes import padded_head
from export.targets.registry import WriteOptions
from parcae_mobile.config import ParcaeConfig
from parcae_mobile.loops import policy_slots
from parcae_mobile.stage_names import LAYER_GROUPS
from parcae_mobile.tokenizer import TextTokenizer


def write_client_files(config: ParcaeConfig, folder: Path, options: WriteOptions) -> list[str]:
    """Write the files; returns their names, none where layers differ in their cache shapes (clients take one shape)."""
    caches = {
        (config.cached_heads(stage), config.head_width(stage)) for stage in LAYER_GROUPS if config.layer_count(stage)
    }
    if len(caches) > 1:
        return []
    size = config.head_size if options.portable else padded_head(config.head_size, config.rope_settings.use_rope)
    tokenizer = TextTokenizer.load(folder)
    bos, stops = options.bos or 0, options.stops or (0,)
    eos = stops[0] if len(stops) == 1 else list(stops)
    loops, context = int(options.loops), options.context
    slots = policy_slots(options.kv_policy, loops)
    files = {
        "genai_config.json": genai_config(config, size, slots, context, bos, eos, options.portable, options.compute),
        "config.json": optimum_config(config, size, loops, slots, context, bos, eos),
    }
    if tokenizer is not None:
        files["tokenizer_config.json"] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": context,
            "bos_token": tokenizer.token(bos),
            "eos_token": tokenizer.token(stops[0]),
        }
    for count, name in options.graphs.items():
        if count != loops:
            layers = config.layers(policy_slots(options.kv_policy, count))
            decoder = {"filename": name, "num_hidden_layers": layers}
            files[f"genai_overlay_T{count}.json"] = {"model": {"decoder": decoder}}
    for name, values in files.items():
        (folder / name).write_text(json.dumps(values, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return list(files)


def genai_config(
    config: ParcaeConfig,
    head_size: int,
    slots: int,
    context: int,
    bos: int,
    eos: int | list[int],
    portable: bool = False,
    compute: str = "fp32",
) -> dict[str, Any]:
    """What onnxruntime-genai 0.18 needs to run `model.onnx`; it knows no type named parcae, and `llama` fits.

    Caches of a `portable` graph get longer at each step, others are updated in place; and onnxruntime would round its
    activations to int8 where it is not told the accuracy level of `compute`.
    """
    level = {"session.qdq_matmulnbits_accuracy_level": str(ACCURACY_LEVELS[compute])} if portable else {}
    return {
        "model": {
            "type": "llama",
            "bos_token_id": bos,
            "eos_token_id": eos,
            "pad_token_id": eos if isinstance(eos, int) else eos[0],
            "context_length": context,
            "vocab_size": config.padded_vocab_size,
            "decoder": {
                "session_options": {
                    "log_id": "parcae",
                    "enable_mem_pattern": False,
                    "provider_options": [],
                    "session.force_spinning_stop": "1",  # threads that spin take the processor from the app
                    **level,
                },
                "filename": "model.onnx",
                "head_size": head_size,
                "hidden_size": config.n_embd,
                "num_attention_heads": config.num_attention_heads,
                "num_key_value_heads": config.cached_heads("core_block"),
                "num_hidden_layers": config.layers(slots),
                "inputs": {
                    "input_ids": "input_ids",
                    "attention_mask": "attention_mask",
                    "past_key_names": "past_key_values.%d.key",
                    "past_value_names": "past_key_values.%d.value",
                },
                "outputs": {
                    "logits": "logits",
                    "present_key_names": "present.%d.key",
                    "present_value_names": "present.%d.value",
                },
            },
        },
        "search": {
            "do_sample": False,
            "max_length": context,
            "min_length": 0,
            "num_beams": 1,
            "past_present_share_buffer": not portable,
        },
    }


def optimum_config(
    config: ParcaeConfig, head_size: int, loops: int, slots: int, context: int, bos: int, eos: int | list[int]
) -> dict[str, Any]:
    """A Hugging Face configuration from which Optimum shapes empty caches; the type is one that it knows."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": config.n_embd,
        "intermediate_size": config.intermediate_size,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.cached_heads("core_block"),
        "head_dim": head_size,
        "num_hidden_layers": config.layers(slots),
        "vocab_size": config.padded_vocab_size,
        "max_position_embeddings": context,
        "tie_word_embeddings": config.tie_embeddings,
        "bos_token_id": bos,
        "eos_token_id": eos,
        "pad_token_id": eos if isinstance(eos, int) else eos[0],
        "parcae": {"loops": loops, "name": config.name},
    }
