"""What a target module offers, and the registry of targets as data.

A target is one module and one row. The module is imported only when it is used, so a missing extra costs nothing until
then and gives one line that says what to install.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol, cast

from parcae_mobile.errors import ToolMissingError, UsageError
from parcae_mobile.loops import LOOPS
from parcae_mobile.threads import default_threads

if TYPE_CHECKING:
    import torch

    from export.targets.host import Host
    from parcae_mobile.kv_cache import CacheScales, CacheSpec
    from parcae_mobile.manifest import Compute, Delegation, LoopForm, Manifest, Signature
    from parcae_mobile.model import Parcae
    from quantize.apply import QuantizedModel

    OpenHost = Callable[[Path, Manifest, int], Host]

DYNAMIC = "dynamic"
Loops = int | str  # a loop count, or "dynamic"


@dataclass(frozen=True)
class WriteOptions:
    """How an artifact is composed. `loops` is a number for static forms; `context` bounds the cache, in tokens."""

    loop_form: LoopForm
    loops: Loops
    max_loops: int
    context: int
    compute: Compute
    kv_policy: str = "full"
    kv_dtype: str = "fp32"
    kv_scales: CacheScales | None = None
    bos: int | None = None
    stops: tuple[int, ...] = ()  # ids that end a text
    portable: bool = False  # ONNX: standard operators only
    last_logits: bool = False  # ONNX, static: logits of the last position only
    counts: tuple[int, ...] = ()  # all static loop counts where several share a folder; `loops` is one of them

    @property
    def graphs(self) -> dict[int, str]:
        """The model file of each loop count where several share a folder: stock clients look for `model.onnx`."""
        return {count: "model.onnx" if count == self.loops else f"model_T{count}.onnx" for count in self.counts}

    @property
    def cache(self) -> CacheSpec:
        """The kind of cache, for the eager model that the artifact is compared with."""
        from parcae_mobile.kv_cache import CacheSpec

        return CacheSpec(self.kv_policy, self.kv_dtype, self.kv_scales)

    def verified_loops(self, trained: int = 1) -> list[int]:
        """The loop counts at which the gates run: every static one, or some, the `trained` one and the greatest."""
        if self.loops != DYNAMIC:
            return list(self.counts) or [int(self.loops)]
        return sorted({count for count in (*LOOPS, trained, self.max_loops) if count <= self.max_loops})


@dataclass(frozen=True)
class Footprint:
    """What an export takes of the machine: bytes of the libraries before any model, and copies of the model in fp32 at
    the peak, with and without gates. Seconds of one core: of the libraries, and for each gigabyte of the model in fp32.
    """

    library_bytes: int = 700_000_000
    copies: float = 2.4
    copies_written: float = 1.5  # without gates: the fp32 model and its integers, or those and dequantized weights
    seconds: float = 15.0
    seconds_written: float = 20.0  # for each gigabyte, without gates
    seconds_judged: float = 170.0  # for each gigabyte, by the gates
    writes_twice: bool = False  # a converter writes the file, and it is copied from there


@dataclass(frozen=True)
class StoredInjection:
    """The injection's tensors as the finished artifact's graphs consume them."""

    decay: torch.Tensor
    dt: torch.Tensor
    matrix: torch.Tensor


class TargetModule(Protocol):
    """The functions of a target's module."""

    def write(self, quantized: QuantizedModel, folder: Path, options: WriteOptions) -> dict[str, Delegation] | None:
        """Write the model files into an existing folder, deterministically.

        Returns by method what a delegate took, if the target's runtime has delegates. Raises `GateError` if too little.
        """
        ...

    def signatures(self, folder: Path) -> dict[str, Signature]:
        """Inputs and outputs by file (or function), read back from the written files."""
        ...

    def read_injection(self, folder: Path) -> StoredInjection | None:
        """The tensors that the graphs consume, from the written files; None if the injection is not diagonal."""
        ...


