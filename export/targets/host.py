"""What every host runtime offers: a chunk of ids in, logits out, with the cache kept between calls.

The contract is the one that apps follow: `prelude` once, `recur` T times, `coda` once, caches owned by the host.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from parcae_mobile.errors import PromptTooLongError, UsageError
from parcae_mobile.loops import check_loops, policy_slots
from parcae_mobile.stage_names import LAYER_GROUPS

if TYPE_CHECKING:
    from parcae_mobile.config import ParcaeConfig
    from parcae_mobile.manifest import Manifest

StateCallback = Callable[[int, np.ndarray], None]  # loop (from 0), recurrent state (1, S, state width)


@dataclass(frozen=True)
class CacheGeometry:
    """Shapes of the caches and of the recurrent state."""

    layers: dict[str, int]
    heads: dict[str, int]
    head_size: dict[str, int]
    slots: int
    context: int
    max_loops: int
    state_width: int
    vocab_size: int
    padded_vocab_size: int  # rows of the token table, columns of the logits
    min_loops: int = 1  # fewer failed the gates

    @classmethod
    def of(
        cls,
        config: ParcaeConfig,
        max_loops: int,
        context: int | None = None,
        policy: str = "full",
        head_sizes: dict[str, int] | None = None,
    ) -> CacheGeometry:
        """The geometry of a model's cache under a KV policy; `head_sizes` where a target pads heads."""
        return cls(
            layers={stage: config.layer_count(stage) for stage in LAYER_GROUPS},
            heads={stage: config.cached_heads(stage) for stage in LAYER_GROUPS},
            head_size=head_sizes or {stage: config.head_width(stage) for stage in LAYER_GROUPS},
            slots=policy_slots(policy, max_loops),
            context=min(context or config.context, config.context),
            max_loops=max_loops,
            state_width=config.recurrent_embedding_dimension,
            vocab_size=config.vocab_size,
            padded_vocab_size=config.padded_vocab_size,
        )

    @classmethod
    def from_manifest(cls, manifest: Manifest) -> CacheGeometry:
        """The geometry that an artifact's manifest states."""
        stated = manifest.geometry
        return cls(
            layers=stated.layers,
            heads=stated.heads,
            head_size=stated.head_size,
            slots=manifest.kv.slots or policy_slots(manifest.kv.policy, manifest.max_loops),
            context=manifest.kv.context,
            max_loops=manifest.max_loops,
            state_width=stated.state_width,
            vocab_size=stated.vocab_size,
            padded_vocab_size=stated.padded_vocab_size,
            min_loops=manifest.min_loops,
        )

    def shape(self, stage: str) -> tuple[int, int, int, int, int]:
        """(slots, 1, heads, context, head size) of one layer's keys or values."""
        slots = self.slots if stage == "core_block" else 1
        return slots, 1, self.heads[stage], self.context, self.head_size[stage]

    def bytes_per_token(self, loops: int, item: int = 4) -> int:
        """Bytes of keys and values that one token adds at `loops` loops."""
        return sum(
            2 * count * self.heads[stage] * self.head_size[stage] * item * self._slots_at(stage, loops)
            for stage, count in self.layers.items()
        )

    def _slots_at(self, stage: str, loops: int) -> int:
        return min(loops, self.slots) if stage == "core_block" else 1


@dataclass(frozen=True)
class Chunk:
    """What one call of `run` asks for, checked: tokens that follow the `start` tokens which the cache holds.

    `tokens` is (1, S) int64, `positions` (P,) int64 are the places in it whose logits are wanted, and `state`, the
    recurrent state before the first loop, is (1, S, state width) fp32, or None for zero.
    """

    tokens: np.ndarray
    start: int
    loops: int
    positions: np.ndarray
    state: np.ndarray | None = None
    on_state: StateCallback | None = None
    exit_threshold: float = 0.0

    @property
    def length(self) -> int:
        """How many tokens it has."""
        return int(self.tokens.shape[1])

    @property
    def total(self) -> int:
        """How many tokens the cache holds afterwards."""
        return self.start + self.length

    @property
    def is_prompt(self) -> bool:
        """Whether it is more than the one token of a decoding step."""
        return self.length > 1


