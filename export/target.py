"""What a target module offers, and the registry of targets as data.

A target is one module and one row. The module is imported only when it is used, so a missing extra costs nothing until
then and gives one line that says what to install.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Protocol, cast

from parcae_mobile.errors import ToolMissingError, UsageError
from parcae_mobile.manifest import Manifest, Signature
from parcae_mobile.parity import LOOPS
from quantize.apply import QuantizedModel

if TYPE_CHECKING:
    import torch

    from .hosts.base import Host

DYNAMIC = "dynamic"
Loops = int | str  # a loop count, or "dynamic"


@dataclass(frozen=True)
class WriteOptions:
    """How an artifact is composed. `loops` is a number for static forms; `context` bounds the cache, in tokens."""

    loop_form: str
    loops: Loops
    max_loops: int
    context: int
    compute: str

    def verified_loops(self) -> list[int]:
        """The loop counts at which the gates run."""
        if self.loops != DYNAMIC:
            return [int(self.loops)]
        return [count for count in LOOPS if count <= self.max_loops]


@dataclass(frozen=True)
class StoredInjection:
    """The injection's tensors as the finished artifact's graphs consume them."""

    decay: torch.Tensor
    dt: torch.Tensor
    matrix: torch.Tensor


class TargetModule(Protocol):
    """The functions of a target's module."""

    def write(self, quantized: QuantizedModel, folder: Path, options: WriteOptions) -> None:
        """Write the model files into an existing folder. Deterministic."""
        ...

    def signatures(self, folder: Path) -> dict[str, Signature]:
        """Inputs and outputs by file (or function), read back from the written files."""
        ...

    def open_host(self, folder: Path, manifest: Manifest, threads: int) -> Host:
        """A runtime that executes the artifact on this machine."""
        ...

    def read_injection(self, folder: Path) -> StoredInjection | None:
        """The tensors that the graphs consume, from the written files; None if the injection is not diagonal."""
        ...


@dataclass(frozen=True)
class Target:
    """A registry row."""

    name: str
    module: str | None  # None: planned, not built
    extra: str
    packages: tuple[str, ...]  # what the extra installs that is reported in the manifest
    dynamic_forms: tuple[str, ...]  # the first is the default
    static_forms: tuple[str, ...]
    computes: tuple[str, ...]
    host_runtime: str
    minimum_runtime: tuple[tuple[str, str], ...] = ()

    def forms(self, loops: Loops) -> tuple[str, ...]:
        return self.dynamic_forms if loops == DYNAMIC else self.static_forms


TARGETS = {
    target.name: target
    for target in (
        Target(
            name="onnx",
            module="export.targets.onnx",
            extra="onnx",
            packages=("torch", "onnx", "onnxruntime"),
            dynamic_forms=("stages", "scan"),
            static_forms=("unrolled",),
            computes=("fp32", "int8"),
            host_runtime="onnxruntime",
            minimum_runtime=(("onnxruntime", "1.31"),),
        ),
        Target(
            "executorch", None, "executorch", ("torch", "executorch"), ("stages",), ("unrolled",), ("fp32", "int8"), ""
        ),
        Target(
            "coreml", None, "coreml", ("torch", "coremltools"), ("stages", "while"), ("unrolled",), ("fp16", "fp32"), ""
        ),
    )
}


def find_target(name: str) -> Target:
    """A registry row by name. Raises `UsageError` for an unknown one."""
    if name not in TARGETS:
        raise UsageError(f"unknown target {name!r}; choose one of {', '.join(TARGETS)} or all")
    return TARGETS[name]


def load_target(target: Target) -> TargetModule:
    """Import a target's module. Raises `ToolMissingError` if it is not built or its extra is not installed."""
    if target.module is None:
        raise ToolMissingError(f"target {target.name} is not built in this version; onnx is")
    try:
        module: ModuleType = importlib.import_module(target.module)
    except ImportError as error:
        hint = f"pip install 'parcae-mobile[{target.extra}]'"
        raise ToolMissingError(f"target {target.name} needs {error.name or 'a package'}: {hint}") from None
    return cast(TargetModule, module)
