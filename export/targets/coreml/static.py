"""The static form: the loop unrolled in one function that Hugging Face's swift-transformers loads as it is.

Input `inputIds` (1, 1..context) int32, states `keyCache`, `valueCache` and `position`, output `logits`. The function
itself counts tokens in `position`, because the client passes no position that can be trusted; a new conversation is a
new state. Weights stand in the package once, whatever the loop count.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from export.stages import Stage, trace_stages
from export.targets.coreml.attention import Caches, cache_shape
from export.targets.coreml.builder import MilWriter, Var, int32, integers, state, write_function
from export.targets.coreml.lowering import StageLowering
from quantize.apply import QuantizedModel


def static_functions(
    quantized: QuantizedModel, loops: int, slots: int, context: int, compute: str, kv_dtype: str
) -> dict[str, Any]:
    """The one MIL function of an unrolled model; `slots` is how many loops have cache slots of their own."""
    model = quantized.outline()
    stages, shape = trace_stages(model), cache_shape(model, slots, context, kv_dtype)

    def body(inputs: Mapping[str, Var]) -> list[Var]:
        writer, ids = MilWriter(quantized, compute), inputs["inputIds"]
        start = writer.cast(writer.op("read_state", input=inputs["position"]), "int32")
        states = inputs["keyCache"], inputs["valueCache"]
        caches = Caches(writer, model, context, states, start, chunk_length(writer, ids))
        writer.op("coreml_update_state", state=inputs["position"], value=writer.cast(caches.end, "fp16"))
        return [writer.output(run_stages(stages, writer, caches, ids, loops, slots), "logits", compute)]

    specs = {"inputIds": integers(1, None), "keyCache": state(*shape), "valueCache": state(*shape)}
    return {"main": write_function(specs | {"position": state(1)}, context, body)}


def run_stages(stages: dict[str, Stage], writer: MilWriter, caches: Caches, ids: Var, loops: int, slots: int) -> Var:
    """Prelude, recurrent block `loops` times, coda; slots in the order in which a token passes them.

    Loops beyond `slots` share the last one: within the chunk each overwrites it before it reads.
    """
    with writer.part("prelude"):
        values = StageLowering(stages["prelude"], writer, caches, 0, {"input_ids": ids, "total": None}).run()
        current = writer.op("fill_like", ref_tensor=values["injected"], value=np.float32(0))
    before, layers = stages["prelude"].kv_layers, stages["recur"].kv_layers
    for loop in range(loops):
        with writer.part(f"recur_{loop}"):
            inputs, slot = {**values, "state": current, "total": None}, before + layers * min(loop, slots - 1)
            current = StageLowering(stages["recur"], writer, caches, slot, inputs).run()["next_state"]
    with writer.part("coda"):
        inputs = {"state": current, "input_ids": ids, "positions": None, "total": None}
        return StageLowering(stages["coda"], writer, caches, before + layers * slots, inputs).run()["logits"]


def chunk_length(writer: MilWriter, ids: Var) -> Var:
    """(1,) int32: how many tokens (1, chunk) ids are."""
    shape = writer.op("shape", x=ids)
    return writer.op("slice_by_index", x=shape, begin=int32(1), end=int32(2))
