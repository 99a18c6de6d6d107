"""The transformer layer of Parcae: pre-norm attention with a gated value embedding, then an MLP.

Facts of the original that are easy to miss: the 0.5 in ReLU2, queries and keys are clipped before and normalised after
their bias, and the value gate reads the first 32 normed channels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import ParcaeConfig
from .kv_cache import Slot

GATE_CHANNELS = 32
STEADY_ROWS = 4


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x @ weight^T + bias`, bit-equal whether a token comes alone or within a text.

    CPU kernels sum in another order below four rows, which would make decoding differ from prefill by rounding alone.
    """
    rows = x.shape[:-1].numel() if not torch.compiler.is_exporting() else STEADY_ROWS
    if rows >= STEADY_ROWS:
        return F.linear(x, weight, bias)
    padded = torch.cat([x.reshape(rows, -1), x.new_zeros(STEADY_ROWS - rows, x.shape[-1])])
    return F.linear(padded, weight, bias)[:rows].reshape(*x.shape[:-1], -1)


class Linear(nn.Linear):
    """`nn.Linear` through `linear`. Who builds a model fills it, so nothing is drawn here."""

    def reset_parameters(self) -> None:
        """Leave the weights as they are: drawing them on the meta device would import a compiler, for seconds."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


class Embedding(nn.Embedding):
    """`nn.Embedding` whose rows are not drawn, as `Linear`'s weights are not."""

    def reset_parameters(self) -> None:
        """Leave the rows as they are."""


class RMSNorm(nn.Module):
    """`x / sqrt(mean(x^2) + eps) * weight` over the last dimension."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


def build_norm(config: ParcaeConfig, width: int) -> nn.Module:
    """The norm that the configuration names, over `width` channels."""
    if config.norm_class == "RMSNorm":
        return RMSNorm(width, config.norm_eps)
    return nn.LayerNorm(width, eps=config.norm_eps)


def activate(name: str, x: Tensor) -> Tensor:
    """The MLP's nonlinearity. `ReLU2` is 0.5 * relu(x)^2."""
    if name == "ReLU2":
        return F.relu(x).square() * 0.5
    functions: dict[str, Callable[[Tensor], Tensor]] = {"GELU": F.gelu, "SiLU": F.silu, "ReLU": F.relu}
    return functions[name](x)


class Attention(nn.Module):
    """Causal self-attention over (batch, sequence, width); where keys and values go is the slot's business."""

    def __init__(self, config: ParcaeConfig, stage: str, gated: bool) -> None:
        super().__init__()
        width, heads, kv_heads = config.width(stage), config.heads(stage), config.kv_heads(stage)
        self.heads, self.kv_heads, self.head_size = heads, kv_heads, width // heads
        self.cached_heads = config.cached_heads(stage)
        self.clip, self.normalise = config.clip_qkv, config.qk_norm
        self.c_q = Linear(width, heads * self.head_size, bias=config.bias)
        self.c_k = Linear(width, kv_heads * self.head_size, bias=config.bias)
        self.c_v = Linear(width, kv_heads * self.head_size, bias=config.bias)
        self.c_proj = Linear(width, width, bias=config.bias)
        self.qk_bias = nn.Parameter(torch.empty(2, 1, heads, self.head_size)) if config.qk_bias else None
        self.ve_gate = Linear(GATE_CHANNELS, kv_heads, bias=False) if gated else None

    def forward(self, x: Tensor, value_embedding: Tensor | None, slot: Slot) -> Tensor:
        batch, length, _ = x.shape
        query = self.c_q(x).view(batch, length, self.heads, self.head_size)
        key = self.c_k(x).view(batch, length, self.kv_heads, self.head_size)
        value = self.c_v(x).view(batch, length, self.kv_heads, self.head_size)
        if value_embedding is not None and self.ve_gate is not None:
            gate = 2 * torch.sigmoid(self.ve_gate(x[..., :GATE_CHANNELS]))
            value = value + gate.unsqueeze(-1) * value_embedding.view(batch, length, self.kv_heads, self.head_size)
        if self.clip is not None:
            query, key, value = (t.clamp(-self.clip, self.clip) for t in (query, key, value))
        if self.qk_bias is not None:
            query, key = query + self.qk_bias[0], key + self.qk_bias[1]  # one head of keys becomes one per query head
            if self.cached_heads != self.kv_heads:
                value = torch.cat([value] * self.cached_heads, 2)
        return self.c_proj(slot.attend(query, key, value, self.normalise))


class MLP(nn.Module):
    """`proj(activate(fc(x)))`, or with a gate `proj(activate(a) * b)` where `fc` gives a and b side by side."""

    def __init__(self, config: ParcaeConfig, width: int, hidden: int) -> None:
        super().__init__()
        self.nonlinearity, self.gated = config.nonlin_name, config.mlp_class_name == "GatedMLP"
        self.fc = Linear(width, hidden * 2 if self.gated else hidden, bias=config.bias)
        self.proj = Linear(hidden, width, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.fc(x)
        if self.gated:
            left, right = hidden.chunk(2, dim=-1)
            return self.proj(activate(self.nonlinearity, left) * right)
        return self.proj(activate(self.nonlinearity, hidden))


class Block(nn.Module):
    """One layer: `x + attention(norm(x))`, then `x + mlp(norm(x))`."""

    def __init__(self, config: ParcaeConfig, stage: str, index: int) -> None:
        super().__init__()
        width = config.width(stage)
        self.norm_1 = build_norm(config, width)
        self.attn = Attention(config, stage, config.has_value_gate(stage, index))
        self.norm_2 = build_norm(config, width)
        self.mlp = MLP(config, width, config.hidden_width(stage))

    def forward(self, x: Tensor, value_embedding: Tensor | None, slot: Slot) -> Tensor:
        x = x + self.attn(self.norm_1(x), value_embedding, slot)
        return x + self.mlp(self.norm_2(x))
