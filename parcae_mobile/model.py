"""The eager Parcae model: prelude, a recurrent block applied `loops` times, coda.

    model = load_model("checkpoint/")
    logits = model(input_ids, loops=4)                    # (batch, sequence, padded vocabulary), fp32

The stages are methods, and every artifact has the same three: `prelude` gives what no loop changes (the injected
embedding and the recurrent layers' value embeddings), `recur` is one loop, `coda` gives logits. The first state is
zero unless one is given: the original draws it at random, which no deployed artifact can repeat.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .config import ParcaeConfig
from .errors import PromptTooLongError, UsageError
from .injection import build_injection
from .kv_cache import FullSequence, KVCache, Slot
from .layers import Block, Embedding, Linear, build_norm
from .loops import check_loops
from .rope import rope_table
from .stage_names import LAYER_GROUPS


class Parcae(nn.Module):
    """A Parcae language model. Parameter names are the original's."""

    transformer: Any  # nn.ModuleDict: wte, prelude, adapter, core_block, C, coda, ln_f and perhaps ln_prelude
    value_embeds: Any  # nn.ModuleDict: one nn.Embedding for each effective layer that has a table
    lm_head: Any  # Linear
    rope: Tensor

    def __init__(self, config: ParcaeConfig) -> None:
        super().__init__()
        self.config = config
        width = config.n_embd
        stages = {
            stage: nn.ModuleList(Block(config, stage, index) for index in range(config.layer_count(stage)))
            for stage in LAYER_GROUPS
        }
        project = Linear(config.recurrent_embedding_dimension, width, bias=config.bias)
        parts: dict[str, nn.Module] = {
            "wte": Embedding(config.padded_vocab_size, width),
            "adapter": build_injection(config),
            "C": nn.Identity() if config.plain else project,
            "ln_f": build_norm(config, width),
            **stages,
        }
        if config.prelude_norm:
            parts["ln_prelude"] = build_norm(config, width)
        self.transformer = nn.ModuleDict(parts)
        self.value_embeds = nn.ModuleDict(
            {
                str(index): Embedding(config.padded_vocab_size, config.value_width)
                for index in range(config.layers(loops=1))
                if config.has_value_table(index)
            }
        )
        self.lm_head = Linear(width, config.padded_vocab_size, bias=False)
        if config.tie_embeddings:
            self.lm_head.weight = self.transformer["wte"].weight
        self.register_buffer("rope", rope_table(config), persistent=False)

    def forward(
        self,
        input_ids: Tensor,
        loops: int,
        initial_state: Tensor | None = None,
        cache: KVCache | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Logits (batch, positions, padded vocabulary) in fp32 of (batch, sequence) int64 ids.

        `positions` (n,) int64 are the places in the chunk whose logits are wanted, all if not given. `initial_state` is
        (batch, sequence, recurrent width), zero if not given. With a `cache` the ids follow those that it holds. Raises
        `UsageError` for a loop count below 1 or above the cache's, `PromptTooLongError` for a text beyond the context.
        """
        self._check_loops(loops, cache.max_loops if cache is not None else None)
        injected, values = self.prelude(input_ids, self.slots("prelude", input_ids, cache))
        state = self.zero_state(injected) if initial_state is None else initial_state
        for loop in range(loops):
            state = self.recur(state, injected, values, self.slots("core_block", input_ids, cache, loop))
        logits = self.coda(state, input_ids, self.slots("coda", input_ids, cache), positions)
        if cache is not None:
            cache.advance(input_ids.shape[1], loops)
        return logits

    def prelude(self, input_ids: Tensor, slots: Sequence[Slot]) -> tuple[Tensor, list[Tensor | None]]:
        """Ids -> what no loop changes: injected (batch, sequence, state width), value embedding per recurrent layer."""
        x = self.transformer["wte"](input_ids)
        if self.config.embedding_scale != 1:
            x = x * self.config.embedding_scale
        for block, value, slot in self._layers("prelude", input_ids, slots):
            x = block(x, value, slot)
        if self.config.prelude_norm:
            x = self.transformer["ln_prelude"](x)
        return self.transformer["adapter"].prepare(x), self.value_embeddings("core_block", input_ids)

    def recur(self, state: Tensor, injected: Tensor, values: Sequence[Tensor | None], slots: Sequence[Slot]) -> Tensor:
        """One loop: (batch, sequence, state width) -> the same."""
        x = self.transformer["adapter"](state, injected)
        for block, value, slot in zip(self.transformer["core_block"], values, slots, strict=True):
            x = block(x, value, slot)
        return x

    def coda(self, state: Tensor, input_ids: Tensor, slots: Sequence[Slot], positions: Tensor | None = None) -> Tensor:
        """State after the last loop -> logits of all places, or of `positions` (n,) int64."""
        x = self.transformer["C"](state)
        for block, value, slot in self._layers("coda", input_ids, slots):
            x = block(x, value, slot)
        return self.head(x if positions is None else x.index_select(1, positions))

    def head(self, x: Tensor) -> Tensor:
        """(batch, sequence, width) -> logits (batch, sequence, padded vocabulary) in fp32."""
        logits = self.lm_head(self.transformer["ln_f"](x)).float()
        if self.config.logit_scale != 1:
            logits = logits * self.config.logit_scale
        if self.config.logit_softcap is not None:
            logits = self.config.logit_softcap * torch.tanh(logits / self.config.logit_softcap)
        return logits

    def states(self, input_ids: Tensor, loops: int, initial_state: Tensor | None = None) -> Iterator[Tensor]:
        """The state after each of `loops` loops over a whole text, for sweeps over T that share their loops."""
        self._check_loops(loops)
        injected, values = self.prelude(input_ids, self.slots("prelude", input_ids))
        state = self.zero_state(injected) if initial_state is None else initial_state
        for _ in range(loops):
            state = self.recur(state, injected, values, self.slots("core_block", input_ids))
            yield state

    def slots(self, stage: str, input_ids: Tensor, cache: KVCache | None = None, loop: int = 0) -> Sequence[Slot]:
        """A slot for each layer of a stage: of the cache, or none's where the whole text is given at once."""
        length = input_ids.shape[1]
        rope = self.rope if self.config.rope_settings.use_rope else None
        if cache is not None:
            return cache.stage(stage, length, rope, loop)
        if length > self.config.context:
            raise PromptTooLongError(f"{length} tokens do not fit the context of {self.config.context}; shorten them")
        slot = FullSequence(None if rope is None else rope[:length])
        return [slot] * len(self.transformer[stage])

    def zero_state(self, injected: Tensor) -> Tensor:
        """The deployed first state (batch, sequence, state width)."""
        return injected.new_zeros(*injected.shape[:-1], self.config.recurrent_embedding_dimension)

    def value_embeddings(self, stage: str, input_ids: Tensor) -> list[Tensor | None]:
        """Per layer (batch, sequence, value width), or None where the layer has no table or no gate."""
        offset = self.config.stage_offset(stage)
        return [
            self.value_embeds[str(offset + index)](input_ids)
            if block.attn.ve_gate is not None and str(offset + index) in self.value_embeds
            else None
            for index, block in enumerate(self.transformer[stage])
        ]

    def _check_loops(self, loops: int, most: int | None = None) -> None:
        check_loops(loops, most)
        if self.config.plain and loops != 1:
            raise UsageError(f"loops = {loops}: {self.config.name or 'a plain model'} has no loop; give 1")

    def _layers(
        self, stage: str, input_ids: Tensor, slots: Sequence[Slot]
    ) -> Iterator[tuple[Any, Tensor | None, Slot]]:
        return zip(self.transformer[stage], self.value_embeddings(stage, input_ids), slots, strict=True)
