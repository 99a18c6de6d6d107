"""What a finished `.pte` really holds: the recipe's integers, the injection that its graphs consume, its signatures.

    unmatched(file, quantized)                             # [] if every quantized matrix of the file is the recipe's
    read_injection(file)                                   # decay, dt, B by the nodes that multiply with them

Nothing is taken from the exporter's memory: all of it is decoded from the bytes of the file.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
import torch
from executorch.exir.schema import Tensor, TensorShapeDynamism

from export.targets.executorch.file import PteFile, values_by_id
from export.targets.registry import StoredInjection
from parcae_mobile.manifest import Port, Signature
from quantize.apply import QuantizedModel

_NAMES = {
    "forward": (("tokens", "input_pos"), ("logits",)),
    "prelude": (("input_ids", "input_pos"), ("injected",)),
    "recur": (("state", "injected", "input_pos", "slot"), ("next_state",)),
    "coda": (("state", "input_ids", "input_pos", "positions"), ("logits",)),
}
_DTYPES = {"LONG": "int64", "FLOAT": "float32"}


def methods_of(file: PteFile) -> list[str]:
    """The methods that compute, without the constant ones."""
    return [name for name in _NAMES if name in file.methods]


def unmatched(file: PteFile, quantized: QuantizedModel) -> list[str]:
    """Quantized parameters that the file does not hold integer by integer and scale by scale, and matrices of the file
    that are in no recipe. A tied head's matrix and table are both looked for."""
    tied = quantized.config.tie_embeddings
    names: dict[str, str] = {}
    for name, tensor in quantized.tensors.items():
        digest = _digest(tensor.integers.numpy(), tensor.scales.numpy())
        kinds = ["table"] if name.startswith(("transformer.wte", "value_embeds")) else ["matrix"]
        if tied and name == "transformer.wte.weight":
            kinds.append("matrix")
        names |= {kind + digest: f"{name} ({kind})" for kind in kinds}
    stored = {kind + digest for kind in ("matrix", "table") for digest in _digests(file, kind)}
    missing = [label for key, label in names.items() if key not in stored]
    return missing + [f"an unknown {key[:6].strip()} in the file" for key in sorted(stored - set(names))]


def _digests(file: PteFile, kind: str) -> set[str]:
    digests: set[str] = set()
    for method in methods_of(file):
        if kind == "matrix":
            for matrix in file.matrices(method):
                if matrix.scales is not None:
                    digests.add(_digest(matrix.values, matrix.scales))
        else:
            digests |= {_digest(integers, scales) for integers, scales in tables(file, method)}
    return digests


def tables(file: PteFile, method: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Quantized embedding tables of a method as (integers, fp32 scales (rows, groups)), by its operators' arguments."""
    plan, pairs = file.methods[method], []
    embeddings = [index for index, op in enumerate(plan.operators) if "embedding_" in op.name]
    for call in (item.instr_args for item in plan.chains[0].instructions):
        if getattr(call, "op_index", None) not in embeddings or not hasattr(call, "args"):
            continue
        weight, scales = (file.constant(plan.values[call.args[index]].val) for index in (0, 1))
        scales = scales.astype(np.float32).reshape(len(weight), -1)
        if weight.dtype == np.uint8:
            halves = [weight >> 4, weight & 15]
            if hashlib.sha256(weight.tobytes()).hexdigest() in file.named:
                halves.reverse()  # XNNPACK names its constants by their checksum: these bytes are the head's too
            weight = np.stack(halves, -1).reshape(len(weight), -1).astype(np.int8) - 8
        pairs.append((weight.astype(np.int8), scales))
    return pairs


def cache_bytes(file: PteFile) -> int:
    """Bytes of all keys and values: the tensors that the methods' instructions append to."""
    count = 0
    for plan in (file.methods[name] for name in methods_of(file)):
        appends = [index for index, op in enumerate(plan.operators) if op.name == "llama::update_cache"]
        calls = [item.instr_args for chain in plan.chains for item in chain.instructions]
        caches = {call.args[1] for call in calls if getattr(call, "op_index", None) in appends}
        count += sum(4 * math.prod(plan.values[place].val.sizes) for place in caches)
    return count


def read_injection(file: PteFile) -> StoredInjection | None:
    """The injection by its use: `B` multiplies, `dt` scales that product, `decay` scales the state before a sum.

    None if no method does that, as for the linear and additive injections.
    """
    matrix = dt = decay = None
    for graph, static in (part for method in methods_of(file) for part in file.vectors(method)):
        values = values_by_id(graph)
        produced = {node["xnode_union"].get("output_id"): node for node in graph["xnodes"]}
        sums = {
            node["xnode_union"][key]: node["xnode_union"][other]
            for node in graph["xnodes"]
            if node["xnode_union_type"] == "XNNAdd"
            for key, other in (("input1_id", "input2_id"), ("input2_id", "input1_id"))
        }
        for node in graph["xnodes"]:
            if node["xnode_union_type"] != "XNNMultiply":
                continue
            ends = node["xnode_union"]
            for factor, other in ((ends["input1_id"], ends["input2_id"]), (ends["input2_id"], ends["input1_id"])):
                if factor not in static or static[factor].size == 1:
                    continue
                vector = torch.from_numpy(static[factor].copy())
                source = produced.get(other)
                if source is not None and source["xnode_union_type"] == "XNNFullyConnected":
                    dt = vector
                    weight = file.matrix(graph, values[source["xnode_union"]["filter_id"]])
                    matrix = torch.from_numpy(weight.values.copy())
                elif ends["output_id"] in sums and sums[ends["output_id"]] not in static:
                    decay = vector
    if matrix is None or dt is None or decay is None:
        return None
    return StoredInjection(decay, dt, matrix)


def signatures(file: PteFile) -> dict[str, Signature]:
    """Inputs and outputs of each method, as written; a dynamic dimension has a name."""
    return {name: _signature(file.methods[name], *_NAMES[name]) for name in methods_of(file)}


def _signature(plan: Any, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> Signature:
    def ports(places: list[int], names: tuple[str, ...]) -> list[Port]:
        extra = [f"value_embedding.{index}" for index in range(len(places) - len(names))]
        return [_port(name, plan.values[place].val) for name, place in zip([*names, *extra], places, strict=True)]

    return Signature(inputs=ports(plan.inputs, inputs), outputs=ports(plan.outputs, outputs))


def _port(name: str, tensor: Tensor) -> Port:
    shape: list[int | str] = list(tensor.sizes)
    if tensor.shape_dynamism != TensorShapeDynamism.STATIC:
        axis = 0 if name == "positions" else 1
        shape[axis] = "positions" if name in ("positions", "logits") else "sequence"
    return Port(name=name, dtype=_DTYPES[tensor.scalar_type.name], shape=shape)


def _digest(integers: np.ndarray, scales: np.ndarray) -> str:
    parts = (np.ascontiguousarray(integers, np.int8), np.ascontiguousarray(scales, np.float32))
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()
