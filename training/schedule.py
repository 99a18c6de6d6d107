"""Parameter groups and their trapezoidal learning rates.

Muon takes the matrices of the blocks, AdamW the rest. Rates rise over the first steps, stay, and fall linearly to
zero over the last part of the run; Muon's weight decay falls over the whole run.
"""

from __future__ import annotations

import torch
from torch import nn

from .muon import Muon

WARM_UP_STEPS = 40
COOL_DOWN = 0.5
MUON_DECAY = 0.1


def trapezoid(step: int, progress: float) -> float:
    """Factor on all rates at a step (from 0) and a progress of the run in [0, 1]."""
    rise = min(1.0, (step + 1) / WARM_UP_STEPS)
    return rise * min(1.0, max(0.0, (1 - progress) / COOL_DOWN))


def optimisers(model: nn.Module, muon_rate: float, embedding_rate: float) -> list[torch.optim.Optimizer]:
    """Muon and AdamW over what is not frozen; the injection and its read-out learn at half the embeddings' rate."""
    matrices, tables, injection = [], [], []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if "adapter" in name or name.startswith("transformer.C."):
            injection.append(parameter)
        elif "wte" in name or "value_embeds" in name or "lm_head" in name or parameter.dim() < 2:
            tables.append(parameter)
        else:
            matrices.append(parameter)
    adam = torch.optim.AdamW(
        [{"params": tables, "lr": embedding_rate}, {"params": injection, "lr": embedding_rate / 2}],
        betas=(0.8, 0.95),
        eps=1e-10,
        weight_decay=0.0,
    )
    both: list[torch.optim.Optimizer] = [Muon(matrices, lr=muon_rate, weight_decay=MUON_DECAY), adam]
    for optimiser in both:
        for group in optimiser.param_groups:
            group["full_rate"] = group["lr"]
    return both


def set_rates(optimisers: list[torch.optim.Optimizer], step: int, progress: float) -> None:
    """Give every group its rate for the step."""
    factor = trapezoid(step, progress)
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = group["full_rate"] * factor
            if isinstance(optimiser, Muon):
                group["weight_decay"] = MUON_DECAY * (1 - progress)
