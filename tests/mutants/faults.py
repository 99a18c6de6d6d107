"""The mutants: one fault each, as small as the table says, put between an artifact and what it is compared with.

    fault = FAULTS["a recurrent matrix"]
    wrong = fault.change(quantized, fault.size, frequent)  # a fault of tensors
    with fault.asked(quantized): ...                       # a fault of the loop, the cache or a position

A fault of tensors is written into the artifact; where writing takes minutes the artifact is right and the reference
has the fault, because gates see the difference of two models and cannot know which of the two is wrong. A fault of the
loop, the cache or a position is the reference's for the same reason: what all forms and runtimes share is what it asks.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional

from export.gates import directions, function, probes
from export.targets.coreml.attention import Caches
from parcae_mobile.kv_cache import CacheSlot, KVCache, fetch, place, store
from parcae_mobile.model import Parcae
from quantize import QuantizedModel, QuantizedTensor

CORE = "transformer.core_block.0."
VALUES = "value_embeds."
Change = Callable[[QuantizedModel, float, Sequence[int]], QuantizedModel]


@dataclass(frozen=True)
class Fault:
    """One row of the table. `size` doubles until the fault is caught; 0 is a fault that has no size."""

    name: str
    size: float = 0.0
    unit: str = ""
    change: Change | None = None  # of the tensors: (quantized, size, frequent token ids)
    asked: Callable[[], Any] | None = None  # what the reference is asked otherwise
    written: Callable[[], Any] | None = None  # what the writer does otherwise
    of_reference: bool = False  # `change` can only be the reference's
    needs_scales: bool = False
    only: str = ""  # the one target that can have it

    @property
    def title(self) -> str:
        """The row's name with its size."""
        if not self.size:
            return self.name
        return f"{self.name}, {self.size:.1%}".replace(".0%", "%") if self.size < 1 else f"{self.name}, {self.size:g}"

    def absent(self, target: str, form: str, quant: str) -> str:
        """Why it cannot be made in a column, or nothing."""
        if self.only and target != self.only:
            return f"{target} has no states that a tool could merge the reads of"
        if self.only and form == "while":
            return "the passes remove reads of this form that nothing uses, and merge none"
        if self.needs_scales and quant == "fp32":
            return "fp32 has no scales"
        return ""


def changed(
    quantized: QuantizedModel, values: dict[str, Tensor], tensors: dict[str, QuantizedTensor] | None = None
) -> QuantizedModel:
    """A copy with other parameters; what is quantized is replaced in both of its forms."""
    model = copy.deepcopy(quantized.model)
    for name, tensor in (tensors or {}).items():
        values = values | {name: tensor.dequantize()}
    with torch.no_grad():
        for name, value in values.items():
            model.get_parameter(name).copy_(value)
    return replace(quantized, eager=model, tensors={**quantized.tensors, **(tensors or {})})


def unchecked(tensor: QuantizedTensor, **parts: Tensor) -> QuantizedTensor:
    """A quantized tensor with other parts, which may be what no recipe makes."""
    other = copy.copy(tensor)
    for name, value in parts.items():
        object.__setattr__(other, name, value)
    return other


def weight(quantized: QuantizedModel, name: str) -> Tensor:
    return quantized.model.get_parameter(name).detach()


def larger(name: str) -> Change:
    """A matrix by a share of itself; of a quantized one the scales."""

    def change(quantized: QuantizedModel, size: float, frequent: Sequence[int]) -> QuantizedModel:
        stored = quantized.tensors.get(name)
        if stored is None:
            return changed(quantized, {name: weight(quantized, name) * (1 + size)})
        return changed(quantized, {}, {name: unchecked(stored, scales=stored.scales * (1 + size))})

    return change


def _rows(quantized: QuantizedModel, name: str, make: Callable[[Tensor], Tensor]) -> QuantizedModel:
    """Another order or other values of a matrix's rows: of its integers and scales alike."""
    stored = quantized.tensors.get(name)
    if stored is None:
        return changed(quantized, {name: make(weight(quantized, name).clone())})
    parts = {"integers": make(stored.integers.clone()), "scales": stored.scales}
    return changed(quantized, {}, {name: unchecked(stored, **parts)})


