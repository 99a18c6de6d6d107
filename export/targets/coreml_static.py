"""The static form: the loop unrolled in one function that Hugging Face's swift-transformers loads as it is.

Input `inputIds` (1, 1..context) int32, states `keyCache`, `valueCache` and `position`, output `logits`. The function
itself counts tokens in `position`, because the client passes no position that can be trusted; a new conversation is a
new state. Weights stand in the package once, whatever the loop count.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from export.stages import Stage, trace_stages
from export.targets.coreml_attention import Caches, cache_shape
from export.targets.coreml_builder import MilWriter, Var, int32, mb, types
from export.targets.coreml_lowering import StageLowering
from export.targets.coreml_package import TARGET, ct
from quantize.apply import QuantizedModel


def static_function(quantized: QuantizedModel, loops: int, context: int, compute: str) -> Any:
    """The MIL function of an unrolled model."""
    stages = trace_stages(quantized.model)
    model = quantized.model
    shape = cache_shape(model, loops, context)
    states = [mb.StateTensorSpec(shape, types.fp16), mb.StateTensorSpec(shape, types.fp16)]
    ids = mb.TensorSpec((1, length_symbol()), types.int32)

    @mb.function(input_specs=[ids, *states, mb.StateTensorSpec((1,), types.fp16)], opset_version=TARGET)
    def function(inputIds: Var, keyCache: Var, valueCache: Var, position: Var) -> Var:  # noqa: N803 (the client's)
        writer = MilWriter(quantized, compute)
        start = writer.cast(writer.op("read_state", input=position), "int32")
        caches = Caches(writer, model, context, (keyCache, valueCache), start, chunk_length(writer, inputIds))
        writer.op("coreml_update_state", state=position, value=writer.cast(caches.end, "fp16"))
        logits = run_stages(stages, writer, caches, inputIds, loops)
        return writer.rename(logits, "logits")

    function.set_input_types((ct.TensorType("inputIds", (1, ct.RangeDim(1, context, default=1)), dtype=np.int32),))
    return function


def run_stages(stages: dict[str, Stage], writer: MilWriter, caches: Caches, ids: Var, loops: int) -> Var:
    """Prelude, recurrent block `loops` times, coda; slots in the order in which a token passes them."""
    with writer.part("prelude"):
        given = StageLowering(stages["prelude"], writer, caches, 0, {"input_ids": ids, "total": None}).run()
        slot = stages["prelude"].kv_layers
        state = writer.op("fill_like", ref_tensor=given["injected"], value=np.float32(0))
    for loop in range(loops):
        with writer.part(f"recur_{loop}"):
            given["state"] = state
            state = StageLowering(stages["recur"], writer, caches, slot, {"total": None, **given}).run()["next_state"]
        slot += stages["recur"].kv_layers
    with writer.part("coda"):
        inputs = {"state": state, "input_ids": ids, "positions": None, "total": None}
        return StageLowering(stages["coda"], writer, caches, slot, inputs).run()["logits"]


def chunk_length(writer: MilWriter, ids: Var) -> Var:
    """(1,) int32: how many tokens (1, chunk) ids are."""
    shape = writer.op("shape", x=ids)
    return writer.op("slice_by_index", x=shape, begin=int32(1), end=int32(2))


def length_symbol() -> Any:
    """A size that is known at run time only."""
    from coremltools.converters.mil.mil import get_new_symbol

    return get_new_symbol()
