"""The dynamic forms: one set of weights, the loop count chosen at run time.

`stages`: functions `prelude`, `recur`, `coda` for one token, and `prelude_64`, `recur_64`, `coda_64` for a chunk of 64,
in one package; the app calls `recur` once for each loop, with the loop's first cache slot. All shapes are static, as
the Neural Engine wants them; a shorter chunk is padded, its surplus is overwritten before it is read.
`while`: one function with a `while_loop`; ids of any length, `position` and `loops` are inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from export.stages import Stage, trace_stages
from export.targets.coreml.attention import Caches, cache_shape
from export.targets.coreml.builder import MilWriter, Var, floats, int32, integers, state, write_function
from export.targets.coreml.lowering import StageLowering
from export.targets.coreml.static import chunk_length
from parcae_mobile.model import Parcae
from quantize.apply import QuantizedModel

PREFILL = 64  # tokens of the longer functions' chunks


def stage_functions(quantized: QuantizedModel, slots: int, context: int, compute: str, kv_dtype: str) -> dict[str, Any]:
    """Six MIL functions by name; `slots` is how many loops have cache slots of their own."""
    model = quantized.outline()
    stages, shape = trace_stages(model), cache_shape(model, slots, context, kv_dtype)
    functions = {}
    for chunk in dict.fromkeys((1, min(PREFILL, context))):
        for name, stage in stages.items():
            label = name if chunk == 1 else f"{name}_{PREFILL}"
            functions[label] = _stage_function(stage, stages, quantized, model, slots, shape, compute, chunk)
    return functions


def _stage_function(
    stage: Stage,
    stages: Mapping[str, Stage],
    quantized: QuantizedModel,
    model: Parcae,
    slots: int,
    shape: tuple[int, ...],
    compute: str,
    chunk: int,
) -> Any:
    config, context = model.config, shape[3]
    width = config.recurrent_embedding_dimension
    before = stages["prelude"].kv_layers
    first_slots = {"prelude": 0, "coda": before + slots * stages["recur"].kv_layers}
    kinds = {
        "input_ids": integers(1, chunk),
        "state": floats(1, chunk, width),
        "injected": floats(1, chunk, width),
    }
    names = [n for n in stage.inputs if not n.startswith("past.") and n not in ("total", "positions")]
    specs = {port(n): kinds[n] if n in kinds else floats(1, chunk, config.value_width) for n in names}
    specs["position"] = integers(1)
    if stage.name == "recur":
        specs["slot"] = integers(1)
    # A state that a function neither reads nor writes is none of its: a stage without layers has no caches.
    if stage.kv_layers:
        specs |= {"keyCache": state(*shape), "valueCache": state(*shape)}

    def body(ports: Mapping[str, Var]) -> Sequence[Var]:
        writer = MilWriter(quantized, compute)
        caches = None
        if stage.kv_layers:
            states = ports["keyCache"], ports["valueCache"]
            caches = Caches(writer, model, context, states, ports["position"], chunk)
        inputs: dict[str, Var | None] = {name: ports[port(name)] for name in names}
        inputs |= {name: writer.narrow(ports[port(name)]) for name in names if name not in kinds}
        inputs |= {"total": None, "positions": None}
        slot = ports["slot"] if stage.name == "recur" else first_slots[stage.name]
        results = StageLowering(stage, writer, caches, slot, inputs).run()
        return [writer.output(x, port(name), compute if name == "logits" else "fp32") for name, x in results.items()]

    return write_function(specs if stage.kv_layers else _without(specs, "position", "slot"), context, body)


def while_functions(quantized: QuantizedModel, slots: int, context: int, compute: str, kv_dtype: str) -> dict[str, Any]:
    """One MIL function: `logits` (1, chunk, vocabulary) and the last `state` (1, chunk, width) of any chunk."""
    model = quantized.outline()
    stages, shape = trace_stages(model), cache_shape(model, slots, context, kv_dtype)
    before, layers = stages["prelude"].kv_layers, stages["recur"].kv_layers

    def body(ports: Mapping[str, Var]) -> Sequence[Var]:
        writer, ids = MilWriter(quantized, compute), ports["input_ids"]
        states = ports["keyCache"], ports["valueCache"]
        caches = Caches(writer, model, context, states, ports["position"], chunk_length(writer, ids))
        with writer.part("prelude"):
            hoisted = StageLowering(stages["prelude"], writer, caches, 0, {"input_ids": ids, "total": None}).run()
            zero = writer.narrow(writer.op("fill_like", ref_tensor=hoisted["injected"], value=np.float32(0)))

        def goes_on(loop: Var, current: Var, keys: Var, values: Var) -> Var:
            with writer.block(), writer.part("recur"):
                return writer.op("squeeze", x=writer.op("less", x=loop, y=ports["loops"]), axes=int32(0))

        def once(loop: Var, current: Var, keys: Var, values: Var) -> tuple[Var, ...]:
            with writer.block(), writer.part("recur"):
                caches.current = [keys, values]
                own = writer.op("minimum", x=loop, y=int32(slots - 1))
                slot = writer.op("add", x=writer.op("mul", x=own, y=int32(layers)), y=int32(before))
                inputs = {**hoisted, "state": current, "total": None}
                following = StageLowering(stages["recur"], writer, caches, slot, inputs).run()["next_state"]
                return writer.op("add", x=loop, y=int32(1)), following, *caches.current

        start = writer.op("mul", x=ports["loops"], y=int32(0))
        carried = (start, zero, *caches.read())
        _, final, *caches.current = writer.op("while_loop", _cond=goes_on, _body=once, loop_vars=carried)
        with writer.part("coda"):
            inputs = {"state": final, "input_ids": ids, "positions": None, "total": None}
            logits = StageLowering(stages["coda"], writer, caches, before + slots * layers, inputs).run()["logits"]
        return [writer.output(logits, "logits", compute), writer.output(final, "state", "fp32")]

    specs = {"input_ids": integers(1, None), "position": integers(1), "loops": integers(1)}
    specs |= {"keyCache": state(*shape), "valueCache": state(*shape)}
    return {"main": write_function(specs, context, body)}


def port(name: str) -> str:
    """A stage's input or output as MIL writes names."""
    return name.replace(".", "_")


def _without(specs: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: spec for name, spec in specs.items() if name not in names}
