"""What learned rounding trains: a latent for every integer below 8 bits, a log factor for every scale, norm gains.

    student = Student(reference, quantized)
    student.put()                                          # weights of the stored form into `student.model`
    loss.backward(); student.pull()                        # gradients of the latents from those of the weights
    tensors, floats = student.result()                     # integers, scales on their grid

The model computes with rounded latents, so the loss is that of integers; gradients pass the rounding as if it were not
there (straight-through, Bengio et al. 2013, arXiv:1308.3432) and stop where a latent is beyond the integers' range.
With w = (round(v) - z) s e^f per group that is dv = s e^f dw and df = sum(w dw): no graph is kept for it.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor

from parcae_mobile.model import Parcae

from .apply import QuantizedModel, with_tensors
from .recipe import INJECTION_MATRICES, POLES
from .tensor import QuantizedTensor, integer_range, on_scale_grid

# A latent starts where the fp32 weight lies, but rounds to the integer that it was given. What is left to the border is
# the least that the rates of a run must add up to, or no integer moves.
MOST_AWAY = 0.45


class Student:
    """A model to be trained and its trained values by name: `latents`, `factors`, `offsets`.

    `parts` says which of them learn: "rounding", "scales", "gains".
    """

    def __init__(
        self, reference: Parcae, quantized: QuantizedModel, parts: frozenset[str], device: torch.device
    ) -> None:
        own = dict(reference.named_parameters())
        self.quantized, self.device = quantized, device
        self.tensors = quantized.tensors
        self.scales = {name: tensor.scales.to(device) for name, tensor in self.tensors.items()}
        self.latents, self.factors, self.offsets = dict[str, Tensor](), dict[str, Tensor](), dict[str, Tensor]()
        for name, tensor in self.tensors.items():
            if tensor.bits < 8 and "rounding" in parts:
                self.latents[name] = latent(tensor, own[name].detach()).to(device)
            if "scales" in parts:
                self.factors[name] = torch.zeros_like(self.scales[name])
        allowed = (*POLES, *INJECTION_MATRICES) if quantized.recipe.train_injection else ()
        floats = {name: values.detach() for name, values in quantized.model.named_parameters()}
        self.floats = {
            name: values.to(device)
            for name, values in floats.items()
            if name not in quantized.stored and "gains" in parts and (name in allowed or is_norm(name))
        }
        self.sizes = {name: float(values.abs().mean().clamp_min(1e-3)) for name, values in self.floats.items()}
        self.offsets = {name: torch.zeros_like(values) for name, values in self.floats.items()}
        self.model = with_tensors(quantized.model, self.tensors, {n: v.clone().cpu() for n, v in self.floats.items()})
        if device.type != "cpu":
            self.model = copy.deepcopy(self.model).to(device)  # what is shared with the reference stays where it is
        self.weights = {n: p for n, p in self.model.named_parameters() if n in self.tensors or n in self.floats}
        for weight in self.weights.values():
            weight.requires_grad_(True)

    def trained(self) -> dict[str, Tensor]:
        """All trained values under names that tell them apart."""
        kinds = {"latent": self.latents, "factor": self.factors, "offset": self.offsets}
        return {f"{kind}.{name}": values for kind, named in kinds.items() for name, values in named.items()}

    @torch.no_grad()
    def put(self) -> None:
        """Give the model the weights that the trained values stand for, and forget its gradients."""
        for name, tensor in self.tensors.items():
            scale = self._scale(name)[..., None]
            steps = self._integers(name).view(*scale.shape[:2], -1)
            if tensor.zero_points is not None:
                steps = steps - tensor.zero_points[..., None].to(self.device)
            self.weights[name].copy_((steps * scale).view(tensor.shape))
        for name in self.floats:
            self.weights[name].copy_(self._float(name))
        for weight in self.weights.values():
            weight.grad = None

    @torch.no_grad()
    def pull(self) -> None:
        """Gradients of the trained values from those of the model's weights, which are given up."""
        for name, tensor in self.tensors.items():
            weight = self.weights[name]
            slope = _slope(weight).view(*self.scales[name].shape, -1)
            if name in self.factors:
                self.factors[name].grad = (slope * weight.view_as(slope)).sum(-1)
            if name in self.latents:
                low, high = integer_range(tensor.bits, tensor.symmetric)
                values = self.latents[name]
                through = (slope * self._scale(name)[..., None]).view(tensor.shape)
                values.grad = through.mul_((values >= low) & (values <= high))
            weight.grad = None
        for name, size in self.sizes.items():
            weight = self.weights[name]
            self.offsets[name].grad = _slope(weight) * size
            weight.grad = None

    @torch.no_grad()
    def result(self) -> tuple[dict[str, QuantizedTensor], dict[str, Tensor]]:
        """Tensors as they would be stored, scales back on their grid, and the trained floats, on the CPU."""
        tensors = {
            name: replace(
                tensor,
                integers=self._integers(name).to("cpu", torch.int8),
                scales=on_scale_grid(self._scale(name).cpu()),
            )
            for name, tensor in self.tensors.items()
        }
        return tensors, {name: self._float(name).cpu() for name in self.floats}

    def _integers(self, name: str) -> Tensor:
        """(rows, columns), as floats."""
        tensor = self.tensors[name]
        if name not in self.latents:
            return tensor.integers.to(self.device).float()
        return self.latents[name].clamp(*integer_range(tensor.bits, tensor.symmetric)).round_()

    def _scale(self, name: str) -> Tensor:
        return self.scales[name] * self.factors[name].exp() if name in self.factors else self.scales[name]

    def _float(self, name: str) -> Tensor:
        return self.floats[name] + self.offsets[name] * self.sizes[name]


def latent(tensor: QuantizedTensor, weight: Tensor) -> Tensor:
    """(rows, columns) fp32 that round to the tensor's integers, as near to the fp32 weight as that allows."""
    steps = weight.view(*tensor.scales.shape, -1) / tensor.scales[..., None]
    if tensor.zero_points is not None:
        steps = steps + tensor.zero_points[..., None]
    integers = tensor.integers.float()
    return integers + (steps.reshape(tensor.shape) - integers).clamp(-MOST_AWAY, MOST_AWAY)


def _slope(weight: Tensor) -> Tensor:
    """A weight's gradient; zero for a table that the model does not read."""
    return torch.zeros_like(weight) if weight.grad is None else weight.grad


def is_norm(name: str) -> bool:
    """Whether a parameter is a norm's gain (or its bias)."""
    return any(part in name for part in (".norm_1.", ".norm_2.", ".ln_f.", ".ln_prelude."))
