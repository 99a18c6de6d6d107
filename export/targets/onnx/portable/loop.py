"""The static form's loop in the portable flavour: a Scan over the caches of a fixed number of loops, flat outside.

An unrolled graph would hold a `DequantizeLinear` of each matrix for each loop, and onnxruntime packs a matrix for each
of them. Here the recurrent block and its quantized matrices are the body of one Scan, so that they are packed once;
clients still see `past_key_values.{i}` and `present.{i}`. Pasts are joined over loops before it; out of it come the
chunk's keys and values only, which are split and appended to the pasts.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import NodeProto, TensorProto, ValueInfoProto, helper

from export.stages import Stage
from export.targets.onnx.graph import declare
from export.targets.onnx.weights import WeightFile
from parcae_mobile.model import Parcae

BODY = "loop/"  # prefix of everything that lies in the Scan's body


def scan_static(
    model: Parcae,
    stage: Stage,
    weights: WeightFile,
    initializers: dict[str, TensorProto],
    loops: int,
    lower: Callable[[dict[str, str]], list[NodeProto]],
) -> list[NodeProto]:
    """Nodes from `state.0` and the flat pasts of the recurrent layers to `state.{loops}` and their presents.

    `lower(names)` gives the stage's nodes; initializers whose names begin with `BODY` move into the body.
    """
    pasts, presents = ([v for v in (*stage.inputs, *stage.outputs) if v.startswith(p)] for p in ("past.", "present."))
    axis = "loop_axis"
    initializers[axis] = weights.initializer(axis, np.array([0], np.int64))
    nodes = [helper.make_node("Unsqueeze", [f"{BODY}slice.{v}", axis], [BODY + v]) for v in pasts]
    nodes += lower({v: BODY + v for v in (*pasts, *presents, "state", "next_state")})
    nodes += [helper.make_node("Squeeze", [BODY + v, axis], [f"{BODY}slice.{v}"]) for v in presents]
    private = [initializers.pop(name) for name in list(initializers) if name.startswith(BODY)]

    def port(value: str, name: str, length: str) -> ValueInfoProto:
        declared = declare(model, "recur", value, length, pads_heads=False)
        declared.name = name
        if value.startswith(("past.", "present.")):  # a slice has no dimension for loops
            del declared.type.tensor_type.shape.dim[0]
        return declared

    body = helper.make_graph(
        nodes,
        "recurrent_block",
        [port("state", f"{BODY}state", ""), *(port(v, f"{BODY}slice.{v}", "past") for v in pasts)],
        [port("next_state", f"{BODY}next_state", ""), *(port(v, f"{BODY}slice.{v}", "sequence") for v in presents)],
        initializer=private,
    )
    joined = [helper.make_node("Concat", _flat(model, v, loops), [f"joined.{v}"], axis=0) for v in pasts]
    scan = helper.make_node(
        "Scan",
        ["state.0", *(f"joined.{v}" for v in pasts)],
        [f"state.{loops}", *(f"joined.{v}" for v in presents)],
        name="recurrence",
        body=body,
        num_scan_inputs=len(pasts),
    )
    outside = []
    for past, present in zip(pasts, presents, strict=True):
        flat = _flat(model, present, loops)
        chunks = [f"chunk.{name}" for name in flat]
        outside.append(helper.make_node("Split", [f"joined.{present}"], chunks, axis=0, num_outputs=loops))
        for before, chunk, name in zip(_flat(model, past, loops), chunks, flat, strict=True):
            outside.append(helper.make_node("Concat", [before, chunk], [name], axis=2))
    return [*joined, scan, *outside]


def _flat(model: Parcae, value: str, loops: int) -> list[str]:
    """`past.1.key` -> the names of that layer's keys for each loop among all layers that a token passes."""
    kind, layer, part = value.split(".")
    config = model.config
    first, step = config.n_layers_in_prelude + int(layer), config.n_layers_in_recurrent_block
    head = "past_key_values" if kind == "past" else "present"
    return [f"{head}.{first + loop * step}.{part}" for loop in range(loops)]
