"""Bytes: what a model stores, what its cache holds, and what one token makes the processor read.

    weights_of(folder), touched_onnx([(folder / "model_prelude.onnx", 1), (folder / "model_recur.onnx", 8)])
    bandwidth = read_bandwidth()                           # bytes per second, measured here and now

The roofline compares a step's time with the least that reading those bytes takes. It is no true ceiling for a looped
model: the recurrent block, read once per loop, may stay in the last-level cache, which is faster than memory.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from export.bench.runners import BASELINES, GGUF, LLAMA_CPP, plain_manifest
from export.targets.host import CacheGeometry
from parcae_mobile.loops import KV_BYTES
from parcae_mobile.stage_names import STAGES

if TYPE_CHECKING:
    from onnx import GraphProto

NOT_MODEL = ("golden.npz", "tokenizer.json", "tokenizer_config.json", "manifest.json", "config.json")
ROW_LOOKUPS = ("Gather", "GatherND", "GatherBlockQuantized", "GroupQueryAttention", "RotaryEmbedding", "Slice")
VIEWS = ("Transpose", "Identity", "Cast", "Reshape", "DequantizeLinear", "Unsqueeze")


def weights_of(folder: Path) -> int:
    """Bytes of the file that holds the weights: by far the largest of each format."""
    return max(path.stat().st_size for path in _model_files(folder))


def total_of(folder: Path) -> int:
    """Bytes of all that a device needs to run the model, tokenizer and self-test apart."""
    return sum(path.stat().st_size for path in _model_files(folder))


def _model_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.name not in NOT_MODEL]


def cache_bytes(geometry: CacheGeometry, loops: int, context: int, dtype: str) -> int:
    """Bytes of keys and values of `context` tokens that a conversation at `loops` loops holds."""
    return geometry.bytes_per_token(loops, KV_BYTES[dtype]) * context


def cache_touched(geometry: CacheGeometry, loops: int, context: int, dtype: str) -> int:
    """Bytes of keys and values that one token reads: a slot that loops share is read by each of them."""
    sizes = {stage: 2 * geometry.heads[stage] * geometry.head_size[stage] for stage in geometry.layers}
    passes = {"prelude": 1, "core_block": loops, "coda": 1}
    return (
        sum(count * passes[stage] * sizes[stage] for stage, count in geometry.layers.items())
        * KV_BYTES[dtype]
        * context
    )


def touched_weights(kind: str, folder: Path, loops: int) -> int | None:
    """Bytes of weights that one token reads; None where the file does not tell."""
    if kind == LLAMA_CPP:
        return (folder / GGUF).stat().st_size  # every matrix once; the table is the head
    if kind in BASELINES:
        model = folder / "model.onnx"
        return touched_onnx([(model, 1)]) if model.exists() else None
    manifest = plain_manifest(folder)
    if manifest.target != "onnx":
        return _touched_table(manifest.quantization.tensors, loops)
    if manifest.loop_form == "stages":
        return touched_onnx([(folder / f"model_{name}.onnx", loops if name == "recur" else 1) for name in STAGES])
    return touched_onnx([(folder / manifest.graphs.get(str(loops), "model.onnx"), 1)], loops)


def touched_onnx(graphs: Iterable[tuple[Path, int]], loops: int = 1) -> int:
    """Bytes of initializers that the nodes read; each graph is run a number of times, a Scan's body `loops` times."""
    import onnx

    total = 0
    for path, times in graphs:
        graph = onnx.load(path, load_external_data=False).graph
        total += times * _touched_graph(graph, {}, loops)
    return total


def _touched_graph(graph: GraphProto, outer: dict[str, int], loops: int) -> int:
    from onnx import helper

    sizes = dict(outer)
    for tensor in graph.initializer:
        sizes[tensor.name] = math.prod(tensor.dims) * _bits(helper, tensor.data_type) // 8
    total = 0
    for node in graph.node:
        known = [sizes[name] for name in node.input if name in sizes]
        bodies = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
        for body in bodies:
            total += (loops if node.op_type in ("Scan", "Loop") else 1) * _touched_graph(body, sizes, loops)
        if bodies or not known:
            continue
        if node.op_type in VIEWS:
            sizes[node.output[0]] = sum(known)
        elif node.op_type not in ROW_LOOKUPS:
            total += sum(known)
    return total


def _bits(helper: Any, kind: int) -> int:
    """Bits of an element; numpy, which onnx asks, stores 4-bit integers in bytes."""
    from onnx import TensorProto

    if kind in (TensorProto.INT4, TensorProto.UINT4):
        return 4
    return int(helper.tensor_dtype_to_np_dtype(kind).itemsize) * 8


def _touched_table(tensors: dict[str, dict[str, Any]], loops: int) -> int | None:
    """From a manifest's table of quantized tensors: the float ones, which it does not list, are small beside them."""
    if not tensors:
        return None
    tied = "lm_head.weight" not in tensors
    total = 0.0
    for name, entry in tensors.items():
        if name.startswith("value_embeds.") or (name == "transformer.wte.weight" and not tied):
            continue
        rows, columns = entry["shape"]
        group = entry["group_size"] or columns
        bits = entry["bits"] + 32 / group
        total += rows * columns * bits / 8 * (loops if name.startswith("transformer.core_block.") else 1)
    return round(total)


def read_bandwidth(megabytes: int = 512, repeats: int = 5) -> float:
    """Bytes per second at which one thread reads memory that no cache holds: the best of some sums of an array."""
    array = np.ones(megabytes * 1_000_000 // 8, np.float64)
    best = math.inf
    for _ in range(repeats):
        started = time.perf_counter()
        array.sum()
        best = min(best, time.perf_counter() - started)
    return array.nbytes / best
