"""The cache: which loop uses which slot, what a chunk sees of the past, and when it is full."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from parcae_mobile import KVCache, Parcae
from parcae_mobile.errors import PromptTooLongError, UsageError
from parcae_mobile.loops import KV_POLICIES
from parcae_mobile.parity import greedy

IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])
Small = Callable[..., Parcae]


@pytest.mark.parametrize(
    ("policy", "loops", "expected"),
    [
        ("full", 5, [0, 1, 2, 3, 4]),
        ("shared", 5, [0, 0, 0, 0, 0]),
        ("first1+shared", 5, [0, 1, 1, 1, 1]),
        ("first2+shared", 5, [0, 1, 2, 2, 2]),
        ("first2+shared", 2, [0, 1]),
        ("first1+shared", 1, [0]),
    ],
)
def test_policies_map_loops_to_slots(small: Small, policy: str, loops: int, expected: list[int]) -> None:
    cache = KVCache(small().config, loops, policy=policy)
    assert [cache.slot_of(loop) for loop in range(loops)] == expected
    assert cache.keys["core_block"].shape == (max(expected) + 1, 1, 1, 2, 96, 16)
    assert cache.keys["prelude"].shape[0] == cache.keys["coda"].shape[0] == 1
    elements = 2 * (max(expected) + 3) * 2 * 96 * 16
    assert cache.nbytes == elements * 4


@torch.no_grad()
def test_a_shared_slot_holds_the_last_loop(small: Small) -> None:
    model = small()
    full, shared = KVCache(model.config, 4), KVCache(model.config, 4, policy="shared")
    torch.testing.assert_close(model(IDS, 4, cache=full), model(IDS, 4, cache=shared))
    assert torch.equal(shared.keys["core_block"][0], full.keys["core_block"][3])
    two = KVCache(model.config, 4, policy="first1+shared")
    model(IDS, 4, cache=two)
    assert torch.equal(two.keys["core_block"][0], full.keys["core_block"][0])
    assert torch.equal(two.values["core_block"][1], full.values["core_block"][3])


@torch.no_grad()
def test_policies_differ_only_in_what_they_see_of_the_past(small: Small) -> None:
    model = small()
    full, shared = KVCache(model.config, 3), KVCache(model.config, 3, policy="shared")
    first = [model(IDS[:, :5], 3, cache=cache) for cache in (full, shared)]
    torch.testing.assert_close(*first)
    second = [model(IDS[:, 5:], 3, cache=cache) for cache in (full, shared)]
    assert not torch.allclose(*second, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("pieces", [[8], [1] * 8, [3, 5], [5, 1, 2]])
def test_any_division_into_chunks_gives_the_same_logits(small: Small, pieces: list[int]) -> None:
    model = small(n_layers_in_recurrent_block=2, qk_norm=False)
    cache, parts = KVCache(model.config, 3), []
    for chunk in IDS.split(pieces, dim=1):
        parts.append(model(chunk, 3, cache=cache))
    torch.testing.assert_close(torch.cat(parts, 1), model(IDS, 3), atol=1e-5, rtol=1e-5)
    assert cache.length == 8


def in_pieces(model: Parcae, cache: KVCache, pieces: list[int], loops: int) -> torch.Tensor:
    return torch.cat([model(part, loops, cache=cache) for part in IDS.split(pieces, dim=1)], 1)


@torch.no_grad()
@pytest.mark.parametrize("policy", KV_POLICIES)
def test_the_first_piece_equals_the_forward_without_a_cache_under_every_policy(small: Small, policy: str) -> None:
    model = small()
    cache = KVCache(model.config, 4, policy=policy)
    torch.testing.assert_close(model(IDS[:, :5], 4, cache=cache), model(IDS[:, :5], 4))
    torch.testing.assert_close(in_pieces(model, KVCache(model.config, 4, policy=policy), [8], 4), model(IDS, 4))


@torch.no_grad()
@pytest.mark.parametrize("pieces", [[5, 3], [1] * 8, [3, 1, 4]])
def test_shared_slots_make_the_division_into_pieces_visible(small: Small, pieces: list[int]) -> None:
    model = small()
    whole = model(IDS, 4)
    shared = in_pieces(model, KVCache(model.config, 4, policy="shared"), pieces, 4)
    torch.testing.assert_close(shared[:, : pieces[0]], whole[:, : pieces[0]])
    later = (shared - whole)[:, pieces[0] :].abs().amax(-1)[0]
    assert bool((later > 1e-4).all())
    # One loop has nothing to share, and as many kept slots as loops share nothing.
    for policy, loops in (("shared", 1), ("first1+shared", 2), ("first2+shared", 3)):
        cache = KVCache(model.config, loops, policy=policy)
        torch.testing.assert_close(in_pieces(model, cache, pieces, loops), model(IDS, loops), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_of_the_past_a_token_sees_the_last_loop_and_of_its_piece_its_own(small: Small) -> None:
    """`shared`, written out: a `full` cache whose loops' slots all hold the last loop of the past gives the same."""
    model, loops = small(), 4
    shared, full = KVCache(model.config, loops, policy="shared"), KVCache(model.config, loops)
    for part in IDS.split([4, 1, 3], dim=1):
        expected = model(part, loops, cache=shared)
        torch.testing.assert_close(model(part, loops, cache=full), expected)
        for tensors in (full.keys["core_block"], full.values["core_block"]):
            tensors[:-1] = tensors[-1].clone()


