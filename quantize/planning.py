"""What each tensor would become under a recipe, and its bytes, before any work.

    for row in plan_table(load_recipe("int4"), model): print(row.name, row.format, row.nbytes)

Only shapes are read, so a model on the meta device will do. Tied tensors are one row.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from .palette import palette_bytes
from .recipe import Recipe, assign_rules, half_matrices
from .tensor import stored_bytes

PREFIXES = {
    "transformer.wte.": "token table",
    "value_embeds.": "value embeddings",
    "transformer.prelude.": "prelude",
    "transformer.adapter.": "injection",
    "transformer.core_block.": "recurrent block",
    "transformer.C.": "C",
    "transformer.coda.": "coda",
    "lm_head.": "head",
}
COMPONENTS = (*PREFIXES.values(), "norms")


@dataclass(frozen=True)
class PlannedTensor:
    """One parameter: `format` as in "int4, groups of 32", bytes at rest, and bytes in fp32."""

    name: str
    component: str
    shape: tuple[int, ...]
    format: str
    bits: int
    group_size: int | None
    symmetric: bool | None
    nbytes: int
    float_bytes: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def plan_table(recipe: Recipe, model: nn.Module) -> list[PlannedTensor]:
    """A row for each parameter in the model's order. Raises `RecipeError` as `assign_rules` does."""
    chosen, halves, rows = assign_rules(recipe, model), set(half_matrices(recipe, model)), []
    for name, parameter in model.named_parameters():
        shape, count, rule = tuple(parameter.shape), parameter.numel(), chosen.get(name)
        part = component(name)
        if rule is None:
            bits = 16 if name in halves else 32
            rows.append(PlannedTensor(name, part, shape, f"fp{bits}", bits, None, None, count * bits // 8, count * 4))
            continue
        if rule.palette_rows is not None:
            each = rule.rows_for(name, shape[0])
            text = f"palettes of 16 values, {each} rows each"
            nbytes = palette_bytes(shape[0], shape[1], rule.bits, each)
            rows.append(PlannedTensor(name, part, shape, text, rule.bits, None, None, nbytes, count * 4))
            continue
        group = rule.groups_for(name, shape[1])
        text = f"int{rule.bits}, " + ("a scale per row" if group == shape[1] else f"groups of {group}")
        nbytes = stored_bytes(shape[0], shape[1], rule.bits, group, rule.symmetric)
        text += "" if rule.symmetric else ", asymmetric"
        rows.append(PlannedTensor(name, part, shape, text, rule.bits, group, rule.symmetric, nbytes, count * 4))
    return rows


def total_bytes(rows: Iterable[PlannedTensor]) -> int:
    """Bytes at rest of all rows."""
    return sum(row.nbytes for row in rows)


def bytes_by_component(rows: Iterable[PlannedTensor]) -> dict[str, int]:
    """Bytes at rest by part of the model, in `COMPONENTS`' order."""
    sums: dict[str, int] = defaultdict(int)
    for row in rows:
        sums[row.component] += row.nbytes
    return {name: sums[name] for name in COMPONENTS if name in sums}


def component(name: str) -> str:
    """The part of the model that a parameter belongs to, one of `COMPONENTS`."""
    return next((part for prefix, part in PREFIXES.items() if name.startswith(prefix)), "norms")
