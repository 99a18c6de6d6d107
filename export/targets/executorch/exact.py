"""What an ExecuTorch file is compared with: the eager model, its activations rounded as XNNPACK rounds them.

    host, model = open_exact(folder, manifest, threads), reference(quantized, "int8")

XNNPACK cannot be told not to round. So the reference rounds too: each row of a quantized product's input to int8 with
a scale and a zero point of its own, in XNNPACK's order of operations (`xnn_f32_qd8_asymmetric_quantization_params` and
its `f32-qs8-vcvt` kernels). What is left between the two is a step of one int8 value here and there, where another
order of summation puts a number on the other side of an edge.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from export.targets.executorch.host import open_host
from export.targets.host import Host
from parcae_mobile.layers import linear
from parcae_mobile.manifest import Manifest
from parcae_mobile.model import Parcae
from quantize.apply import QuantizedModel

STILL_ROUNDS = True
LOW, HIGH = -128.0, 127.0


def open_exact(folder: Path, manifest: Manifest, threads: int = 0) -> Host:
    """The file as it is: it has no other way to compute."""
    return open_host(folder, manifest, threads)


def reference(quantized: QuantizedModel, compute: str) -> Parcae:
    """The eager model that rounds where the file does; shares every tensor with `quantized.model`."""
    model = quantized.model
    shared = copy.deepcopy(model, {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())})
    for name, module in list(shared.named_modules()):
        tied = name == "lm_head" and model.config.tie_embeddings
        weight = "transformer.wte.weight" if tied else f"{name}.weight"
        if compute == "int8" and isinstance(module, nn.Linear) and weight in quantized.tensors:
            shared.set_submodule(name, RoundedLinear(module.weight, module.bias))
    return shared


def rewrite(folder: Path, to: Path) -> str | None:
    """Nothing: a program is compiled once, when it is written."""
    return None


class RoundedLinear(nn.Module):
    """`x @ weight^T + bias` with each row of x rounded to int8."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, x: Tensor) -> Tensor:
        return linear(round_rows(x), self.weight, self.bias)


def round_rows(x: Tensor) -> Tensor:
    """(..., width) fp32 -> the values that XNNPACK multiplies with, a scale and a zero point for each row."""
    least, most = x.amin(-1, keepdim=True).clamp_max(0), x.amax(-1, keepdim=True).clamp_min(0)
    steps = torch.where(least == most, 1.0, (HIGH - LOW) / (most - least))
    from_low, from_high = LOW - least * steps, HIGH - most * steps
    upper = (LOW + least * steps) + (HIGH + most * steps) > 0
    zero = torch.where(upper, from_low, from_high).clamp(LOW, HIGH).round()
    rounded = torch.minimum(torch.maximum((x * steps).round(), LOW - zero), HIGH - zero)
    return rounded * (1.0 / steps)
