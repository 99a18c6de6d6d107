"""The ExecuTorch target: one `.pte`, unrolled for stock clients or in three methods whose loop the host runs.

    write_static(quantized, folder, loops=4, context=2048)         # forward(tokens, input_pos), for TextLLMRunner
    write_dynamic(quantized, folder, max_loops=16, context=2048)   # prelude, recur, coda: any T up to max_loops

Matrices go to XNNPACK with the recipe's integers and int8 activations, caches are buffers of the runtime that the file
does not hold, attention is ExecuTorch's fused kernel. A tied table is stored once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from export.targets.executorch import readback
from export.targets.executorch.file import PteFile, store_once
from export.targets.executorch.host import MODEL
from export.targets.executorch.layers import friendly_model
from export.targets.executorch.lowering import lower
from export.targets.executorch.stages import POSITIONS_AT_ONCE, trace_methods, trace_unrolled
from export.targets.registry import StoredInjection, WriteOptions
from parcae_mobile.errors import ToolMissingError, UsageError
from parcae_mobile.loops import policy_slots
from parcae_mobile.manifest import Delegation, Signature
from quantize.apply import QuantizedModel

CHUNK = 256  # tokens at once: activations are planned for that many, and planned memory is resident memory
# Why a delegate that ExecuTorch has cannot be written here, in the order of how often it is asked for.
REFUSED = {
    "coreml": "its file grows by one copy of the recurrent block per loop; use --target coreml, which keeps one",
    "vulkan": "the wheel's serializer rejects the constants of this model's attention; use xnnpack",
    "mps": "the wheel's serializer writes JSON that its own compiler rejects; use --target coreml",
    "mlx": "the wheel comes without the delegate's generated files; use --target coreml",
    "qnn": "it needs Qualcomm's SDK, which is no Python package; use xnnpack, or --target onnx with its QNN provider",
}


def write(quantized: QuantizedModel, folder: Path, options: WriteOptions) -> dict[str, Delegation]:
    """Write `model.pte` in the form that the options name; returns what XNNPACK took of each method."""
    if quantized.tensors and options.compute != "int8":
        raise UsageError(
            f"--compute {options.compute}: ExecuTorch multiplies quantized matrices with int8 activations only; "
            "use --compute int8, or --quant fp32"
        )
    slots = policy_slots(options.kv_policy, options.max_loops)
    if options.loop_form == "stages":
        return write_dynamic(quantized, folder, options.max_loops, options.context, slots=slots)
    loops = int(options.loops)
    return write_static(quantized, folder, loops, options.context, slots=slots, bos=options.bos, stops=options.stops)


def signatures(folder: Path) -> dict[str, Signature]:
    """Inputs and outputs by method, as written."""
    return readback.signatures(PteFile((folder / MODEL).read_bytes()))


def read_injection(folder: Path) -> StoredInjection | None:
    """Decay, dt and B as the finished file's graphs consume them; None if the injection is not diagonal."""
    return readback.read_injection(PteFile((folder / MODEL).read_bytes()))


def write_static(
    quantized: QuantizedModel,
    folder: Path,
    loops: int,
    context: int,
    delegate: str = "xnnpack",
    slots: int | None = None,
    chunk: int = CHUNK,
    bos: int | None = None,
    stops: Sequence[int] = (),
) -> dict[str, Delegation]:
    """Write `model.pte` with `loops` loops unrolled and `slots` cache slots (one per loop if None).

    Signature and constant methods are those of the stock text runner. Returns what XNNPACK took. Raises `UsageError`
    for a delegate or a format that cannot be written, `GateError` if too little is delegated.
    """
    check_delegate(delegate)
    check_quantization(quantized)
    config = quantized.config
    chunk = min(chunk, context)
    programs = trace_unrolled(friendly_model(quantized), context, loops, slots or loops, chunk)
    constants: dict[str, Any] = {
        "get_max_seq_len": chunk,
        "get_max_context_len": context,
        "get_vocab_size": config.vocab_size,
        "get_n_layers": config.layers(loops),
        "use_kv_cache": True,
        "use_sdpa_with_kv_cache": True,
        "enable_dynamic_shape": True,
    }
    if bos is not None:
        constants["get_bos_id"] = bos
    if stops:
        constants["get_eos_ids"] = list(stops)
    return _write(folder, programs, constants)


def write_dynamic(
    quantized: QuantizedModel,
    folder: Path,
    max_loops: int,
    context: int,
    delegate: str = "xnnpack",
    slots: int | None = None,
    chunk: int = CHUNK,
) -> dict[str, Delegation]:
    """Write `model.pte` with the methods prelude, recur and coda. As `write_static` otherwise."""
    check_delegate(delegate)
    check_quantization(quantized)
    slots, chunk = slots or max_loops, min(chunk, context)
    programs = trace_methods(friendly_model(quantized), context, slots, chunk)
    config = quantized.config
    constants = {
        "get_max_seq_len": chunk,
        "get_max_context_len": context,
        "get_max_loops": max_loops,
        "get_cache_slots": slots,
        "get_positions_at_once": min(POSITIONS_AT_ONCE, chunk),
        "get_vocab_size": config.vocab_size,
    }
    return _write(folder, programs, constants)


def _write(folder: Path, programs: dict[str, Any], constants: dict[str, Any]) -> dict[str, Delegation]:
    data, delegation = lower(programs, dict(sorted(constants.items())))
    with (folder / MODEL).open("wb") as file:
        file.writelines(store_once(data))
    return delegation


def check_delegate(name: str) -> None:
    """Raise `ToolMissingError` for a delegate that cannot be lowered here, `UsageError` for an unknown one."""
    if name == "xnnpack":
        return
    if name in REFUSED:
        raise ToolMissingError(f"--delegate {name}: {REFUSED[name]}")
    raise UsageError(f"--delegate {name}: unknown; choose xnnpack ({', '.join(REFUSED)} are refused by name)")


def check_quantization(quantized: QuantizedModel) -> None:
    """Raise `UsageError` for a quantized injection: XNNPACK would quantize the activations that feed the poles."""
    for name in quantized.tensors:
        if name.startswith("transformer.adapter."):
            raise UsageError(f"ExecuTorch: {name} stays float in this target; remove quantize_injection_matrix")