class Host:
    """Base of the host runtimes: `run` checks what may be asked and counts tokens, a host's `_run` computes.

    Not thread-safe: a host owns one conversation's cache.
    """

    prefill_chunk = 256  # tokens of a prompt that are given at once: bounds the activations in memory
    exits_early = True  # whether it can end the loop where the state stands still
    takes_state = True  # whether a chunk can begin with a recurrent state that is not zero
    forks = False  # whether a fork of this process can go on with it: nothing of it is in native threads

    def __init__(self, geometry: CacheGeometry) -> None:
        self.geometry = geometry
        self.length = 0  # tokens that the cache holds
        self.loops_used = 0  # by the last chunk

    def run(
        self,
        ids: Sequence[int],
        loops: int,
        positions: Sequence[int] | None = None,
        initial_state: np.ndarray | None = None,
        on_state: StateCallback | None = None,
        exit_threshold: float = 0.0,
    ) -> np.ndarray:
        """Logits (positions, padded vocabulary) of a chunk that follows the tokens already held.

        `positions` are places in the chunk (all if None); `initial_state` (1, chunk, state width) is zero if None;
        `on_state(loop, state)` sees the recurrent state where the form lets it be seen. With an `exit_threshold` the
        loop ends once the state of every token in the chunk changed by less than that share; `loops_used` says when.

        Raises, before anything changes, `UsageError` for ids that the model has no row for, and for a loop count,
        positions, a state or an early exit that the artifact cannot have; `PromptTooLongError` for tokens beyond the
        context.
        """
        places = range(len(ids)) if positions is None else positions
        chunk = Chunk(
            np.array([ids], np.int64),
            self.length,
            loops,
            np.array(places, np.int64),
            None if initial_state is None else np.ascontiguousarray(initial_state, np.float32),
            on_state,
            exit_threshold,
        )
        self._check(chunk)
        self.loops_used = loops
        logits = self._run(chunk)
        self.length = chunk.total
        return logits

    def prefill(self, ids: Sequence[int], loops: int) -> np.ndarray:
        """Give a prompt in chunks of `prefill_chunk`; logits (padded vocabulary,) after its last token.

        Where loops share a cache slot, the chunks are part of what is computed. Raises as `run` does.
        """
        if not ids:
            raise UsageError("the prompt is empty; give at least one token")
        logits = np.empty(0)
        for start in range(0, len(ids), self.prefill_chunk):
            chunk = ids[start : start + self.prefill_chunk]
            logits = self.run(chunk, loops, positions=[len(chunk) - 1])[0]
        return logits

    def rewind(self, length: int) -> None:
        """Forget the tokens after the first `length`; what is given next follows those.

        Raises `UsageError` for a length that is not held.
        """
        if not 0 <= length <= self.length:
            raise UsageError(f"cannot go back to {length} tokens: {self.length} are held")
        self.length = length

    def reset(self) -> None:
        """Forget all tokens."""
        self.length = 0

    def rest(self) -> None:
        """Give back memory that only saves time; the next chunk makes again what it needs."""

    def _run(self, chunk: Chunk) -> np.ndarray:
        """Logits (positions, padded vocabulary) of a checked chunk; lowers `loops_used` where the loop ended early."""
        raise NotImplementedError

    @property
    def cache_bytes(self) -> int:
        """Bytes of the cache arrays that are held now."""
        raise NotImplementedError

    @property
    def largest_fp16(self) -> float:
        """The greatest |value| among fp16 results so far; 0 where the runtime shows no intermediate results."""
        return 0.0

    @property
    def largest_fp16_at(self) -> str:
        """The operation that it came from."""
        return ""

    def slot_of(self, stage: str, loop: int) -> int:
        """The cache slot of a loop."""
        return min(loop, self.geometry.slots - 1) if stage == "core_block" else 0

    def may_leave(self, chunk: Chunk, loop: int, before: np.ndarray, after: np.ndarray) -> bool:
        """Whether a chunk leaves the loop after `loop` (from 1), whose states are (1, chunk, width).

        Never before the least loop count that may run.
        """
        if not chunk.exit_threshold or loop < self.geometry.min_loops:
            return False
        return self.converged(before, after, chunk.exit_threshold)

    @staticmethod
    def converged(before: np.ndarray, after: np.ndarray, threshold: float) -> bool:
        """Whether no token's state (1, chunk, width) changed by `threshold` of its norm or more."""
        change = np.linalg.norm(after - before, axis=-1) / np.maximum(np.linalg.norm(after, axis=-1), 1e-12)
        return bool(change.max() < threshold)

    def _check(self, chunk: Chunk) -> None:
        """Raise `UsageError` or `PromptTooLongError` for a chunk that this artifact cannot take."""
        check_loops(chunk.loops, self.geometry.max_loops, self.geometry.min_loops)
        if not chunk.length:
            raise UsageError("the chunk is empty; give at least one token")
        if chunk.total > self.geometry.context:
            raise PromptTooLongError(
                f"{self.length} + {chunk.length} tokens do not fit the context of {self.geometry.context}; "
                "shorten the text"
            )
        rows = self.geometry.padded_vocab_size
        for token in (int(chunk.tokens.min()), int(chunk.tokens.max())):
            if not 0 <= token < rows:
                raise UsageError(f"the token id {token} has no row in the model's table; give ids from 0 to {rows - 1}")
        if len(chunk.positions) and not 0 <= chunk.positions.min() <= chunk.positions.max() < chunk.length:
            raise UsageError(f"logits are wanted of places outside of the chunk's {chunk.length} tokens")
        if chunk.exit_threshold and not self.exits_early:
            raise UsageError("early exit needs a host that runs the loop: export with --loop-form stages")
        shape = (1, chunk.length, self.geometry.state_width)
        if chunk.state is not None and chunk.state.shape != shape:
            raise UsageError(f"the first state has the shape {chunk.state.shape}; it has to be {shape}")
        if chunk.state is not None and not self.takes_state and chunk.state.any():
            raise UsageError("this artifact's loop starts from zero; export a dynamic one to give it another state")
