"""What a `.pte` costs in memory, measured in a fresh process: resident bytes after loading and after some tokens.

    python -m export.targets.executorch.memory model.pte --loops 8 --weight-cache
    after = measure(path, loops=16, weight_cache=False)    # bytes above the empty process, after load and run
    rows = report(folder, manifest)                        # the rows that an export prints

XNNPACK packs a matrix anew for every node that reads it, so an unrolled program holds the recurrent block once per
loop, unless its weight cache is on. An app turns the cache on before it loads the program; Python has no call for it,
so this measurement reaches for the C++ one, by the name that this version of the package gives it.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from executorch.extension.pybindings import _portable_lib

from export.targets.executorch.host import MODEL, load_kernels, set_threads
from export.targets.host import CacheGeometry
from parcae_mobile.errors import ToolMissingError
from parcae_mobile.manifest import Manifest

_STATUS = Path("/proc/self/status")
FIELDS = ("VmRSS", "RssAnon", "RssFile", "VmHWM")
_SET_OPTION = "_ZN10executorch7runtime10set_optionEPKcNS0_4SpanINS0_13BackendOptionEEE"
_BACKENDS = "backends/qualcomm/libqnn_executorch_backend.so"  # the library of the package that exports the call


class _Option(ctypes.Structure):
    """`BackendOption` of the runtime: a key, and a variant whose first alternative is a bool."""

    _fields_ = [
        ("key", ctypes.c_char * 64),
        ("value", ctypes.c_char * 256),
        ("kind", ctypes.c_ubyte),
        ("padding", ctypes.c_ubyte * 3),
    ]


class _Span(ctypes.Structure):
    _fields_ = [("data", ctypes.POINTER(_Option)), ("size", ctypes.c_size_t)]


def measure(path: Path, loops: int, weight_cache: bool = False, tokens: int = 4) -> dict[str, dict[str, int]]:
    """Bytes above the process before it loads the program, after load and after `tokens` single tokens. Linux only."""
    command = [sys.executable, "-m", __name__, str(path), "--loops", str(loops), "--tokens", str(tokens)]
    ran = subprocess.run(
        command + ["--weight-cache"] * weight_cache, capture_output=True, text=True, check=True, cwd=_root()
    )
    report: dict[str, dict[str, int]] = json.loads(ran.stdout)
    return report


def report(folder: Path, manifest: Manifest) -> list[dict[str, Any]]:
    """Resident memory of an artifact, one row for each process: of the dynamic form at the fewest and the most loops,
    of the unrolled one without and with XNNPACK's weight cache.

    `peak` is in bytes above the empty process, loading and four single tokens; `caches` of them are keys and values,
    which the runtime allocates for the whole context. Empty where the system does not tell resident memory.
    """
    if not _STATUS.exists():
        return []
    geometry = CacheGeometry.from_manifest(manifest)
    wanted = [(manifest.min_loops, False), (manifest.max_loops, False)]
    if manifest.loop_form == "unrolled":
        wanted = [(manifest.max_loops, False), (manifest.max_loops, True)]
    rows = []
    for loops, weight_cache in wanted:
        after = measure(folder / MODEL, loops, weight_cache)
        rows.append(
            {
                "loops": loops,
                "weight_cache": weight_cache,
                "peak": after["run"]["VmHWM"],
                "caches": geometry.bytes_per_token(geometry.slots) * geometry.context,
            }
        )
    return rows


def enable_weight_cache() -> None:
    """Turn XNNPACK's weight cache on for this process, before a program is loaded. Raises `ToolMissingError`."""
    library = ctypes.CDLL(str(resources.files("executorch").joinpath(_BACKENDS)))
    try:
        call = getattr(library, _SET_OPTION)
    except AttributeError:
        raise ToolMissingError("this executorch has no set_option under the known name; measure with 1.4.1") from None
    call.restype, call.argtypes = ctypes.c_uint32, [ctypes.c_char_p, _Span]
    option = _Option(key=b"weight_cache_enabled")
    option.value = b"\1"
    code = call(b"XnnpackBackend", _Span(ctypes.pointer(option), 1))
    if code:
        raise ToolMissingError(f"XNNPACK refuses its weight cache (code {code}); measure without --weight-cache")


def resident() -> dict[str, int]:
    """Resident bytes of this process by kind."""
    lines = (line.partition(":") for line in _STATUS.read_text(encoding="ascii").splitlines())
    return {key: int(value.split()[0]) * 1024 for key, _, value in lines if key in FIELDS}


def run(module: Any, loops: int, position: int) -> None:
    """One token through a program, whatever its form; all tensors are torch's."""
    ids, past = torch.tensor([[1]]), torch.tensor([position])
    if "forward" in module.method_names():
        module.run_method("forward", (ids, past))
        return
    injected, *values = module.run_method("prelude", (ids, past))
    state, slots = torch.zeros_like(injected), int(module.run_method("get_cache_slots", ())[0])
    for loop in range(loops):
        slot = torch.tensor([min(loop, slots - 1)])
        (state,) = module.run_method("recur", (state, injected, past, slot, *values))
    module.run_method("coda", (state, ids, past, torch.tensor([0])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=Path)
    parser.add_argument("--loops", type=int, required=True)
    parser.add_argument("--tokens", type=int, default=4)
    parser.add_argument("--weight-cache", action="store_true")
    arguments = parser.parse_args()
    load_kernels()
    if arguments.weight_cache:
        enable_weight_cache()
    set_threads(1)
    before = resident()
    module = _portable_lib._load_for_executorch(str(arguments.program))
    for name in module.method_names():
        module.method_meta(name)
    report = {"load": _above(before)}
    for position in range(arguments.tokens):
        run(module, arguments.loops, position)
    report["run"] = _above(before)
    print(json.dumps(report))


def _above(before: dict[str, int]) -> dict[str, int]:
    return {key: value - before[key] for key, value in resident().items()}


def _root() -> Path:
    return Path(__file__).resolve().parents[3]


if __name__ == "__main__":
    main()
