"""The Core ML target: an `.mlpackage` for iOS 18 and macOS 15, written operation by operation from the traced stages.

    write(quantized, folder, options)  # model.mlpackage: unrolled (coreml_static), stages or while (coreml_dynamic)

Weights are in the package once, in our integers where they are quantized. Whether the package computes the model is
found out by executing it: in the MIL interpreter on Linux, by Core ML itself on macOS (host.py).
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from export.targets.coreml.dynamic import stage_functions, while_functions
from export.targets.coreml.host import PACKAGE
from export.targets.coreml.mil.interpreter import MilProgram
from export.targets.coreml.mil.program import Named, Operation, Reference
from export.targets.coreml.package import save_package
from export.targets.coreml.shapes import LONGEST
from export.targets.coreml.static import static_functions
from export.targets.registry import StoredInjection, WriteOptions
from parcae_mobile.errors import InputError, UsageError
from parcae_mobile.loops import policy_slots
from parcae_mobile.manifest import Port, Signature
from quantize.apply import QuantizedModel

HUB_NAME = "co.huggingface.exporters.name"  # where swift-transformers looks for the tokenizer


def write(quantized: QuantizedModel, folder: Path, options: WriteOptions) -> None:
    """Write `model.mlpackage`. Raises `UsageError` for a static context beyond what an fp16 state can count."""
    context, compute = options.context, options.compute
    metadata = {"loop_form": options.loop_form, "loops": str(options.loops), "context": str(context)}
    metadata["kv_dtype"] = options.kv_dtype
    slots = policy_slots(options.kv_policy, options.max_loops)
    if options.loop_form == "unrolled":
        if context > LONGEST:
            raise UsageError(
                f"--context {context}: a static package counts tokens in an fp16 state, which is exact up to {LONGEST}"
            )
        functions = static_functions(quantized, int(options.loops), slots, context, compute, options.kv_dtype)
        metadata[HUB_NAME] = quantized.config.name or "parcae"
    else:
        make = {"stages": stage_functions, "while": while_functions}[options.loop_form]
        functions = make(quantized, slots, context, compute, options.kv_dtype)
    save_package(folder / PACKAGE, functions, next(iter(functions)), metadata)


def signatures(folder: Path) -> dict[str, Signature]:
    """Inputs and outputs of each function, as written; states are the cache's contract and stand among the inputs."""
    program = MilProgram.open(folder / PACKAGE)

    def ports(named: list[Named]) -> list[Port]:
        return [
            Port(
                name=item.name,
                dtype={"fp16": "float16", "fp32": "float32"}.get(item.type.dtype.name, item.type.dtype.name),
                shape=["sequence" if size is None else size for size in item.type.shape or ()],
            )
            for item in named
        ]

    signature = {}
    for name, function in sorted(program.functions.items()):
        producers = {output.name: output for operation in function.block.walk() for output in operation.outputs}
        outputs = [producers[output] for output in function.block.outputs]
        signature[f"{PACKAGE}:{name}"] = Signature(
            inputs=ports([*function.inputs, *function.states]), outputs=ports(outputs)
        )
    return signature


def read_injection(folder: Path) -> StoredInjection | None:
    """Decay, dt and B by the operations that consume them: decay scales the state, B multiplies, dt scales its product.

    Raises `InputError` if two functions consume different values, or another operation consumes them.
    """
    program = MilProgram.open(folder / PACKAGE)
    consumed: dict[str, Tensor] = {}
    for name, function in program.functions.items():
        for operation in function.block.walk():
            for constant in _constants(operation):
                role = constant.removeprefix("transformer_adapter_").removesuffix("_fp32")
                if role == constant or role not in ("decay", "dt", "B"):
                    continue
                if operation.type != {"B": "linear"}.get(role, "mul"):
                    raise InputError(f"{folder}: {constant} is consumed by {operation.type}; the artifact is not ours")
                value = program.constant(constant, name)
                if role in consumed and not (consumed[role] == value).all():
                    raise InputError(f"{folder}: functions of the package consume different values of {constant}")
                consumed[role] = value
    if set(consumed) != {"decay", "dt", "B"}:
        return None
    return StoredInjection(consumed["decay"], consumed["dt"], consumed["B"])


def _constants(operation: Operation) -> list[str]:
    """Names that an operation reads itself."""
    return [item.name for group in operation.inputs.values() for item in group if isinstance(item, Reference)]