class ExactModule(Protocol):
    """How a target's artifacts are asked whether they are the right function."""

    STILL_ROUNDS: bool  # whether the host rounds activations as the published one does

    def open_exact(self, folder: Path, manifest: Manifest, threads: int) -> Host:
        """A host of the same files that rounds no activation, if there is one."""
        ...

    def reference(self, quantized: QuantizedModel, compute: str) -> Parcae:
        """The eager model with the values that the files store, which rounds what that host rounds."""
        ...

    def rewrite(self, folder: Path, to: Path) -> str | None:
        """Write the artifact into a folder as tools that re-process or compile it may write it; says which tools.

        None where nothing rewrites this target's artifacts.
        """
        ...


@dataclass(frozen=True)
class Target:
    """A registry row."""

    name: str
    title: str  # as a reader calls it
    module: str | None  # None: planned, not built
    shapes_module: str  # its `refusal(asked)` says why a shape cannot be written, and imports nothing heavy
    host_module: str | None  # its `open_host(folder, manifest, threads)` gives a Host; it imports no torch if it can
    exact_module: str  # the artifact with rounding out of the way, and what it is compared with
    extra: str
    packages: tuple[str, ...]  # what the extra installs that is reported in the manifest
    dynamic_forms: tuple[LoopForm, ...]  # the first is the default
    static_forms: tuple[LoopForm, ...]
    computes: tuple[Compute, ...]
    kv_dtypes: tuple[str, ...]  # the first is the default, unless fp32 compute can have an fp32 cache
    shared_kv_forms: tuple[LoopForm, ...]  # forms whose host can let loops share a cache slot
    host_runtime: str
    runtime_module: str  # what executes an artifact: `doctor` imports it
    layout: str = ""  # how stored integers differ from the quantized tensors in place, for the manifest
    stores_fp16: bool = True  # whether a matrix that a recipe rounds to fp16 takes fewer bytes
    memory_module: str | None = None  # its `report(folder, manifest)` gives rows of resident bytes by loop count
    zero_points: bool = True  # integers that are not symmetric around zero
    palettes: bool = False  # matrices as indices into tables of values
    portable_forms: tuple[LoopForm, ...] = ()  # forms that exist without the runtime's own operators (`--portable`)
    portable_shared_kv_forms: tuple[LoopForm, ...] = ()  # those of them whose loops can share a cache slot
    last_logits_forms: tuple[LoopForm, ...] = ()  # forms that give the last position's logits alone by default
    delegate_module: str | None = None  # its `check_delegate(name)` raises for a delegate that cannot be lowered to
    shares_static: bool = False  # static loop counts are small graphs over one weights file, and go into one folder
    footprint: Footprint = Footprint()  # what an export takes of the machine; measured: docs/trust.md

    def default_kv_dtype(self, compute: Compute | str) -> str:
        """The cache's type where none is asked for: nothing is rounded in it where arithmetic is fp32."""
        return "fp32" if compute == "fp32" and "fp32" in self.kv_dtypes else self.kv_dtypes[0]

    def shares_slots(self, form: LoopForm | str, portable: bool) -> bool:
        """Whether loops can share a cache slot."""
        return form in (self.portable_shared_kv_forms if portable else self.shared_kv_forms)

    def forms(self, loops: Loops) -> tuple[LoopForm, ...]:
        return self.dynamic_forms if loops == DYNAMIC else self.static_forms


