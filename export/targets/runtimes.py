"""The least version of each runtime that runs an artifact, by what is in it, and the reason.

    least_runtimes("onnx", portable=False, kv_dtype="int8")    # {"onnxruntime": Floor("1.27", ...)}

As measured: artifacts of every form were run in onnxruntime 1.19.2 to 1.32.0, and the greedy tokens compared
(`docs/onnx.md`). ExecuTorch and Core ML are those that the exporter writes for.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Floor:
    """A least version; `portable` and `kv_dtype` say which artifacts it is for (None: all that no earlier row took)."""

    runtime: str
    version: str
    reason: str
    portable: bool | None = None
    kv_dtype: str | None = None

    def holds_for(self, portable: bool, kv_dtype: str) -> bool:
        return self.portable in (None, portable) and self.kv_dtype in (None, kv_dtype)


FLOORS = {
    "onnx": (
        Floor("onnxruntime", "1.19", "INT4 initializers and standard operators of opset 21", portable=True),
        Floor("onnxruntime", "1.27", "GroupQueryAttention with an int8 cache", kv_dtype="int8"),
        Floor("onnxruntime", "1.23", "opset 23"),
    ),
    "executorch": (Floor("executorch", "1.4.1", "the version that wrote the program"),),
    "coreml": (Floor("iOS", "18", "states and int4 weights"), Floor("macOS", "15", "states and int4 weights")),
}


def least_runtimes(target: str, portable: bool, kv_dtype: str) -> dict[str, Floor]:
    """By runtime, the first row that holds; empty for a target of which nothing was measured."""
    floors: dict[str, Floor] = {}
    for floor in FLOORS.get(target, ()):
        if floor.holds_for(portable, kv_dtype):
            floors.setdefault(floor.runtime, floor)
    return floors
