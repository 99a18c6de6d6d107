"""Early exit: when a token leaves the loop, what it leaves behind, and that rows do not disturb each other."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from parcae_mobile import KVCache, Parcae
from parcae_mobile.early_exit import decode_step
from parcae_mobile.errors import UsageError
from parcae_mobile.loops import KV_POLICIES
from parcae_mobile.parity import state_error

LOOPS = 6
Small = Callable[..., Parcae]
IDS = torch.randint(0, 60, (4, 12), generator=torch.Generator().manual_seed(3))


def changes(model: Parcae, ids: torch.Tensor) -> list[float]:
    """Of a single token at the start of a text, by loop; the first is against zero."""
    states = [torch.zeros(1, 1, model.config.recurrent_embedding_dimension), *model.states(ids, LOOPS)]
    return [state_error(after, before) for before, after in zip(states, states[1:], strict=False)]


@torch.no_grad()
def test_a_token_leaves_at_the_first_loop_that_changes_less_than_the_threshold(small: Small) -> None:
    model = small()
    ids = IDS[:1, :1]
    seen = changes(model, ids)
    assert seen[0] == pytest.approx(1.0)
    for threshold in (0.0, seen[3] * 1.001, seen[1] * 1.001, 0.999):
        expected = next((loop for loop, change in enumerate(seen, 1) if change < threshold), LOOPS)
        logits, used = decode_step(model, ids, LOOPS, threshold, KVCache(model.config, LOOPS))
        assert used.tolist() == [expected] and expected >= 2
        torch.testing.assert_close(logits, model(ids, expected))


@torch.no_grad()
@pytest.mark.parametrize("policy", KV_POLICIES)
def test_without_a_threshold_decoding_is_what_it_is(small: Small, policy: str) -> None:
    model = small()
    caches = [KVCache(model.config, LOOPS, batch=4, policy=policy) for _ in range(2)]
    for place in range(5):
        ids = IDS[:, place : place + 1]
        logits, used = decode_step(model, ids, LOOPS, 0.0, caches[0])
        torch.testing.assert_close(logits, model(ids, LOOPS, cache=caches[1]))
        assert used.tolist() == [LOOPS] * 4
    for stage, keys in caches[0].keys.items():
        torch.testing.assert_close(keys, caches[1].keys[stage])


@torch.no_grad()
@pytest.mark.parametrize("policy", KV_POLICIES)
def test_a_row_decodes_as_if_it_were_alone(small: Small, policy: str) -> None:
    model = small()
    threshold = sorted(change for row in IDS for change in changes(model, row[None, :1]))[len(IDS) * LOOPS // 2]
    together = KVCache(model.config, LOOPS, batch=4, policy=policy)
    alone = [KVCache(model.config, LOOPS, policy=policy) for _ in IDS]
    model(IDS[:, :3], LOOPS, cache=together)
    for row, cache in zip(IDS, alone, strict=True):
        model(row[None, :3], LOOPS, cache=cache)
    seen = set()
    for place in range(3, 12):
        logits, used = decode_step(model, IDS[:, place : place + 1], LOOPS, threshold, together)
        seen |= set(used.tolist())
        for index, (row, cache) in enumerate(zip(IDS, alone, strict=True)):
            own, own_used = decode_step(model, row[None, place : place + 1], LOOPS, threshold, cache)
            assert int(own_used) == int(used[index])
            torch.testing.assert_close(own[0], logits[index], atol=1e-5, rtol=1e-5)
    assert len(seen) > 1, "every token left at the same loop: the rows were not told apart"


@torch.no_grad()
@pytest.mark.parametrize("policy", KV_POLICIES)
def test_a_token_that_left_leaves_what_fewer_loops_leave(small: Small, policy: str) -> None:
    model = small()
    threshold = changes(model, IDS[:1, :1])[2] * 1.001
    left, fewer = (KVCache(model.config, LOOPS, policy=policy) for _ in range(2))
    for place in range(6):
        ids = IDS[:1, place : place + 1]
        _, used = decode_step(model, ids, LOOPS, threshold, left)
        model(ids, int(used), cache=fewer)
    assert torch.equal(left.keys["core_block"], fewer.keys["core_block"])
    assert torch.equal(left.values["core_block"], fewer.values["core_block"])
    if policy == "full":  # every slot above the last loop of the last token repeats it
        last = left.keys["core_block"][int(used) - 1 :, ..., 5, :]
        assert torch.equal(last, last[:1].expand_as(last))


def test_what_cannot_be_decided_is_refused(small: Small) -> None:
    model = small()
    with pytest.raises(UsageError, match="one token at a time"):
        decode_step(model, IDS[:, :2], LOOPS, 0.1, KVCache(model.config, LOOPS, batch=4))
    for threshold in (-0.1, 1.0, float("nan")):
        with pytest.raises(UsageError, match="exit-threshold"):
            decode_step(model, IDS[:1, :1], LOOPS, threshold, KVCache(model.config, LOOPS))
    with pytest.raises(UsageError, match="above the maximum of 2"):
        decode_step(model, IDS[:1, :1], 3, 0.1, KVCache(model.config, 2))
