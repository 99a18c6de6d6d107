"""What a user would do without this project: `torch.onnx.export` of the model with its loop unrolled.

    write_naive_onnx(model, loops=8, context=2048, folder=Path("build/bench/naive-onnx-T8"))


`export/bench/runners.py` runs the file.
It is what a competent user gets: fp32, a KV cache that goes in as `past` and comes out as `present`, the tied table
stored once, logits of the last position alone, one weight for all loops in the file.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from parcae_mobile.errors import ToolMissingError
from parcae_mobile.kv_cache import place
from parcae_mobile.model import Parcae
from parcae_mobile.stage_names import LAYER_GROUPS

MODEL = "model.onnx"


class ConcatSlot:
    """A layer's past as tensors (1, heads, past, head size) that a longer copy replaces, the usual way in ONNX."""

    def __init__(self, keys: Tensor, values: Tensor, rope: Tensor | None) -> None:
        self.keys, self.values, self.rope = keys, values, rope

    def attend(self, query: Tensor, key: Tensor, value: Tensor, normalise: bool) -> Tensor:
        past, length = self.keys.shape[2], query.shape[1]
        query, key = place(query, self.rope, normalise), place(key, self.rope, normalise)
        self.keys = torch.cat([self.keys, key.transpose(1, 2)], 2)
        self.values = torch.cat([self.values, value.transpose(1, 2)], 2)
        mask = torch.arange(past + length)[None, :] <= (torch.arange(length) + past)[:, None]
        grouped = query.shape[2] != key.shape[2]
        out = F.scaled_dot_product_attention(
            query.transpose(1, 2), self.keys, self.values, attn_mask=mask, enable_gqa=grouped
        )
        return out.transpose(1, 2).flatten(2)


class UnrolledStep(nn.Module):
    """`loops` loops in a row: ids (1, sequence) and the past of each (loop, layer) -> last logits and the present."""

    def __init__(self, model: Parcae, loops: int) -> None:
        super().__init__()
        self.model, self.loops = model, loops

    def forward(self, input_ids: Tensor, past: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        model, start = self.model, past[0].shape[2]
        length = input_ids.shape[1]
        rope = model.rope[start : start + length] if model.config.rope_settings.use_rope else None
        slots = [ConcatSlot(*pair, rope) for pair in zip(past[::2], past[1::2], strict=True)]
        prelude, recurrent = model.config.n_layers_in_prelude, model.config.n_layers_in_recurrent_block
        injected, values = model.prelude(input_ids, slots[:prelude])
        state = model.zero_state(injected)
        for loop in range(self.loops):
            first = prelude + loop * recurrent
            state = model.recur(state, injected, values, slots[first : first + recurrent])
        last = torch.arange(length)[-1:]
        logits = model.coda(state, input_ids, slots[prelude + self.loops * recurrent :], last)
        return logits[:, -1], [tensor for slot in slots for tensor in (slot.keys, slot.values)]


def empty_past(model: Parcae, loops: int, length: int = 0) -> list[Tensor]:
    """Keys and values (1, heads, length, head size) of each (loop, layer) in the order a token passes them."""
    config = model.config
    times = {"prelude": 1, "core_block": loops, "coda": 1}
    shapes = [
        (1, config.cached_heads(stage), length, config.head_width(stage))
        for stage in LAYER_GROUPS
        for _ in range(config.layer_count(stage) * times[stage])
    ]
    return [torch.zeros(shape) for shape in shapes for _ in ("key", "value")]


def write_naive_onnx(model: Parcae, loops: int, context: int, folder: Path) -> None:
    """Export into an existing folder: `model.onnx` and its data. Raises `ToolMissingError` without onnxscript."""
    try:
        import onnxscript  # noqa: F401  (torch's exporter is built on it)
    except ImportError:
        raise ToolMissingError("the naive export needs onnxscript: pip install 'parcae-mobile[optimum]'") from None
    step, past = UnrolledStep(model, loops).eval(), empty_past(model, loops, 5)
    sequence = torch.export.Dim("sequence", min=1, max=context)
    past_length = torch.export.Dim("past", min=0, max=context)
    shapes = {"input_ids": {1: sequence}, "past": [{2: past_length} for _ in past]}
    names = [f"{layer}.{part}" for layer in range(len(past) // 2) for part in ("key", "value")]
    with torch.no_grad():
        program = torch.onnx.export(
            step,
            (torch.zeros(1, 3, dtype=torch.int64), past),
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=["input_ids", *(f"past.{name}" for name in names)],
            output_names=["logits", *(f"present.{name}" for name in names)],
            verbose=False,
        )
    assert program is not None  # `dynamo=True` without a file always gives the program
    program.save(str(folder / MODEL), external_data=True)
