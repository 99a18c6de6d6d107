"""Injection: how the prelude's output enters the recurrent state at each loop.

The diagonal injection is the model's stability: `x' = decay * x + dt * (e @ B^T)` with
`decay = exp(-softplus(dt_bias) * exp(A_log))`, which is below 1 for every finite parameter (Parcae, 2026, the
discretised diagonal system); in fp32 a pole nearer to 1 than 6e-8 rounds to 1, which the certificate refuses.
`dt * (e @ B^T)` does not depend on the loop, so `prepare` computes it once.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import ParcaeConfig
from .layers import Linear, linear


class DiagonalInjection(nn.Module):
    """`decay * state + dt * (e @ B^T)`; `A_log`, `dt_bias` are (state,), `B` is (state, width)."""

    def __init__(self, config: ParcaeConfig) -> None:
        super().__init__()
        state, width = config.recurrent_embedding_dimension, config.n_embd
        self.A_log = nn.Parameter(torch.empty(state))
        self.dt_bias = nn.Parameter(torch.empty(state))
        self.B = nn.Parameter(torch.empty(state, width))

    def dt(self) -> Tensor:
        """Step sizes (state,) in fp32."""
        return F.softplus(self.dt_bias.float())

    def decay(self) -> Tensor:
        """Poles (state,) in fp32, each below 1 unless it rounds to 1."""
        return torch.exp(-self.dt() * torch.exp(self.A_log.float()))

    def prepare(self, embedded: Tensor) -> Tensor:
        """(batch, sequence, width) -> (batch, sequence, state): the part that no loop changes."""
        return (self.dt() * linear(embedded, self.B)).to(embedded.dtype)

    def forward(self, state: Tensor, injected: Tensor) -> Tensor:
        return (self.decay() * state + injected).to(state.dtype)


class LinearInjection(nn.Module):
    """`adapter([state, e])`, the concatenate-and-project baseline. It carries no stability guarantee."""

    def __init__(self, config: ParcaeConfig) -> None:
        super().__init__()
        state = config.recurrent_embedding_dimension
        self.adapter = Linear(state + config.n_embd, state, bias=config.bias)

    def prepare(self, embedded: Tensor) -> Tensor:
        return embedded

    def forward(self, state: Tensor, injected: Tensor) -> Tensor:
        return self.adapter(torch.cat([state, injected], dim=-1))


class AdditiveInjection(nn.Module):
    """`state + e`."""

    def prepare(self, embedded: Tensor) -> Tensor:
        return embedded

    def forward(self, state: Tensor, injected: Tensor) -> Tensor:
        return state + injected


def build_injection(config: ParcaeConfig) -> nn.Module:
    """The injection that `config.injection_type` names."""
    if config.injection_type == "diagonal":
        return DiagonalInjection(config)
    return LinearInjection(config) if config.injection_type == "linear" else AdditiveInjection()