@torch.no_grad()
@pytest.mark.parametrize("policy", KV_POLICIES)
def test_a_smaller_loop_count_fills_the_slots_above(small: Small, policy: str) -> None:
    model = small()
    cache = KVCache(model.config, 5, policy=policy)
    model(IDS[:, :4], 2, cache=cache)
    last = cache.slot_of(1)
    held = cache.keys["core_block"][..., :4, :]
    assert torch.equal(held[last:], held[last].expand_as(held[last:]))
    assert torch.isfinite(model(IDS[:, 4:], 5, cache=cache)).all()


@torch.no_grad()
@pytest.mark.parametrize("policy", ["full", "shared"])
def test_an_int8_cache_holds_integers_and_stays_close(small: Small, policy: str) -> None:
    model = small()
    exact = KVCache(model.config, 3, policy=policy)
    expected = in_pieces(model, exact, [5, 1, 1, 1], 3)
    scales = {
        stage: [
            (float(keys.abs().amax()) / 127, float(values.abs().amax()) / 127)
            for keys, values in zip(exact.keys[stage].unbind(1), exact.values[stage].unbind(1), strict=True)
        ]
        for stage in exact.keys
    }
    cache = KVCache(model.config, 3, policy=policy, dtype=torch.int8, scales=scales)
    logits = in_pieces(model, cache, [5, 1, 1, 1], 3)
    assert cache.nbytes * 4 == exact.nbytes and cache.keys["core_block"].dtype == torch.int8
    key_scale = scales["prelude"][0][0]
    torch.testing.assert_close(
        cache.keys["prelude"].float() * key_scale, exact.keys["prelude"], atol=0.501 * key_scale, rtol=0
    )
    assert 0 < float((logits - expected).abs().max()) < 0.05 * float(expected.abs().max())


@torch.no_grad()
def test_a_context_that_is_full_refuses_more_and_is_left_as_it_was(small: Small) -> None:
    model = small()
    cache = KVCache(model.config, 2, context=9)
    model(IDS, 2, cache=cache)
    with pytest.raises(PromptTooLongError, match=r"8 \+ 2 tokens do not fit the context of 9"):
        model(IDS[:, :2], 2, cache=cache)
    assert cache.length == 8
    model(IDS[:, :1], 2, cache=cache)
    with pytest.raises(PromptTooLongError):
        model(IDS[:, :1], 2, cache=cache)


def test_a_cache_never_exceeds_the_models_context(small: Small) -> None:
    assert KVCache(small().config, 2, context=10_000).context == 96


def test_more_loops_than_the_cache_has_are_refused(small: Small) -> None:
    model = small()
    with pytest.raises(UsageError, match="loops = 3 is above the maximum of 2"):
        model(IDS, 3, cache=KVCache(model.config, 2))


def test_unknown_policies_and_types_are_refused_by_name(small: Small) -> None:
    with pytest.raises(UsageError, match="'ring'.*first1\\+shared"):
        KVCache(small().config, 2, policy="ring")
    with pytest.raises(UsageError, match="int8"):
        KVCache(small().config, 2, dtype=torch.int8)


@torch.no_grad()
def test_a_half_precision_cache_stays_close(small: Small) -> None:
    model = small()
    cache = KVCache(model.config, 2, dtype=torch.float16)
    pieces = [model(IDS[:, :4], 2, cache=cache), *(model(IDS[:, i : i + 1], 2, cache=cache) for i in range(4, 8))]
    torch.testing.assert_close(torch.cat(pieces, 1), model(IDS, 2), atol=2e-2, rtol=1e-2)
    assert cache.keys["coda"].dtype == torch.float16


@torch.no_grad()
def test_greedy_tokens_are_those_of_the_full_forward(small: Small) -> None:
    model, ids = small(seed=5), [3, 1, 4]
    chosen = greedy(model, ids, 6, loops=3)
    for token in chosen:
        assert int(model(torch.tensor([ids]), 3)[0, -1, : model.config.vocab_size].argmax()) == token
        ids = [*ids, token]
