"""What a model or an artifact is, as data for a table or JSON: shape, parameters, poles, state change per loop.

describe_model(source)
"""

from __future__ import annotations

from typing import Any

import torch

from export.source import Source
from parcae_mobile.injection import DiagonalInjection
from parcae_mobile.parity import state_changes
from quantize.compression import HeldOut
from quantize.planning import COMPONENTS, component

CHANGE_LOOPS = 16
CHANGE_TOKENS = 128


def held_out(source: Source, count: int = 16, length: int = 256) -> HeldOut:
    """Held-out windows with the fp32 model's states, to measure other versions of the model against."""
    windows = source.text("heldout", least=count * (length + 1)).windows(
        count, min(length, source.model.config.context)
    )
    return HeldOut(source.model, windows)


def describe_model(source: Source) -> dict[str, Any]:
    """Shape, parameters by component, decay range, and how much the state still changes at each loop."""
    config, model = source.model.config, source.model
    counts = dict.fromkeys(COMPONENTS, 0)
    for name, parameter in model.named_parameters():
        counts[component(name)] += parameter.numel()
    injection = model.transformer["adapter"]
    decay = injection.decay() if isinstance(injection, DiagonalInjection) else None
    ids = source.text("heldout", least=CHANGE_TOKENS).ids[: min(CHANGE_TOKENS, config.context)]
    with torch.no_grad():
        changes = state_changes(model, ids[None], 1 if config.plain else CHANGE_LOOPS)
    return {
        "model": source.name,
        "parameters": sum(counts.values()),
        "parameters_by_component": counts,
        "layers": [config.n_layers_in_prelude, config.n_layers_in_recurrent_block, config.n_layers_in_coda],
        "width": config.n_embd,
        "state_width": config.recurrent_embedding_dimension,
        "heads": config.num_attention_heads,
        "vocabulary": config.vocab_size,
        "context": config.context,
        "trained_loops": config.mean_recurrence,
        "injection": config.injection_type,
        "decay": None if decay is None else _spread(decay),
        "state_change_by_loop": {str(loop): change for loop, change in enumerate(changes, 2)},
        "state_change_text": "held-out text" if source.real else "seeded ids: says nothing about trained models",
        "weights_sha256": source.weights_sha256,
        "notes": source.notes,
    }


def _spread(values: torch.Tensor) -> dict[str, float]:
    return {"min": float(values.min()), "median": float(values.median()), "max": float(values.max())}
