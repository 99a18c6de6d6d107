"""A small artifact's manifest that is right, for tests that change a part of it."""

from __future__ import annotations

import copy
from typing import Any

STAGES = {"prelude": 1, "core_block": 1, "coda": 1}
VERDICT: dict[str, Any] = {"passed": True, "by_loops": {"1": {"kl_mean": 0.0}}}
_VALUES: dict[str, Any] = {
    "artifact": "m-onnx-dynamic-int8",
    "model": "m",
    "weights_sha256": "0" * 64,
    "target": "onnx",
    "loops": "dynamic",
    "max_loops": 16,
    "trained_loops": 4,
    "loop_form": "stages",
    "compute": "int8",
    "promise": "a rate",
    "geometry": {
        "layers": STAGES,
        "heads": STAGES,
        "head_size": STAGES,
        "state_width": 8,
        "vocab_size": 60,
        "padded_vocab_size": 64,
        "context": 96,
    },
    "signature": {},
    "bos": 0,
    "eos": None,
    "kv": {"policy": "full", "dtype": "fp32", "bytes_per_token": {"1": 24}, "context": 96},
    "quantization": {"recipe": "int8", "algorithm": "rtn", "tensors": {}},
    "certificate": {"max_decay": 0.5, "max_decay_checkpoint": 0.5, "injection_matrix_equal": True},
    "lowering": VERDICT,
    "compression": VERDICT,
    "reference": None,
    "verified_by": "onnxruntime",
    "memory_bytes": 5,
    "minimum_runtime": {},
    "tools": {},
}


def manifest_values(**changes: Any) -> dict[str, Any]:
    """The values of `manifest.json`, without files, with parts replaced."""
    return copy.deepcopy(_VALUES) | {"files": {}} | changes
