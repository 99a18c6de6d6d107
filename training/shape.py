"""The shape of a small Parcae and its first weights.

    config = small_config(width=160, vocabulary=4096)
    model = new_model(config, seed=1)

Initialisation follows the original: embeddings truncated normal, matrices orthogonal, output projections zero, the
injection's decay at sqrt(0.2).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from parcae_mobile.config import ParcaeConfig
from parcae_mobile.model import Parcae

HEAD = 32
FIRST_DECAY = math.sqrt(0.2)
# Value embeddings of rare tokens hardly move; a small start keeps them from being noise.
FIRST_VALUE = 0.1
# What the original's training reads and its forward pass does not; written so that the original loads the file too.
TRAINING_FIELDS: dict[str, Any] = {
    "attn_impl": "flash",
    "block_class_name": "TransformerPreNormBlock",
    "init_orthogonal": True,
    "model_class_name": "Parcae",
    "recurrent_iteration_method": "per-sequence",
    "sampling_scheme": "poisson-truncated-full",
    "strategy": "single",
}


def small_config(
    width: int,
    vocabulary: int,
    *,
    name: str = "parcae-tiny",
    block_size: int = 1024,
    mean_loops: int = 6,
    depth: int = 2,
) -> ParcaeConfig:
    """One prelude, two recurrent and one coda layer; heads of 32 channels; value embeddings by the original's rule."""
    return ParcaeConfig.from_dict(
        {
            "name": name,
            "block_size": block_size,
            "n_embd": width,
            "num_attention_heads": max(1, width // HEAD),
            "vocab_size": vocabulary,
            "padding_multiple": 64,
            "norm_class_name": "RMSNorm",
            "nonlin_name": "ReLU2",
            "qk_norm": True,
            "init_strategy": "scaled-zero",
            "n_layers_in_recurrent_block": 2,
            "recurrent_embedding_dimension": width,
            "recurrent_intermediation_embedding_dimension": 4 * width,
            "prelude_norm": True,
            "mean_recurrence": mean_loops,
            "mean_backprop_depth": depth,
            "tie_embeddings": True,
        }
    )


def new_model(config: ParcaeConfig, seed: int) -> Parcae:
    """A model with first weights drawn on the CPU, so that they do not depend on the device."""
    generator = torch.Generator().manual_seed(seed)
    model = Parcae(config)
    deviation = state_deviation(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            leaf = name.split(".")[-2] if "." in name else name
            if leaf == "wte":
                parameter.copy_(truncated_normal(parameter.shape, deviation, generator))
            elif "value_embeds" in name:
                parameter.normal_(0.0, FIRST_VALUE, generator=generator)
            elif name.endswith("adapter.B"):
                nn.init.eye_(parameter)
            elif name.endswith("adapter.A_log"):
                parameter.zero_()
            elif name.endswith("adapter.dt_bias"):
                parameter.fill_(inverse_softplus(-math.log(FIRST_DECAY)))
            elif parameter.dim() == 1:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
            elif leaf in ("c_proj", "proj"):
                parameter.zero_()
            else:
                gain = deviation * math.sqrt(max(parameter.shape))
                nn.init.orthogonal_(parameter, gain=gain, generator=generator)
    return model


def state_deviation(config: ParcaeConfig) -> float:
    """Standard deviation of embeddings and of a random first state: sqrt(2 / (5 width))."""
    return math.sqrt(2 / (5 * config.n_embd))


def truncated_normal(shape: tuple[int, ...] | torch.Size, deviation: float, generator: torch.Generator) -> Tensor:
    """fp32 draws cut at three standard deviations."""
    return nn.init.trunc_normal_(torch.empty(shape), 0.0, deviation, -3 * deviation, 3 * deviation, generator=generator)


def inverse_softplus(value: float) -> float:
    """x with log(1 + exp(x)) = value > 0."""
    return value + math.log(-math.expm1(-value))
