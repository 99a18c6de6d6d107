"""Distillation: scales and norms trained for a short while against the fp32 model's logits, at random loop counts.

    quantized = distill(model, quantized, windows, steps=60, seed=0)

Integers stay as they are. Scales move by factors, in the log domain, and return to their grid at the end; the injection
is left alone unless the recipe says `train_injection = true`. Loss: mean KL(fp32 || quantized) in nats.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from parcae_mobile.errors import TensorValueError, UsageError
from parcae_mobile.model import Parcae

from .apply import Progress, QuantizedModel, with_tensors
from .hessians import calibration_loops
from .recipe import INJECTION_MATRICES, POLES
from .tensor import QuantizedTensor, on_scale_grid

WINDOWS_PER_STEP = 4
RATE = 3e-3  # of Adam, on log scales and on norms as shares of their mean size
WARM_UP = 5  # steps


def distill(
    reference: Parcae,
    quantized: QuantizedModel,
    windows: Tensor,
    steps: int,
    seed: int = 0,
    progress: Progress | None = None,
    rate: float = RATE,
) -> QuantizedModel:
    """The quantized model after `steps` steps on `windows` (n, length) int64. The same seed gives the same model.

    Raises `UsageError` for fewer than one step and `TensorValueError` if the loss is not finite.
    """
    if steps < 1:
        raise UsageError(f"--distill {steps}: give a number of steps of at least 1")
    student = _Student(quantized)
    optimizer = torch.optim.Adam(student.trained(), lr=rate, betas=(0.9, 0.95))
    generator = torch.Generator().manual_seed(seed)
    most = calibration_loops(reference)
    order = torch.cat([torch.randperm(len(windows), generator=generator) for _ in range(_epochs(windows, steps))])
    for step in range(steps):
        ids = windows[order[step * WINDOWS_PER_STEP : (step + 1) * WINDOWS_PER_STEP]]
        loops = int(torch.randint(1, most + 1, (), generator=generator))
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * step / steps))
        loss = _loss(reference, quantized.model, student.parameters(), ids, loops)
        if not torch.isfinite(loss):
            raise TensorValueError(f"distillation step {step + 1}: the loss is not finite; leave --distill out")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if progress is not None:
            progress(f"distillation, KL {loss.item():.4f} at T={loops}", step + 1, steps)
    tensors, floats = student.result()
    notes = [*quantized.notes, f"distilled for {steps} steps of {WINDOWS_PER_STEP} windows, seed {seed}"]
    return replace(quantized, model=with_tensors(quantized.model, tensors, floats), tensors=tensors, notes=notes)


class _Student:
    """What is trained: a log factor for every scale, an offset for every norm (and the injection if allowed)."""

    def __init__(self, quantized: QuantizedModel) -> None:
        own = dict(quantized.model.named_parameters())
        self.tensors = quantized.tensors
        self.factors = {name: torch.zeros_like(t.scales, requires_grad=True) for name, t in self.tensors.items()}
        allowed = (*POLES, *INJECTION_MATRICES) if quantized.recipe.train_injection else ()
        self.floats = {
            name: own[name].detach()
            for name in own
            if name not in quantized.stored and (name in allowed or _is_norm(name))
        }
        self.sizes = {name: values.abs().mean().clamp_min(1e-3) for name, values in self.floats.items()}
        self.offsets = {name: torch.zeros_like(values, requires_grad=True) for name, values in self.floats.items()}

    def trained(self) -> list[Tensor]:
        return [*self.factors.values(), *self.offsets.values()]

    def parameters(self) -> dict[str, Tensor]:
        """Parameters by name, differentiable in what is trained."""
        weights = {name: _weight(self.tensors[name], factor) for name, factor in self.factors.items()}
        return weights | {name: self._float(name) for name in self.floats}

    def result(self) -> tuple[dict[str, QuantizedTensor], dict[str, Tensor]]:
        """Tensors with their scales back on the grid, and the trained floats."""
        tensors = {
            name: replace(self.tensors[name], scales=on_scale_grid(self.tensors[name].scales * factor.detach().exp()))
            for name, factor in self.factors.items()
        }
        return tensors, {name: self._float(name).detach() for name in self.floats}

    def _float(self, name: str) -> Tensor:
        return self.floats[name] + self.offsets[name] * self.sizes[name]


def _weight(tensor: QuantizedTensor, factor: Tensor) -> Tensor:
    """`dequantize` with the scales times exp(factor)."""
    return (tensor.dequantize().view(*factor.shape, -1) * factor.exp()[..., None]).view(tensor.shape)


def _loss(reference: Parcae, model: Parcae, parameters: dict[str, Tensor], ids: Tensor, loops: int) -> Tensor:
    keep = reference.config.vocab_size
    with torch.no_grad():
        target = F.log_softmax(reference(ids, loops)[..., :keep], -1).flatten(0, 1)
    logits = functional_call(model, parameters, (ids, loops))[..., :keep]
    return F.kl_div(F.log_softmax(logits, -1).flatten(0, 1), target, reduction="batchmean", log_target=True)


def _is_norm(name: str) -> bool:
    return any(part in name for part in (".norm_1.", ".norm_2.", ".ln_f.", ".ln_prelude."))


def _epochs(windows: Tensor, steps: int) -> int:
    return math.ceil(steps * WINDOWS_PER_STEP / len(windows))
