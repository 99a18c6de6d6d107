"""`golden.npz`: inputs and expected logits that travel with an artifact, for its self-test on the device.

write_golden(quantized.model, ids, golden_loops(options, range(1, 17)), options.cache, folder / "golden.npz")
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from export.targets.registry import WriteOptions
from parcae_mobile.arrays import write_arrays
from parcae_mobile.kv_cache import CacheSpec
from parcae_mobile.model import Parcae

GOLDEN_BYTES = 2_000_000
GOLDEN_TOKENS = 32


def golden_loops(options: WriteOptions, open_loops: range) -> list[int]:
    """The loop counts of the self-test: every static one, or the least, the middle and the greatest open one."""
    if options.counts:
        return options.verified_loops()
    loops = [count for count in options.verified_loops() if count in open_loops]
    return sorted({loops[0], loops[len(loops) // 2], loops[-1]})


def write_golden(model: Parcae, ids: Tensor, loops: list[int], cache: CacheSpec, path: Path) -> None:
    """Logits of the last of `ids` (length,) at each loop count: as many positions as 2 MB hold.

    `input_ids` (length,) int64, `positions` (rows,) int64, `logits_T` (rows, padded vocabulary) fp32.
    """
    length = len(ids)
    rows = max(1, min(length, GOLDEN_BYTES // (len(loops) * model.config.padded_vocab_size * 4 + 1)))
    positions = torch.arange(length - rows, length)
    arrays: dict[str, Any] = {"input_ids": ids.numpy(), "positions": positions.numpy()}
    with torch.no_grad():
        for count in loops:
            slots = cache.make(model.config, count, length)
            arrays[f"logits_{count}"] = model(ids[None], count, cache=slots, positions=positions)[0].numpy()
    with path.open("wb") as file:
        write_arrays(arrays, file)
