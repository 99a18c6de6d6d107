"""A model of a given shape with seeded random weights, for what does not depend on training: bytes, time, arithmetic.

model = random_model(released_config("parcae-140m"))
"""

from __future__ import annotations

import math

import torch

from .config import ParcaeConfig
from .model import Parcae
from .rope import rope_table


@torch.no_grad()
def random_model(config: ParcaeConfig, seed: int = 0) -> Parcae:
    """An fp32 model in evaluation mode. Every matrix is drawn, projections into the residual half as large.

    The injection starts near the original's initial decay, sqrt(1/5), with some spread; `B` and `C` near the identity.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        model = Parcae(config)
    model.to_empty(device="cpu")
    if config.tie_embeddings:  # materialising leaves the meta tensor's two owners with a copy each
        model.lm_head.weight = model.transformer["wte"].weight
    for name, parameter in model.named_parameters():
        if name.endswith(("norm_1.weight", "norm_2.weight", "ln_f.weight", "ln_prelude.weight")):
            parameter.fill_(1.0)
        elif name.endswith((".bias", "qk_bias")):
            parameter.normal_(0, 0.02, generator=generator)
        elif name.endswith("A_log"):
            parameter.normal_(0, 0.1, generator=generator)
        elif name.endswith("dt_bias"):
            parameter.normal_(0.2, 0.3, generator=generator)
        elif "wte" in name or "value_embeds" in name or name == "lm_head.weight":
            parameter.normal_(0, 0.02, generator=generator)
        elif name.endswith("adapter.B") or name == "transformer.C.weight":
            parameter.normal_(0, 0.02, generator=generator)
            parameter.add_(torch.eye(*parameter.shape))
        else:
            gain = 0.5 if "proj" in name else 1.0
            parameter.normal_(0, gain / math.sqrt(parameter.shape[1]), generator=generator)
    model.register_buffer("rope", rope_table(config), persistent=False)
    return model.eval().requires_grad_(False)