def zeroed(quantized: QuantizedModel, size: float, frequent: Sequence[int]) -> QuantizedModel:
    def make(rows: Tensor) -> Tensor:
        rows[5 : 5 + int(size)] = 0
        return rows

    return _rows(quantized, CORE + "mlp.proj.weight", make)


def exchanged(quantized: QuantizedModel, size: float, frequent: Sequence[int]) -> QuantizedModel:
    names = [f"{CORE}attn.{part}.weight" for part in ("c_q", "c_k")]
    if names[0] not in quantized.tensors:
        return changed(quantized, dict(zip(names, [weight(quantized, n).clone() for n in names[::-1]], strict=True)))
    stored = [quantized.tensors[name] for name in names[::-1]]
    return changed(quantized, {}, dict(zip(names, stored, strict=True)))


def flipped(quantized: QuantizedModel, size: float, frequent: Sequence[int]) -> QuantizedModel:
    """The signs of the integers of one scale's group, in as many rows; 4 bits hold -8 and not 8, so 7 stands for it."""
    name = CORE + "mlp.fc.weight"
    stored = quantized.tensors[name]
    integers, most = stored.integers.clone(), 2 ** (stored.bits - 1) - 1
    group = integers[5 : 5 + int(size), : stored.group_size]
    integers[5 : 5 + int(size), : stored.group_size] = (-group.to(torch.int16)).clamp(max=most).to(torch.int8)
    return changed(quantized, {}, {name: unchecked(stored, integers=integers)})


def value_rows(quantized: QuantizedModel, size: float, frequent: Sequence[int]) -> QuantizedModel:
    """Rows of frequent tokens exchanged in pairs: a row that no text reads cannot be seen."""
    name = next(name for name, _ in quantized.model.named_parameters() if name.startswith(VALUES))
    pairs = list(frequent[: 2 * int(size)])

    def make(rows: Tensor) -> Tensor:
        rows[pairs] = rows[pairs[::-1]].clone()
        return rows

    other = _rows(quantized, name, make)
    stored = other.tensors.get(name)
    return (
        other if stored is None else changed(other, {}, {name: unchecked(stored, scales=make(stored.scales.clone()))})
    )


def slower(quantized: QuantizedModel, size: float, frequent: Sequence[int]) -> QuantizedModel:
    """Decays by a share of themselves, but below 1."""
    injection = quantized.model.transformer["adapter"]
    decay, dt = injection.decay().double(), injection.dt().double()
    wanted = torch.minimum(decay * (1 + size), (1 + decay) / 2)
    return changed(quantized, {"transformer.adapter.A_log": ((-wanted.log()) / dt).log().float()})


def twice(quantized: QuantizedModel, size: float, frequent: Sequence[int]) -> QuantizedModel:
    injection = quantized.model.transformer["adapter"]
    return changed(quantized, {"transformer.adapter.B": injection.dt()[:, None] * injection.B.detach()})


def rotated(later: bool) -> Change:
    """Shifting every position alike changes no distance, so the first one stays."""

    def change(quantized: QuantizedModel, size: float, frequent: Sequence[int]) -> QuantizedModel:
        other = changed(quantized, {})
        table = quantized.model.rope
        rows = [table[:1], table[2:], table[-1:]] if later else [table[:1], table[:1], table[1:-1]]
        other.model.rope = torch.cat(rows)
        return other

    return change


def untied(quantized: QuantizedModel, size: float, frequent: Sequence[int]) -> QuantizedModel:
    """A model with a head of its own, off its table by a share; the artifact, which has one table, stores no such."""
    model = Parcae(replace(quantized.model.config, tie_embeddings=False))
    table = weight(quantized, "transformer.wte.weight")
    noise = torch.randn(table.shape, generator=torch.Generator().manual_seed(3)) * table.std()
    model.load_state_dict({**quantized.model.state_dict(), "lm_head.weight": table + size * noise})
    model.rope = quantized.model.rope
    head = quantized.tensors.get("transformer.wte.weight")  # tells a reference that rounds to round the head's input
    tensors = quantized.tensors if head is None else {**quantized.tensors, "lm_head.weight": head}
    return replace(quantized, eager=model.eval(), tensors=tensors)


