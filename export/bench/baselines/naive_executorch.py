"""The naive ExecuTorch baseline: what following the exporter's documentation gives, without anything of this project.

    write_naive_pte(model, loops=8, context=512, path=Path("naive.pte"))   # fp32, unrolled, minutes for a 140M shape
    naive = NaivePte(Path("naive.pte"), threads=1)
    logits = naive.prefill(prompt_ids)                     # (padded vocabulary,) after the last id
    logits = naive.step(token)                             # the same, one token on

The eager model is exported as it stands: `to_edge_transform_and_lower` with the plain XNNPACK partitioner and every
other setting at its default, the loop written out. Keys and values lie in one buffer for each loop and layer, written
by `index_copy_` and attended over the whole context under a mask, as in the static caches of the usual exporters: so
`context` costs time at every step, and a comparison should give the least that its text needs. Weights are tied where
the model ties them, one dynamic length serves prompt and step, and only the last position's logits are computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.targets.executorch.host import load_module
from parcae_mobile.errors import PromptTooLongError
from parcae_mobile.kv_cache import place
from parcae_mobile.model import Parcae


class NaiveSlot:
    """One layer of one loop: append by position, attend over the whole buffer under a mask."""

    def __init__(self, keys: Tensor, values: Tensor, positions: Tensor, rope: Tensor | None) -> None:
        self.keys, self.values, self.positions, self.rope = keys, values, positions, rope

    def attend(self, query: Tensor, key: Tensor, value: Tensor, normalise: bool) -> Tensor:
        query, key = place(query, self.rope, normalise), place(key, self.rope, normalise)
        self.keys.index_copy_(2, self.positions, key.transpose(1, 2))
        self.values.index_copy_(2, self.positions, value.transpose(1, 2))
        mask = torch.arange(self.keys.shape[2])[None, :] <= self.positions[:, None]
        grouped = query.shape[2] != key.shape[2]
        out = F.scaled_dot_product_attention(
            query.transpose(1, 2), self.keys, self.values, attn_mask=mask, enable_gqa=grouped
        )
        return out.transpose(1, 2).flatten(2)


class NaiveModel(nn.Module):
    """`forward(tokens (1, S) int64, positions (S,) int64)` -> logits (1, 1, padded vocabulary) of the last token."""

    def __init__(self, model: Parcae, loops: int, context: int) -> None:
        super().__init__()
        self.model, self.loops = model, loops
        for stage, runs in (("prelude", 1), ("core_block", loops), ("coda", 1)):
            for index, block in enumerate(model.transformer[stage]):
                shape = (1, block.attn.cached_heads, context, block.attn.head_size)
                for loop in range(runs):
                    self.register_buffer(f"keys_{stage}_{loop}_{index}", torch.zeros(shape))
                    self.register_buffer(f"values_{stage}_{loop}_{index}", torch.zeros(shape))

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        model = self.model
        rope = model.rope[positions] if model.config.rope_settings.use_rope else None

        def slots(stage: str, loop: int = 0) -> list[NaiveSlot]:
            names = [f"{stage}_{loop}_{index}" for index in range(len(model.transformer[stage]))]
            pairs = [(self.get_buffer(f"keys_{name}"), self.get_buffer(f"values_{name}")) for name in names]
            return [NaiveSlot(keys, values, positions, rope) for keys, values in pairs]

        injected, values = model.prelude(tokens, slots("prelude"))
        state = model.zero_state(injected)
        for loop in range(self.loops):
            state = model.recur(state, injected, values, slots("core_block", loop))
        last = torch.tensor([-1]) + tokens.shape[1]
        return model.coda(state, tokens, slots("coda"), last)


def write_naive_pte(model: Parcae, loops: int, context: int, path: Path) -> None:
    """Write the fp32 model with `loops` loops unrolled and caches for `context` tokens; nothing is checked."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower
    from torch.export import Dim

    from export.targets.executorch.quiet import quiet

    naive = NaiveModel(model, loops, context).eval()
    length = Dim("length", min=1, max=context)
    example = (torch.zeros(1, 3, dtype=torch.int64), torch.arange(3))
    with quiet(), torch.no_grad():
        program = torch.export.export(naive, example, dynamic_shapes=({1: length}, {0: length}), strict=False)
        edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
        path.write_bytes(edge.to_executorch().buffer)


class NaivePte:
    """A naive program in memory, with the cache of one conversation. `length` may be set back to repeat a position."""

    def __init__(self, path: Path, threads: int = 0) -> None:
        self._module = load_module(path, threads)
        self.length = 0

    def prefill(self, ids: Sequence[int]) -> np.ndarray:
        """Logits (padded vocabulary,) after the last of `ids`, which follow the tokens already held."""
        tokens, positions = torch.tensor([list(ids)]), torch.arange(self.length, self.length + len(ids))
        try:
            (logits,) = self._module.run_method("forward", (tokens, positions))
        except RuntimeError as error:
            raise PromptTooLongError(
                f"{self.length} + {len(ids)} tokens: the naive program does not take them ({error})"
            ) from None
        self.length += len(ids)
        return np.asarray(logits[0, -1].numpy())

    def step(self, token: int) -> np.ndarray:
        """Logits (padded vocabulary,) after one more token."""
        return self.prefill([token])
