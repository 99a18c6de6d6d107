"""The front of 4-bit recipes: group size, symmetric or zero points, and which recurrent matrices stay int8.

Bytes and time at one token are those of the 140M shape at T=8, distances those of the embedded model by GPTQ. What is
chosen is chosen on the windows of all other tables; what it is worth is read on windows that no choice looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from parcae_mobile.config import released_config
from parcae_mobile.model import Parcae

from ..algorithms import gptq_quantizer
from ..apply import quantize_model
from ..compression import HeldOut
from ..hessians import collect_hessians
from ..planning import PlannedTensor, plan_table, total_bytes
from ..recipe import Recipe, Rule, assign_rules, load_recipe
from .bench import LOOPS, Bench
from .markdown import table

GROUPS = (32, 64, 128)
CORE = "transformer.core_block.*"
EIGHT: dict[str, tuple[str, ...]] = {
    "none": (),
    "values": (f"{CORE}.attn.c_v.weight",),
    "values, outputs": (f"{CORE}.attn.c_v.weight", f"{CORE}.attn.c_proj.weight"),
    "all": (f"{CORE}.weight",),
}
# Time of a matrix at one token over that of one in symmetric groups of 128, by columns with one scale and symmetry, and
# of one in int8 rows: a run of `python -m export.bench.costs.kernels`, onnxruntime 1.31.1, AVX512-VNNI, one thread.
TIMES = {(32, True): 1.06, (32, False): 1.33, (64, True): 1.04, (64, False): 1.17, (128, True): 1.0, (128, False): 1.07}
TIME_OF_INT8 = 1.76


@dataclass(frozen=True)
class FrontPoint:
    """A variant: MB, time over the preset's, and KL with what is shown of it."""

    size: float
    time: float
    kl: float
    recipe: Recipe
    cells: tuple[str, ...] = ()

    def beats(self, other: FrontPoint) -> bool:
        """Whether it is no larger, no slower and nearer."""
        return self.size <= other.size and self.time <= other.time and self.kl < other.kl


def variants() -> Iterator[tuple[int, bool, str, Recipe]]:
    """Group size, symmetric, recurrent matrices in int8, recipe."""
    base = load_recipe("int4")
    plain = tuple(rule for rule in base.rules if ".attn." not in rule.match)
    for eight, patterns in EIGHT.items():
        for group in GROUPS:
            for symmetric in (True, False):
                rules = (*(Rule(pattern, 8) for pattern in patterns), *plain)
                changed = tuple(_with(rule, group, symmetric) for rule in rules)
                yield group, symmetric, eight, replace(base, name=f"{eight} {group} {symmetric}", rules=changed)


def front(bench: Bench) -> str:
    """Every variant, the smallest first, and what those that none beats are worth on windows that chose nothing."""
    names = assign_rules(load_recipe("int4"), bench.model)
    hessians = collect_hessians(bench.model, bench.calibration(), names)
    with torch.device("meta"):
        large = Parcae(released_config("parcae-140m"))
    base = multiplied(plan_table(load_recipe("int4"), large))
    quantizer, points = gptq_quantizer(bench.model, hessians, {}, {}), []
    for group, symmetric, eight, recipe in variants():
        d = bench.quantize(recipe, quantizer)
        plan = plan_table(recipe, large)
        size, taken = total_bytes(plan) / 1e6, multiplied(plan) / base
        kind = "symmetric" if symmetric else "zero points"
        cells = (str(group), kind, eight, f"{size:.1f}", f"{taken:.2f}", f"{d.kl_mean:.5f}", f"{d.top1:.2%}")
        points.append(FrontPoint(size, taken, d.kl_mean, recipe, cells))
    reported, rows = HeldOut(bench.model, bench.reported, (LOOPS,)), []
    for point in sorted(points, key=lambda point: (point.size, point.kl)):
        tail = ["", "", ""]
        if on_front(point, points):
            d = reported.measure(quantize_model(bench.model, point.recipe, quantizer).model)[0][LOOPS]
            tail = [f"{d.kl_mean:.5f}", f"{d.kl_sem:.5f}", f"{d.top1:.2%}"]
        rows.append([*point.cells, *tail])
    heads = ["groups of", "int4 is", "recurrent block int8", "MB", "time", "KL", "top-1"]
    return table([*heads, "KL, other text", "s.e.", "top-1, other text"], rows)


def on_front(point: FrontPoint, points: Sequence[FrontPoint]) -> bool:
    """Whether no other point beats it."""
    return not any(other.beats(point) for other in points)


def multiplied(plan: Sequence[PlannedTensor]) -> float:
    """Time of all matrix products of one token at T=8, in units of a weight in symmetric groups of 128."""
    total = 0.0
    for row in plan:
        if len(row.shape) != 2 or row.component in ("value embeddings", "injection"):
            continue  # looked up by the row, or float in every recipe
        each = TIME_OF_INT8 if row.bits == 8 else TIMES[row.group_size or 128, bool(row.symmetric)]
        total += row.shape[0] * row.shape[1] * each * (LOOPS if row.component == "recurrent block" else 1)
    return total


def _with(rule: Rule, group: int, symmetric: bool) -> Rule:
    if rule.bits >= 8:
        return rule
    size = group if rule.match == "*.weight" else rule.group_size
    return replace(rule, group_size=size, symmetric=symmetric)