@contextlib.contextmanager
def expecting(change: Callable[..., Any]) -> Iterator[None]:
    """The gates with another `expected`; `change(original, model, probe, loops, spec)` answers for it."""
    original = probes.expected

    def other(model: Parcae, probe: probes.Probe, loops: int, spec: Any, known: Any = ()) -> Any:
        return change(original, model, probe, loops, spec)

    with contextlib.ExitStack() as stack:
        for module in (probes, function, directions):
            stack.enter_context(mock.patch.object(module, "expected", other))
        yield


def loops_off(by: int) -> Callable[[], Any]:
    """States are shown for the loops that were asked for, as a host does that does not know of its fault."""

    def change(original: Any, model: Parcae, probe: Any, loops: int, spec: Any) -> Any:
        logits, states = original(model, probe, max(1, loops + by), spec)
        return logits, [*states, *states[-1:] * loops][:loops]

    return lambda: expecting(change)


def neighbour() -> Any:
    def change(original: Any, model: Parcae, probe: Any, loops: int, spec: Any) -> Any:
        logits, states = original(model, probe, loops, spec)
        return torch.cat([logits[:, :1], logits[:, :-1]], dim=1), states

    return expecting(change)


def shifted_slots() -> Any:
    """A chunk that has a past reads and writes the next loop's slot."""
    original = KVCache.stage

    def stage(cache: KVCache, name: str, length: int, rope: Tensor | None, loop: int = 0) -> Any:
        moved = (loop + 1) % cache.slots if cache.length and name == "core_block" else loop
        return original(cache, name, length, rope, moved)

    return mock.patch.object(KVCache, "stage", stage)


def hidden_border() -> Any:
    """A chunk that has a past does not see the token before it."""

    def attend(slot: CacheSlot, query: Tensor, key: Tensor, value: Tensor, normalise: bool) -> Tensor:
        total = slot.past + query.shape[1]
        query, key = place(query, slot.rope, normalise), place(key, slot.rope, normalise)
        scales = slot.scales or (None, None)
        for held, new, scale in ((slot.keys, key, scales[0]), (slot.values, value, scales[1])):
            held[:, :, slot.past : total] = store(new.transpose(1, 2), held.dtype, scale)
        k, v = (fetch(t[:, :, :total], query.dtype, s) for t, s in zip((slot.keys, slot.values), scales, strict=True))
        positions = torch.arange(total)
        mask = (positions[None] <= positions[slot.past :, None]) & (positions[None] != slot.past - 1)
        q = query.transpose(1, 2)
        out = functional.scaled_dot_product_attention(q, k, v, mask, enable_gqa=q.shape[1] != k.shape[1])
        return out.transpose(1, 2).flatten(2)

    return mock.patch.object(CacheSlot, "attend", attend)


def read_anew() -> Any:
    """Each layer reads the Core ML states by itself, so that a tool may merge the reads."""

    def read(caches: Caches) -> list[Any]:
        caches.current = [caches.writer.op("read_state", input=state) for state in caches.states]
        return caches.current

    return mock.patch.object(Caches, "read", read)


FAULTS = {
    fault.name: fault
    for fault in (
        *(
            Fault(f"a matrix of the {title} larger", 0.01, "share", larger(f"transformer.{stage}.0.mlp.proj.weight"))
            for stage, title in (("prelude", "prelude"), ("core_block", "recurrent block"), ("coda", "coda"))
        ),
        Fault("rows of a matrix zeroed", 1, "rows", zeroed),
        Fault("queries and keys swapped", change=exchanged),
        Fault("one loop less", asked=loops_off(-1)),
        Fault("one loop more", asked=loops_off(1)),
        Fault("a cache slot shifted", asked=shifted_slots),
        Fault("RoPE one position later", change=rotated(True)),
        Fault("RoPE one position earlier", change=rotated(False)),
        Fault("signs of scales flipped", 1, "scales", flipped, needs_scales=True),
        Fault("rows of a value table swapped", 1, "pairs", value_rows),
        Fault("decay larger", 0.001, "share", slower),
        Fault("dt folded twice", change=twice),
        Fault("logits of the position before", asked=neighbour),
        Fault("an untied head stored as tied", 0.1, "share", untied, of_reference=True),
        Fault("the token before a chunk is masked", asked=hidden_border),
        Fault("state reads that a tool can merge", written=read_anew, only="coreml"),
    )
}
