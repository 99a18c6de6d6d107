"""The three stages of a model, traced once with `torch.export`: the graphs that ONNX and Core ML lower and compose.

    stages = trace_stages(model)
    stages["recur"].program.graph                          # aten operators and `parcae.cached_attention`

A stage is a function of tensors: no module state, no loop, one chunk of any length, batch 1. Attention with its cache
is one custom operator, so that each target gives it its best kernel. Parameters keep their names in the model, by which
a target finds their quantized form. The injection is folded beforehand: `decay` and `dt` are fp32 constants.
"""

from __future__ import annotations

import copy
import linecache
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._guards import detect_fake_mode
from torch.export import Dim, ExportedProgram
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.fx.graph_module import _loader
from torch.nn import functional as F

from parcae_mobile.injection import DiagonalInjection, LinearInjection
from parcae_mobile.kv_cache import rotate
from parcae_mobile.model import Parcae

LENGTH, CAPACITY = 3, 7  # of the examples: a size of 1 would be taken for a constant, whatever the context is


@dataclass(frozen=True)
class Stage:
    """A traced stage; `inputs` and `outputs` are the names, in order, of the program's user inputs and outputs."""

    name: str
    program: ExportedProgram
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    kv_layers: int


@torch.library.custom_op("parcae::cached_attention", mutates_args=())
def cached_attention(
    query: Tensor, key: Tensor, value: Tensor, past_key: Tensor, past_value: Tensor, total: Tensor, rope: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Rotate, append to the cache, attend.

    `query` (1, S, heads, size), `key` and `value` (1, S, kv heads, size), normalised but not rotated; `past_key` and
    `past_value` (1, kv heads, context, size), of which `total - S` positions are filled; `total` int32 scalar, the
    filled positions afterwards; `rope` (positions, size / 2, 2). Returns (1, S, heads * size) and both caches.
    """
    length, filled = query.shape[1], int(total)
    past = filled - length
    if rope is not None:
        query, key = rotate(query, rope[past:filled]), rotate(key, rope[past:filled])
    present_key, present_value = past_key.clone(), past_value.clone()
    present_key[:, :, past:filled] = key.transpose(1, 2)
    present_value[:, :, past:filled] = value.transpose(1, 2)
    mask = torch.arange(filled)[None, :] <= torch.arange(past, filled)[:, None]
    k, v = present_key[:, :, :filled], present_value[:, :, :filled]
    q = query.transpose(1, 2)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=q.shape[1] != k.shape[1])
    return out.transpose(1, 2).flatten(2).contiguous(), present_key, present_value


@cached_attention.register_fake
def _(
    query: Tensor, key: Tensor, value: Tensor, past_key: Tensor, past_value: Tensor, total: Tensor, rope: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    out = query.new_empty(query.shape[0], query.shape[1], query.shape[2] * query.shape[3])
    return out, torch.empty_like(past_key), torch.empty_like(past_value)


class TracedSlot:
    """A cache slot whose past and present are inputs and outputs of the stage."""

    def __init__(self, past_key: Tensor, past_value: Tensor, total: Tensor, rope: Tensor | None) -> None:
        self.past, self.total, self.rope = (past_key, past_value), total, rope
        self.present: tuple[Tensor, ...] = ()

    def attend(self, query: Tensor, key: Tensor, value: Tensor, normalise: bool) -> Tensor:
        if normalise:  # a rotation preserves the norm, so the norm may come first
            query, key = (F.rms_norm(t, (t.shape[-1],)) for t in (query, key))
        out, *present = torch.ops.parcae.cached_attention(query, key, value, *self.past, self.total, self.rope)
        self.present = tuple(present)
        return out


class FoldedDiagonal(nn.Module):
    """The diagonal injection with `decay` and `dt` computed once, in fp32. `dt` stays apart from `B`."""

    decay: Tensor
    dt: Tensor

    def __init__(self, injection: DiagonalInjection) -> None:
        super().__init__()
        self.register_buffer("decay", injection.decay())
        self.register_buffer("dt", injection.dt())
        self.B = injection.B

    def prepare(self, embedded: Tensor) -> Tensor:
        return self.dt * F.linear(embedded, self.B)

    def forward(self, state: Tensor, injected: Tensor) -> Tensor:
        return self.decay * state + injected


class FoldedLinear(nn.Module):
    """The linear injection split by columns, so that the embedding's half is computed once and not at each loop."""

    state_weight: Tensor
    embedded_weight: Tensor

    def __init__(self, injection: LinearInjection) -> None:
        super().__init__()
        weight, state = injection.adapter.weight, injection.adapter.out_features
        self.register_buffer("state_weight", weight[:, :state].contiguous())
        self.register_buffer("embedded_weight", weight[:, state:].contiguous())
        self.bias = injection.adapter.bias

    def prepare(self, embedded: Tensor) -> Tensor:
        return F.linear(embedded, self.embedded_weight, self.bias)

    def forward(self, state: Tensor, injected: Tensor) -> Tensor:
        return F.linear(state, self.state_weight) + injected


def fold_injection(model: Parcae) -> Parcae:
    """A model that shares every tensor with `model` and whose injection does no work that loops could share."""
    tensors = [*model.parameters(), *model.buffers()]
    folded = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
    injection = folded.transformer["adapter"]
    if isinstance(injection, DiagonalInjection):
        folded.transformer["adapter"] = FoldedDiagonal(injection)
    elif isinstance(injection, LinearInjection):
        folded.transformer["adapter"] = FoldedLinear(injection)
    return folded


class _StageModule(nn.Module):
    """A stage as a module of its own; `model.*` are its parameter names."""

    def __init__(self, model: Parcae) -> None:
        super().__init__()
        self.model = model

    def slots(self, past: Sequence[Tensor], total: Tensor) -> list[TracedSlot]:
        rope = self.model.rope if self.model.config.rope_settings.use_rope else None
        return [TracedSlot(past[i], past[i + 1], total, rope) for i in range(0, len(past), 2)]


class _Prelude(_StageModule):
    def forward(self, input_ids: Tensor, total: Tensor, past: list[Tensor]) -> tuple[Tensor, ...]:
        slots = self.slots(past, total)
        injected, values = self.model.prelude(input_ids, slots)
        return (injected, *(v for v in values if v is not None), *(t for slot in slots for t in slot.present))


class _Recur(_StageModule):
    def forward(
        self, state: Tensor, injected: Tensor, total: Tensor, values: list[Tensor], past: list[Tensor]
    ) -> tuple[Tensor, ...]:
        slots, remaining = self.slots(past, total), iter(values)
        per_layer = [next(remaining) if has else None for has in recurrent_values(self.model)]
        state = self.model.recur(state, injected, per_layer, slots)
        return (state, *(t for slot in slots for t in slot.present))


class _Coda(_StageModule):
    def forward(
        self, state: Tensor, input_ids: Tensor, positions: Tensor, total: Tensor, past: list[Tensor]
    ) -> tuple[Tensor, ...]:
        slots = self.slots(past, total)
        logits = self.model.coda(state, input_ids, slots, positions)
        return (logits, *(t for slot in slots for t in slot.present))


def recurrent_values(model: Parcae) -> list[bool]:
    """Which recurrent layers apply a value embedding."""
    offset = model.config.stage_offset("core_block")
    return [
        block.attn.ve_gate is not None and str(offset + index) in model.value_embeds
        for index, block in enumerate(model.transformer["core_block"])
    ]


def trace_stages(model: Parcae) -> dict[str, Stage]:
    """Trace prelude, recur and coda. Sequence length and cache length are dynamic, batch is 1."""
    folded, config = fold_injection(model), model.config
    ids, positions = torch.zeros(1, LENGTH, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)
    total = torch.tensor(LENGTH, dtype=torch.int32)
    state, injected = (torch.zeros(1, LENGTH, config.recurrent_embedding_dimension) for _ in range(2))
    values = [torch.zeros(1, LENGTH, config.value_width) for has in recurrent_values(model) if has]
    embedded = {"input_ids": ids, "total": total}
    looped = {"state": state, "injected": injected, "total": total}
    ended = {"state": state.clone(), "input_ids": ids, "positions": positions, "total": total}
    return {
        "prelude": _trace("prelude", _Prelude(folded), embedded, ["injected", *_value_names(values)]),
        "recur": _trace("recur", _Recur(folded), looped, ["next_state"], values),
        "coda": _trace("coda", _Coda(folded), ended, ["logits"]),
    }


def _value_names(values: Sequence[Tensor]) -> list[str]:
    return [f"value_embedding.{index}" for index in range(len(values))]


def _trace(
    name: str, module: _StageModule, tensors: dict[str, Tensor], outputs: list[str], values: Sequence[Tensor] = ()
) -> Stage:
    """One stage; `tensors` and the value embeddings of recurrent layers are examples of its inputs."""
    group = "core_block" if name == "recur" else name
    context = module.model.config.context
    sequence, cache = Dim("sequence", min=1, max=max(context, 4)), Dim("cache", min=1, max=max(context, 8))
    sizes = {"total": None, "positions": {0: Dim("positions", min=1, max=max(context, 4))}}
    attention = [block.attn for block in module.model.transformer[group]]
    past = [torch.zeros(1, a.cached_heads, CAPACITY, a.head_size) for a in attention for _ in range(2)]
    kwargs: dict[str, object] = dict(tensors)
    dynamic: dict[str, Any] = {key: sizes.get(key, {1: sequence}) for key in tensors}
    if name == "recur":
        kwargs["values"], dynamic["values"] = list(values), [{1: sequence} for _ in values]
    kwargs["past"], dynamic["past"] = past, [{2: cache} for _ in past]
    with torch.no_grad():
        program = torch.export.export(module, (), kwargs, dynamic_shapes=dynamic, strict=False)
    forget_traces(program)
    parts = [f"{index}.{part}" for index in range(len(attention)) for part in ("key", "value")]
    return Stage(
        name,
        program,
        inputs=(*tensors, *_value_names(values), *(f"past.{part}" for part in parts)),
        outputs=(*outputs, *(f"present.{part}" for part in parts)),
        kv_layers=len(attention),
    )


def forget_traces(*programs: ExportedProgram) -> None:
    """Undo what would keep these programs' shapes and graphs for as long as the process lives. They stay usable.

    An environment of shapes lists the inputs that it was made for, whose sizes point back at it from C++, where the
    collector does not look; and methods of its class keep their results by the environments that they were asked of.
    The source of every graph that was compiled is kept for tracebacks, megabytes of text for a lowering.
    """
    for program in programs:
        mode = detect_fake_mode([node.meta.get("val") for node in program.graph.nodes])
        if mode is not None and mode.shape_env is not None and mode.shape_env.tracked_fakes is not None:
            mode.shape_env.tracked_fakes.clear()
    for method in vars(ShapeEnv).values():
        if hasattr(method, "cache_clear"):
            method.cache_clear()
    sources = _loader.eval_cache
    for name in sources:
        linecache.cache.pop(name, None)
    sources.clear()
