"""Methods of an ExecuTorch program as modules to trace: one unrolled `forward`, or `prelude`, `recur` and `coda`.

Caches are buffers that the runtime owns and the program changes: (1, slots * context, heads, head size) for each layer,
a loop's slot being the rows from `slot * context`. Each module registers the caches that it uses and no others, because
a buffer that a method does not change would be written into the file.

    forward(tokens (1, S), input_pos (1,)) -> logits (1, 1, vocabulary) of the last token
    prelude(input_ids (1, S), input_pos (1,)) -> injected (1, S, state width), value embeddings (1, S, width) ...
    recur(state, injected, input_pos (1,), slot (1,), value embeddings ...) -> state
    coda(state, input_ids, input_pos (1,), positions (n,)) -> logits (1, n, vocabulary)

Integers are int64, floats fp32. `input_pos` is how many tokens the caches hold before the chunk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from executorch.extension.llm.custom_ops import custom_ops  # noqa: F401  registers the cache and attention operators
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from export.stages import forget_traces, recurrent_values
from export.targets.executorch.layers import Norm, PairSwap, Repeat, as_parameters
from export.targets.executorch.quiet import quiet
from parcae_mobile.model import Parcae

Index = int | torch.SymInt
POSITIONS_AT_ONCE = 64  # logits that one call of coda gives at most; they are planned memory


class BufferSlot:
    """One layer's place in a buffer cache, for one chunk of tokens: RoPE, QK-norm, append, attend."""

    def __init__(self, cache: LayerCache, chunk: Chunk, row: Index | None) -> None:
        self.cache, self.chunk, self.row = cache, chunk, row

    def attend(self, query: Tensor, key: Tensor, value: Tensor, normalise: bool) -> Tensor:
        query, key = self.cache.place(query, self.chunk, normalise), self.cache.place(key, self.chunk, normalise)
        keys, values, past, llama = self.cache.keys, self.cache.values, self.chunk.past, torch.ops.llama
        start = past if self.row is None else self.row + past
        llama.update_cache(key, keys, start)
        llama.update_cache(value, values, start)
        if self.row is not None:  # the runtime copies a part of a buffer, so no more than what the text has filled
            filled = past + query.shape[1]
            torch._check(self.row + filled <= keys.shape[1])
            keys, values = (t.narrow(1, self.row, filled) for t in (keys, values))
        out = llama.custom_sdpa(query, keys, values, past, None, 0.0, True)
        return out.view(1, -1, query.shape[2] * query.shape[3])


@dataclass(frozen=True)
class Chunk:
    """Where a chunk of tokens starts and its rows of the RoPE tables (1, S, 1, head size), if there is RoPE."""

    past: Index
    cosines: Tensor | None
    sines: Tensor | None


class LayerCache(nn.Module):
    """Keys and values of one layer for `slots` loops, and the constants of its attention."""

    keys: Tensor
    values: Tensor

    def __init__(self, kv_heads: int, size: int, context: int, slots: int, norm: Norm, turn: PairSwap | None) -> None:
        super().__init__()
        self.context, self.norm, self.turn = context, norm, turn
        for name in ("keys", "values"):
            self.register_buffer(name, untouched_zeros(1, slots * context, kv_heads, size), persistent=False)

    def place(self, x: Tensor, chunk: Chunk, normalise: bool) -> Tensor:
        """Rotate adjacent pairs, then normalise."""
        if chunk.cosines is not None and chunk.sines is not None and self.turn is not None:
            x = x * chunk.cosines + self.turn(x) * chunk.sines
        return self.norm(x) if normalise else x


def untouched_zeros(*shape: int) -> Tensor:
    """fp32 zeros that take no memory until they are written to: caches of many loops are large, and only traced."""
    return torch.from_numpy(np.zeros(shape, np.float32))


