"""Early exit, the reference implementation: a token leaves the loop once its state stands still.

    logits, used = decode_step(model, ids, loops=8, threshold=0.05, cache=cache)

After each loop the change of a token's state is compared with the threshold:

    |state - state before| / |state| < threshold  ->  the token has left; coda and head see this state

Neither coda nor head is run to decide. The first loop starts from zero, so its change is 1 and no token leaves before
its second loop; nor does one before the fewest loops that an artifact may run. What a token leaves behind is what a
smaller loop count leaves (kv_cache.py): the keys and values of its last loop, also in the slots of the loops that it
did not run.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .errors import UsageError
from .kv_cache import KVCache
from .loops import check_loops, check_threshold
from .model import Parcae


@torch.no_grad()
def decode_step(
    model: Parcae, input_ids: Tensor, loops: int, threshold: float, cache: KVCache, least: int = 1
) -> tuple[Tensor, Tensor]:
    """One token of each row of (batch, 1) int64 ids: logits (batch, 1, padded vocabulary) fp32, loops used (batch,).

    Each row leaves the loop by itself, as if it were alone, after `least` loops at the earliest. Raises `UsageError`
    for a loop count that the cache does not hold, more than one token per row, or a threshold outside of [0, 1).
    """
    check_loops(loops, cache.max_loops)
    check_threshold(threshold)
    if input_ids.shape[1] != 1:
        raise UsageError(f"{input_ids.shape[1]} tokens per row: early exit is decided for one token at a time")
    injected, values = model.prelude(input_ids, model.slots("prelude", input_ids, cache))
    state = model.zero_state(injected)
    used = torch.full((len(input_ids),), loops)
    inside = torch.ones(len(input_ids), dtype=torch.bool)
    left_behind: list[Tensor] = []
    done = 0
    while done < loops and bool(inside.any()):
        after = model.recur(state, injected, values, model.slots("core_block", input_ids, cache, done))
        written = cache.written(done)
        for now, before in zip(written, left_behind, strict=False):  # none before the first loop
            now[:, ~inside] = before[:, ~inside]
        left_behind = [part.clone() for part in written]
        change = (after - state).norm(dim=-1) / after.norm(dim=-1).clamp_min(1e-12)
        state = torch.where(inside[:, None, None], after, state)
        done += 1
        leaving = inside & (change[:, 0] < threshold) & (done >= least)
        used[leaving] = done
        inside = inside & ~leaving
    logits = model.coda(state, input_ids, model.slots("coda", input_ids, cache))
    cache.advance(1, done)
    return logits, used
