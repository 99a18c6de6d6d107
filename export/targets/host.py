"""What every host runtime offers: a chunk of ids in, logits out, with the cache kept between calls.

The contract is the one that apps follow: `prelude` once, `recur` T times, `coda` once, caches owned by the host.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from parcae_mobile.errors import PromptTooLongError
from parcae_mobile.loops import check_loops, policy_slots

if TYPE_CHECKING:
    from parcae_mobile.config import ParcaeConfig
    from parcae_mobile.manifest import Manifest

STAGES = ("prelude", "core_block", "coda")


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
            layers={stage: config.layer_count(stage) for stage in STAGES},
            heads={stage: config.cached_heads(stage) for stage in STAGES},
            head_size=head_sizes or {stage: config.head_width(stage) for stage in STAGES},
            slots=policy_slots(policy, max_loops),
            context=min(context or config.context, config.context),
            max_loops=max_loops,
            state_width=config.recurrent_embedding_dimension,
            vocab_size=config.vocab_size,
        )

    @classmethod
    def from_manifest(cls, manifest: Manifest) -> CacheGeometry:
        """The geometry that an artifact's manifest states."""
        given = manifest.geometry
        return cls(
            layers=given.layers,
            heads=given.heads,
            head_size=given.head_size,
            slots=policy_slots(manifest.kv.policy, manifest.max_loops),
            context=manifest.kv.context,
            max_loops=manifest.max_loops,
            state_width=given.state_width,
            vocab_size=given.vocab_size,
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


class Host:
    """Base of the host runtimes: counts tokens and checks what may be asked."""

    prefill_chunk = 256  # tokens of a prompt that are given at once: bounds the activations in memory

    def __init__(self, geometry: CacheGeometry) -> None:
        self.geometry = geometry
        self.length = 0
        self.loops_used = 0

    def run(
        self,
        ids: Sequence[int],
        loops: int,
        positions: Sequence[int] | None = None,
        initial_state: np.ndarray | None = None,
        on_state: Callable[[int, np.ndarray], None] | None = None,
        exit_threshold: float = 0.0,
    ) -> np.ndarray:
        """Logits (positions, padded vocabulary) of a chunk that follows the tokens already held.

        `positions` are places in the chunk (all if None); `initial_state` (1, chunk, state width) is zero if None;
        `on_state(loop, state)` sees the recurrent state where the form lets it be seen. With an `exit_threshold` the
        loop ends once the state of every token in the chunk changed by less than that share; `loops_used` says when.
        """
        raise NotImplementedError

    def reset(self) -> None:
        """Forget all tokens."""
        self.length = 0

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

    @staticmethod
    def converged(before: np.ndarray, after: np.ndarray, threshold: float) -> bool:
        """Whether no token's state (1, chunk, width) changed by `threshold` of its norm or more."""
        change = np.linalg.norm(after - before, axis=-1) / np.maximum(np.linalg.norm(after, axis=-1), 1e-12)
        return bool(change.max() < threshold)

    def check(self, length: int, loops: int) -> None:
        """Raise `UsageError` for a bad loop count, `PromptTooLongError` for tokens beyond the context."""
        check_loops(loops, self.geometry.max_loops)
        if self.length + length > self.geometry.context:
            raise PromptTooLongError(
                f"{self.length} + {length} tokens do not fit the context of {self.geometry.context}; shorten the text"
            )
