"""Runs an ExecuTorch program for another process, which gives it calls as lines of JSON and reads its answers as such.

    python android_demo/tools/pte_bridge.py model.pte

The first line says {"version": ...}. A call {"method": "recur", "inputs": [{"dtype", "shape", "data"}, ...]}, data in
base64, little-endian, is answered by {"outputs": [{"shape", "data"}, ...]} in fp32, or by {"error": sentence}.
"""

from __future__ import annotations

import base64
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from export.targets.executorch.host import load_module
from parcae_mobile.errors import InputError


def answer(module: Any, call: dict[str, Any]) -> dict[str, Any]:
    """The outputs of one method."""
    inputs = []
    for item in call["inputs"]:
        numbers = np.frombuffer(base64.b64decode(item["data"]), dtype=np.dtype(item["dtype"]).newbyteorder("<"))
        inputs.append(torch.from_numpy(numbers.reshape(item["shape"]).copy()))
    outputs = []
    for tensor in module.run_method(call["method"], tuple(inputs)):
        numbers = np.ascontiguousarray(tensor.numpy(), dtype="<f4")
        outputs.append({"shape": list(numbers.shape), "data": base64.b64encode(numbers.tobytes()).decode()})
    return {"outputs": outputs}


def say(told: dict[str, Any]) -> None:
    print(json.dumps(told), flush=True)


def main(path: Path) -> None:
    try:
        module = load_module(path, threads=1)
    except InputError as error:
        say({"error": str(error)})
        return
    say({"version": version("executorch")})
    for line in sys.stdin:
        try:
            say(answer(module, json.loads(line)))
        except RuntimeError as error:
            say({"error": str(error).splitlines()[0]})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