class Method(nn.Module):
    """Common parts of the methods: the model's layers, the RoPE tables and the caches of some stages."""

    cosines: Tensor | None
    sines: Tensor | None

    def __init__(self, model: Parcae, context: int, slots: dict[str, int]) -> None:
        super().__init__()
        self.model, self.context = model, context
        size = model.config.head_size
        rope = model.rope[:context] if model.config.rope_settings.use_rope else None
        for index, name in enumerate(("cosines", "sines")):
            table = None if rope is None else rope[..., index].contiguous()
            self.register_buffer(name, table)
        self.repeat = None if rope is None else Repeat(size // 2)
        as_parameters(self)
        self.caches = nn.ModuleDict()
        norms: dict[int, Norm] = {}
        turn = None if rope is None else PairSwap(size, turn=True)
        for stage, count in slots.items():
            layers = nn.ModuleList()
            for block in model.transformer[stage]:
                heads, width = block.attn.cached_heads, block.attn.head_size
                norm = norms.setdefault(width, Norm(width, torch.finfo(torch.float32).eps, None))
                layers.append(LayerCache(heads, width, context, count, norm, turn))
            self.caches[stage] = layers

    def chunk(self, input_pos: Tensor, length: int) -> Chunk:
        """The chunk of `length` tokens that starts at `input_pos`."""
        past: Index = input_pos[0].item()  # type: ignore[assignment]  # a symbol while it is traced
        torch._check(past >= 0)
        torch._check(past < self.context)
        torch._check(past + length <= self.context)
        if self.cosines is None or self.sines is None or self.repeat is None:
            return Chunk(past, None, None)
        rows = (t.narrow(0, past, length).view(1, length, 1, -1) for t in (self.cosines, self.sines))
        return Chunk(past, *(self.repeat(row) for row in rows))

    def slots(self, stage: str, chunk: Chunk, row: Index | None = None) -> list[BufferSlot]:
        layers = cast(nn.ModuleList, self.caches[stage])
        return [BufferSlot(cast(LayerCache, cache), chunk, row) for cache in layers]


class Unrolled(Method):
    """The whole model with the loop written out: what stock clients run."""

    def __init__(self, model: Parcae, context: int, loops: int, slots: int) -> None:
        super().__init__(model, context, {"prelude": 1, "core_block": slots, "coda": 1})
        self.loops, self.slot_count = loops, slots

    def forward(self, tokens: Tensor, input_pos: Tensor) -> Tensor:
        chunk, model = self.chunk(input_pos, tokens.shape[1]), self.model
        injected, values = model.prelude(tokens, self.slots("prelude", chunk))
        state = model.zero_state(injected)
        for loop in range(self.loops):
            row = min(loop, self.slot_count - 1) * self.context if self.slot_count > 1 else None
            state = model.recur(state, injected, values, self.slots("core_block", chunk, row))
        last = torch.tensor([-1]) + tokens.shape[1]
        return model.coda(state, tokens, self.slots("coda", chunk), last)


class Prelude(Method):
    def __init__(self, model: Parcae, context: int) -> None:
        super().__init__(model, context, {"prelude": 1})

    def forward(self, tokens: Tensor, input_pos: Tensor) -> tuple[Tensor, ...]:
        chunk = self.chunk(input_pos, tokens.shape[1])
        injected, values = self.model.prelude(tokens, self.slots("prelude", chunk))
        return (injected, *(value for value in values if value is not None))


class Recur(Method):
    def __init__(self, model: Parcae, context: int, slots: int) -> None:
        super().__init__(model, context, {"core_block": slots})
        self.slot_count = slots

    def forward(self, state: Tensor, injected: Tensor, input_pos: Tensor, slot: Tensor, *values: Tensor) -> Tensor:
        index: Index = slot[0].item()  # type: ignore[assignment]  # a symbol while it is traced
        torch._check(index >= 0)
        torch._check(index < self.slot_count)
        torch._check(index * self.context + self.context <= self.slot_count * self.context)
        chunk, remaining = self.chunk(input_pos, state.shape[1]), iter(values)
        per_layer = [next(remaining) if has else None for has in recurrent_values(self.model)]
        return self.model.recur(state, injected, per_layer, self.slots("core_block", chunk, index * self.context))


class Coda(Method):
    def __init__(self, model: Parcae, context: int) -> None:
        super().__init__(model, context, {"coda": 1})

    def forward(self, state: Tensor, tokens: Tensor, input_pos: Tensor, positions: Tensor) -> Tensor:
        chunk = self.chunk(input_pos, tokens.shape[1])
        return self.model.coda(state, tokens, self.slots("coda", chunk), positions)


def trace_unrolled(model: Parcae, context: int, loops: int, slots: int, chunk: int) -> dict[str, ExportedProgram]:
    """`forward` for `loops` loops over at most `chunk` tokens at once."""
    length = Dim("length", min=1, max=chunk)
    example = (torch.zeros(1, min(3, chunk), dtype=torch.int64), torch.zeros(1, dtype=torch.int64))
    return {"forward": _trace(Unrolled(model, context, loops, slots), example, ({1: length}, {0: 1}))}


def trace_methods(model: Parcae, context: int, slots: int, chunk: int) -> dict[str, ExportedProgram]:
    """`prelude`, `recur` and `coda` over at most `chunk` tokens at once; recurrent caches hold `slots` loops."""
    config = model.config
    length, chosen = Dim("length", min=1, max=chunk), Dim("positions", min=1, max=min(POSITIONS_AT_ONCE, chunk))
    tokens = min(3, chunk)

    def floats(width: int) -> Tensor:
        return torch.zeros(1, tokens, width)

    def integers(*shape: int) -> Tensor:
        return torch.zeros(*shape, dtype=torch.int64)

    # Each example is a tensor of its own: export merges inputs that are one object.
    state = config.recurrent_embedding_dimension
    values = tuple(floats(config.value_width) for has in recurrent_values(model) if has)
    sequence = {1: length}
    shaped = (tuple(sequence for _ in values),) if values else ()
    return {
        "prelude": _trace(Prelude(model, context), (integers(1, tokens), integers(1)), (sequence, {0: 1})),
        "recur": _trace(
            Recur(model, context, slots),
            (floats(state), floats(state), integers(1), integers(1), *values),
            (sequence, sequence, {0: 1}, {0: 1}, *shaped),
        ),
        "coda": _trace(
            Coda(model, context),
            (floats(state), integers(1, tokens), integers(1), integers(min(2, chunk))),
            (sequence, sequence, {0: 1}, {0: chosen}),
        ),
    }


def _trace(module: nn.Module, example: tuple[Tensor, ...], shapes: tuple[object, ...]) -> ExportedProgram:
    with quiet(), torch.no_grad():
        program = torch.export.export(module.eval(), example, dynamic_shapes=shapes, strict=False)
    forget_traces(program)
    return simplify(program)


def simplify(program: ExportedProgram) -> ExportedProgram:
    """Let views infer their one dynamic dimension; drop a slice that is only padded again, and casts to the same type.

    XNNPACK takes a view whose sizes are numbers (one may be -1), no slice of a dynamic length, and only float scalars.
    """
    aten, graph = torch.ops.aten, program.graph
    for node in list(graph.nodes):
        if node.target in (aten.view.default, aten.reshape.default):
            sizes = list(node.args[1])
            if sum(not isinstance(size, int) for size in sizes) == 1 and -1 not in sizes:
                node.args = (node.args[0], [size if isinstance(size, int) else -1 for size in sizes])
        elif node.target == aten.pad.default and node.args[0].target == aten.slice.Tensor:
            node.replace_all_uses_with(node.args[0].args[0])
        elif node.target == aten.to.dtype and node.args[0].meta["val"].dtype == node.args[1]:
            node.replace_all_uses_with(node.args[0])
        elif node.target == aten.mul.Tensor and isinstance(node.args[1], int):
            node.args = (node.args[0], float(node.args[1]))
    graph.eliminate_dead_code(is_impure_node=_is_kept)
    program.graph_module.recompile()
    return program


def _is_kept(node: torch.fx.Node) -> bool:
    """Inputs, outputs and operators that change a cache or check a bound stay."""
    effects = ("llama.update_cache", "assert", "sym_")
    return node.op != "call_function" or any(part in str(node.target) for part in effects)
