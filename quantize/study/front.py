"""The front of 4-bit recipes: group size, symmetric or zero points, and which recurrent matrices stay int8."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from parcae_mobile.config import released_config
from parcae_mobile.model import Parcae

from ..algorithms import gptq_quantizer
from ..hessians import collect_hessians
from ..planning import plan_table, total_bytes
from ..recipe import Recipe, Rule, assign_rules, load_recipe
from .bench import Bench
from .markdown import table

GROUPS = (32, 64, 128)
CORE = "transformer.core_block.*.attn"
EIGHT: dict[str, tuple[str, ...]] = {
    "none": (),
    "values": (f"{CORE}.c_v.weight",),
    "values, outputs": (f"{CORE}.c_v.weight", f"{CORE}.c_proj.weight"),
}


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
    """Bytes at the 140M shape and distance of GPTQ for every variant, nearest last."""
    names = assign_rules(load_recipe("int4"), bench.model)
    hessians = collect_hessians(bench.model, bench.calibration(), names)
    with torch.device("meta"):
        large = Parcae(released_config("parcae-140m"))
    found = []
    for group, symmetric, eight, recipe in variants():
        d = bench.quantize(recipe, gptq_quantizer(bench.model, hessians, {}, {}))
        size = total_bytes(plan_table(recipe, large)) / 1e6
        kind = "symmetric" if symmetric else "zero points"
        cells = [str(group), kind, eight, f"{size:.1f}", f"{d.kl_mean:.5f}", f"{d.kl_sem:.5f}", f"{d.top1:.2%}"]
        found.append((size, d.kl_mean, cells))
    rows = [[*cells, "yes" if on_front(size, kl, found) else ""] for size, kl, cells in sorted(found)]
    heads = ["groups of", "int4 is", "recurrent block int8", "MB at 140M", "KL", "s.e.", "top-1"]
    return table([*heads, "nothing smaller is nearer"], rows)


def on_front(size: float, kl: float, found: list[tuple[float, float, list[str]]]) -> bool:
    """Whether no other point is at most as large and nearer."""
    return not any(other_size <= size and other < kl for other_size, other, _ in found)


def _with(rule: Rule, group: int, symmetric: bool) -> Rule:
    if rule.bits >= 8:
        return rule
    size = group if rule.match == "*.weight" else rule.group_size
    return replace(rule, group_size=size, symmetric=symmetric)