TARGETS = {
    target.name: target
    for target in (
        Target(
            name="onnx",
            title="ONNX",
            module="export.targets.onnx.writer",
            shapes_module="export.targets.onnx.shapes",
            host_module="export.targets.onnx.runtime.open",
            exact_module="export.targets.onnx.exact",
            extra="onnx",
            packages=("torch", "onnx", "onnxruntime"),
            dynamic_forms=("stages", "scan"),
            static_forms=("unrolled",),
            computes=("fp32", "int8"),
            kv_dtypes=("fp32", "int8"),
            shared_kv_forms=("stages", "unrolled"),
            host_runtime="onnxruntime",
            runtime_module="onnxruntime",
            layout="queries and keys of one format lie in one initializer, keys' rows last: c_q.weight+c_k.weight",
            shares_static=True,
            portable_forms=("stages", "unrolled"),
            portable_shared_kv_forms=("stages",),  # the portable unrolled graph scans over its slots
            last_logits_forms=("unrolled",),
        ),
        Target(
            name="executorch",
            title="ExecuTorch",
            module="export.targets.executorch.writer",
            shapes_module="export.targets.executorch.shapes",
            host_module="export.targets.executorch.host",
            exact_module="export.targets.executorch.exact",
            extra="executorch",
            packages=("torch", "executorch", "torchao"),
            dynamic_forms=("stages",),
            static_forms=("unrolled",),
            computes=("fp32", "int8"),
            kv_dtypes=("fp32",),
            shared_kv_forms=("stages", "unrolled"),
            host_runtime="executorch",
            runtime_module="executorch.extension.pybindings._portable_lib",
            stores_fp16=False,
            zero_points=False,
            memory_module="export.targets.executorch.memory",
            delegate_module="export.targets.executorch.writer",
            footprint=Footprint(950_000_000, 2.5, 1.6, 50.0, 45.0, 130.0, writes_twice=True),
        ),
        Target(
            name="coreml",
            title="Core ML",
            module="export.targets.coreml.writer",
            shapes_module="export.targets.coreml.shapes",
            host_module="export.targets.coreml.host",
            exact_module="export.targets.coreml.exact",
            extra="coreml",
            packages=("torch", "coremltools"),
            dynamic_forms=("stages", "while"),
            static_forms=("unrolled",),
            computes=("fp16", "fp32"),
            kv_dtypes=("fp16", "fp32"),
            shared_kv_forms=("stages", "while", "unrolled"),
            host_runtime="coreml" if sys.platform == "darwin" else "mil-interpreter",
            runtime_module="export.targets.coreml.engine",
            palettes=True,
            footprint=Footprint(1_100_000_000, 2.25, 1.5, 15.0, 20.0, 210.0, writes_twice=True),
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
    return cast(TargetModule, _import(target, target.module))


def load_host(target: Target) -> OpenHost:
    """The function that opens a target's artifacts on this machine. Raises as `load_target` does.

    Its last argument is the number of threads; 0 is the default for the model's width.
    """
    open_host = cast("OpenHost", _import(target, target.host_module).open_host)

    def with_threads(folder: Path, manifest: Manifest, threads: int) -> Host:
        return open_host(folder, manifest, threads or default_threads(manifest.geometry.state_width))

    return with_threads


def check_delegate(target: Target, delegate: str) -> None:
    """Raise if `--delegate` names what this target or its installed runtime cannot lower to."""
    if target.delegate_module is None:
        raise UsageError(f"--delegate {delegate}: only ExecuTorch has delegates, not {target.name}")
    _import(target, target.delegate_module).check_delegate(delegate)


def load_runtime(target: Target) -> ModuleType:
    """Import what executes a target's artifacts here. Raises as `load_target` does."""
    return _import(target, target.runtime_module)


def load_exact(target: Target) -> ExactModule:
    """A target's host without rounding. Raises as `load_target` does."""
    return cast(ExactModule, _import(target, target.exact_module))


def memory_report(target: Target, folder: Path, manifest: Manifest) -> list[dict[str, Any]]:
    """Resident memory of an artifact by loop count, where exporting measures it; `bench` does so for every target."""
    if target.memory_module is None:
        return []
    rows: list[dict[str, Any]] = _import(target, target.memory_module).report(folder, manifest)
    return rows


def _import(target: Target, module: str | None) -> ModuleType:
    if module is None:
        raise ToolMissingError(f"target {target.name} is not built in this version")
    try:
        return importlib.import_module(module)
    except ImportError as error:
        hint = f"pip install 'parcae-mobile[{target.extra}]'"
        raise ToolMissingError(f"target {target.name} needs {error.name or 'a package'}: {hint}") from None
