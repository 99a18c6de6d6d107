"""What the ONNX forms have in common: names, versions, declared shapes, saving."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, ValueInfoProto, helper

from export.targets.onnx.shapes import padded_head
from parcae_mobile.kv_cache import CacheScales
from parcae_mobile.model import Parcae
from parcae_mobile.stage_names import STAGES

MS = "com.microsoft"  # the domain of onnxruntime's contributed operators
OPSET = 23  # RMSNormalization
PORTABLE_OPSET = 21  # blockwise DequantizeLinear
IR_VERSION = 10
ACCURACY_LEVELS = {"fp32": 1, "int8": 4}  # of MatMulNBits: what activations are computed in
FLOAT, INT64, INT32 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT32


def declare(
    model: Parcae,
    stage: str,
    name: str,
    length: str = "cache",
    stacked: bool = False,
    int8_cache: bool = False,
    pads_heads: bool = True,
) -> ValueInfoProto:
    """Type and shape of a stage's input or output by its name; `length` names the caches' token dimension."""
    config = model.config
    width = config.recurrent_embedding_dimension
    if name.startswith(("past.", "present.")):
        attention = model.transformer[STAGES[stage]][int(name.split(".")[1])].attn
        rope = config.rope_settings.use_rope
        size = padded_head(attention.head_size, rope) if pads_heads else attention.head_size
        shape = [1, attention.cached_heads, length, size]
        stored = TensorProto.INT8 if int8_cache else FLOAT
        return helper.make_tensor_value_info(name, stored, ["loops", *shape] if stacked else shape)
    kinds: dict[str, tuple[int, list[int | str]]] = {
        "input_ids": (INT64, [1, "sequence"]),
        "positions": (INT64, ["positions"]),
        "total": (INT32, []),
        "logits": (FLOAT, [1, "positions", config.padded_vocab_size]),
        **{key: (FLOAT, [1, "sequence", width]) for key in ("state", "next_state", "injected")},
    }
    kind, dims = kinds.get(name, (FLOAT, [1, "sequence", config.value_width]))
    return helper.make_tensor_value_info(name, kind, dims)


def rename(info: ValueInfoProto, name: str) -> ValueInfoProto:
    """The same declaration under another name."""
    info.name = name
    return info


def scales_of(kv_scales: CacheScales | None, stage: str) -> list[tuple[float, float]] | None:
    """The int8 scales of a stage's keys and values, by layer; None where the cache is not int8."""
    return None if kv_scales is None else kv_scales[STAGES[stage]]


def save(graph: onnx.GraphProto, path: Path, contrib: bool = True) -> str:
    """Write a graph, with or without contrib operators; equal graphs give equal bytes. Returns the file's name."""
    contributed = [helper.make_opsetid(MS, 1)] if contrib else []
    opsets = [helper.make_opsetid("", OPSET if contrib else PORTABLE_OPSET), *contributed]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="parcae-mobile")
    path.write_bytes(model.SerializeToString(deterministic=True))
    return path.name
