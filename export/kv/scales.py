"""Scales of an int8 KV cache: the largest key and value of each layer over calibration text and all loops, over 127.

    scales = measure_scales(model, windows, loops=8)       # {"core_block": [(key scale, value scale), ...], ...}

One scale for each layer, shared by its heads and loops, because that is what `GroupQueryAttention` takes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from parcae_mobile.kv_cache import CacheScales, FullSequence, place
from parcae_mobile.model import Parcae
from parcae_mobile.stage_names import LAYER_GROUPS

HEADROOM = 1.02  # later text may reach a little further before it is clipped


class _Watching(FullSequence):
    """A slot without a past that remembers the largest key and value that it saw."""

    def __init__(self, rope: Tensor | None) -> None:
        super().__init__(rope)
        self.key = self.value = 0.0

    def attend(self, query: Tensor, key: Tensor, value: Tensor, normalise: bool) -> Tensor:
        self.key = max(self.key, float(place(key, self.rope, normalise).abs().max()))
        self.value = max(self.value, float(value.abs().max()))
        return super().attend(query, key, value, normalise)


@torch.no_grad()
def measure_scales(model: Parcae, windows: Tensor, loops: int) -> CacheScales:
    """Run (n, length) ids through `loops` loops and read the extremes."""
    rope = model.rope[: windows.shape[1]] if model.config.rope_settings.use_rope else None
    slots = {stage: [_Watching(rope) for _ in model.transformer[stage]] for stage in LAYER_GROUPS}
    injected, values = model.prelude(windows, slots["prelude"])
    state = model.zero_state(injected)
    for _ in range(loops):
        state = model.recur(state, injected, values, slots["core_block"])
    model.coda(state, windows, slots["coda"])
    return {
        stage: [(max(slot.key, 1e-6) * HEADROOM / 127, max(slot.value, 1e-6) * HEADROOM / 127) for slot in watching]
        for stage, watching in slots.items()
    }
