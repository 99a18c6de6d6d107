"""One function for each table of docs/quantization.md that comes from the embedded model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from parcae_mobile.config import released_config
from parcae_mobile.model import Parcae
from parcae_mobile.parity import Distance, state_changes

from ..algorithms import gptq_quantizer, hqq, quantize_with
from ..apply import Quantizer, Stored, rtn, with_tensors
from ..comparison import RecipePoint, compare_recipes, plot_recipes, sensitivity
from ..compression import HeldOut
from ..gptq import quantize_gptq
from ..guard import injection_report, max_decay
from ..hessians import collect_hessians
from ..planning import plan_table, total_bytes
from ..recipe import Rule, assign_rules, load_recipe
from ..rtn import SHRINKS
from ..tensor import integer_range
from .bench import LENGTH, LOOPS, Bench, asymmetric, spread
from .markdown import table

DRAWS = (0, 1, 2)
INTEGERS = ("int8", "int4", "int4-palette", "int4-small")
PAIRS = (("rtn", ("fp16", *INTEGERS)), ("gptq", INTEGERS))


def recipe_points(bench: Bench) -> list[RecipePoint]:
    """Presets by rounding and by GPTQ."""
    held_out, points = HeldOut(bench.model, bench.windows), []
    for algorithm, names in PAIRS:
        recipes = [load_recipe(name) for name in names]
        points += compare_recipes(bench.model, held_out, recipes, bench.calibration(), (algorithm,), LOOPS)
    return points


def recipes(bench: Bench, plot: Path | None = None) -> str:
    """Presets at five loop counts."""
    points, rows = recipe_points(bench), []
    for point in points:
        d = point.distance
        kls = " / ".join(f"{distance.kl_mean:.5f}" for distance in point.by_loops.values())
        tails = [f"{d.kl_sem:.5f}", f"{d.kl_p95:.4f}", f"{d.kl_p99:.4f}", f"{d.top1:.2%}", str(d.flips)]
        size, growth = f"{point.nbytes / 1e6:.3f}", f"{point.growth or 0:.3f}"
        rows.append([point.recipe, point.algorithm, size, kls, *tails, f"{d.perplexity_ratio or 0:.4f}", growth])
    if plot is not None:
        plot_recipes(points, plot)
    tails = ["s.e.", "95th", "99th", "top-1", "flips", "perplexity ratio", "KL T=16 / T=4"]
    return table(["recipe", "algorithm", "MB", "KL at T=1 / 2 / 4 / 8 / 16", *tails], rows)


def presets(bench: Bench) -> str:
    """The int presets as they are made by default, in fewer columns, for other models."""
    held_out, rows = HeldOut(bench.model, bench.windows, (4, 8, 16)), []
    chosen = [load_recipe(name) for name in ("int8", "int4", "int4-small")]
    for point in compare_recipes(bench.model, held_out, chosen, bench.calibration(), loops=LOOPS):
        kls = [f"{distance.kl_mean:.5f}" for distance in point.by_loops.values()]
        d = point.distance
        rows.append([point.recipe, *kls, f"{d.kl_sem:.5f}", f"{d.top1:.2%}", f"{point.growth or 0:.3f}"])
    return table(["recipe", "KL T=4", "T=8", "T=16", "s.e.", "top-1", "KL T=16 / T=4"], rows)


def loops(bench: Bench) -> str:
    """Hessians of all loops against those of the first, symmetric and asymmetric, over calibration draws."""
    recipe, distances = load_recipe("int4"), dict[tuple[str, str], list[Distance]]()
    for draw in DRAWS:
        for hessian, counted in (("first loop", (1,)), ("all loops", None)):
            names = assign_rules(recipe, bench.model)
            hessians = collect_hessians(bench.model, bench.calibration(draw), names, counted=counted)
            for kind, chosen in (("symmetric", recipe), ("asymmetric", asymmetric(recipe))):
                distance = bench.quantize(chosen, gptq_quantizer(bench.model, hessians, {}, {}))
                distances.setdefault((hessian, kind), []).append(distance)
    order = sorted(distances, key=lambda pair: pair[1], reverse=True)  # symmetric first
    rows = [[hessian, kind, *spread(distances[hessian, kind])] for hessian, kind in order]
    return table(["Hessian", "int4 is", *(f"draw {draw}" for draw in DRAWS), "mean KL", "spread", "top-1"], rows)


def tied(bench: Bench) -> str:
    """The token table at int4, which is also the head: rounded, or by GPTQ with more or less of the identity."""
    recipe, by_name = load_recipe("int4-small"), dict[str, list[Distance]]()
    for draw in DRAWS:
        hessians = collect_hessians(bench.model, bench.calibration(draw), assign_rules(recipe, bench.model))
        others = gptq_quantizer(bench.model, hessians, {}, {})
        for damping in (None, 0.01, 0.1, 1.0):
            name = "rounded" if damping is None else f"GPTQ, damping {damping}"
            by_name.setdefault(name, []).append(bench.quantize(recipe, _with_table(others, hessians, damping)))
    rows = [[name, *spread(distances)] for name, distances in by_name.items()]
    return table(["tied table", *(f"draw {draw}" for draw in DRAWS), "mean KL", "spread", "top-1"], rows)


def _with_table(others: Quantizer, hessians: dict[str, Tensor], damping: float | None) -> Quantizer:
    """`others`, but for the tied table rounding (None) or GPTQ with a damping."""

    def quantize(name: str, weight: Tensor, rule: Rule, group_size: int) -> Stored:
        if name != "transformer.wte.weight":
            return others(name, weight, rule, group_size)
        if damping is None:
            return rtn(name, weight, rule, group_size)
        return quantize_gptq(weight, hessians[name], rule.bits, group_size, rule.symmetric, damping)

    return quantize


def without_data(bench: Bench) -> str:
    """HQQ against rounding, with whole-number zero points and without."""
    rows = []
    for recipe in (load_recipe("int4"), load_recipe("int4-small")):
        for kind, chosen in (("symmetric", recipe), ("asymmetric", asymmetric(recipe))):
            for name, quantizer in (("rtn", rtn), ("hqq", hqq)):
                d = bench.quantize(chosen, quantizer)
                rows.append([recipe.name, kind, name, f"{d.kl_mean:.5f}", f"{d.kl_sem:.5f}", f"{d.top1:.2%}"])
    return table(["recipe", "int4 is", "algorithm", "KL", "s.e.", "top-1"], rows)


def grid(bench: Bench) -> str:
    """What scales on the bf16 grid cost against free fp32 scales, both rounded to nearest with searched scales."""
    rows, weights = [], bench.weights()
    for name in ("int8", "int4", "int4-small"):
        recipe = load_recipe(name)
        floats = {}
        for parameter, rule in assign_rules(recipe, bench.model).items():
            weight = weights[parameter]
            floats[parameter] = with_free_scales(weight, rule.bits, rule.groups_for(parameter, weight.shape[1]))
        free, bounded = bench.distance(with_tensors(bench.model, {}, floats)), bench.quantize(recipe, rtn)
        change = f"{bounded.kl_mean / free.kl_mean - 1:+.1%}"
        rows.append([name, f"{free.kl_mean:.6f}", f"{bounded.kl_mean:.6f}", f"{bounded.kl_sem:.6f}", change])
    return table(["recipe", "KL, fp32 scales", "KL, bf16 grid", "s.e.", "change"], rows)


def with_free_scales(weight: Tensor, bits: int, group_size: int) -> Tensor:
    """The matrix rounded to nearest with symmetric scales that are any fp32 number."""
    groups = weight.reshape(weight.shape[0], -1, group_size)
    low, high = integer_range(bits)
    best = best_error = None
    for shrink in SHRINKS[bits]:
        scale = groups.abs().amax(-1, keepdim=True) * shrink / high
        rounded = (groups / scale.clamp_min(1e-12)).round().clamp(low, high) * scale
        error = (rounded - groups).square().sum(-1, keepdim=True)
        if best is None or best_error is None:
            best, best_error = rounded, error
        else:
            best = rounded.where(error < best_error, best)
            best_error = error.minimum(best_error)
    assert best is not None
    return best.reshape(weight.shape)


def calibration(bench: Bench) -> str:
    """How much calibration text GPTQ needs."""
    rows = []
    for count in (8, 32, 128):
        d = bench.distance(quantize_with(bench.model, load_recipe("int4"), "gptq", bench.calibration(0, count)).model)
        rows.append([str(count), f"{d.kl_mean:.5f}", f"{d.kl_sem:.5f}", f"{d.top1:.2%}"])
    return table([f"windows of {LENGTH}", "KL", "s.e.", "top-1"], rows)


def guard(bench: Bench) -> str:
    """What storing the injection in fewer bits would have done, on 8 windows."""
    held_out = HeldOut(bench.model, bench.windows[:8], (1, 4, 8, 16))
    rows = [["as it is", "fp32", f"{max_decay(bench.model) or 0:.6f}", "0", *["0"] * (len(held_out.loops) + 1)]]
    for row in injection_report(held_out):
        errors = [f"{row.state_errors[count]:.5f}" for count in held_out.loops]
        changed = [row.stored, row.format, f"{row.max_decay:.6f}", f"{row.max_decay_error:.1e}"]
        rows.append([*changed, *errors, f"{row.kl[LOOPS]:.1e}"])
    errors = [f"state error T={count}" for count in held_out.loops]
    return table(["stored", "as", "max decay", "greatest change of a decay", *errors, f"KL T={LOOPS}"], rows)


def components(bench: Bench) -> str:
    """Each component at int4 alone, rounded to nearest."""
    rows = []
    for row in sensitivity(bench.model, bench.held_out, loops=LOOPS):
        d = row.distance
        cells = [f"{d.kl_mean:.5f}", f"{d.kl_sem:.5f}", f"{d.top1:.2%}", f"{d.kl_mean / row.parameters * 1e6:.4f}"]
        rows.append([row.component, f"{row.parameters:,}", *cells])
    return table(["at int4", "parameters", "KL", "s.e.", "top-1", "KL per million parameters"], rows)


def mixes(bench: Bench) -> str:
    """int4 with some matrices at 8 bits or in smaller groups, and the bytes of each at the 140M shape."""
    base, rows = load_recipe("int4"), []
    plain = replace(base, rules=tuple(rule for rule in base.rules if ".attn." not in rule.match))
    hessians = collect_hessians(bench.model, bench.calibration(), assign_rules(base, bench.model))
    with torch.device("meta"):
        large = Parcae(released_config("parcae-140m"))
    for name, patterns, bits, group in MIXES:
        recipe = replace(plain, rules=(*(Rule(pattern, bits, group) for pattern in patterns), *plain.rules))
        d = bench.quantize(recipe, gptq_quantizer(bench.model, hessians, {}, {}))
        size = total_bytes(plan_table(recipe, large)) / 1e6
        rows.append([name, f"{size:.1f}", f"{d.kl_mean:.5f}", f"{d.kl_sem:.5f}", f"{d.top1:.2%}"])
    return table(["int4, and", "MB at 140M", "KL", "s.e.", "top-1"], rows)


CORE = "transformer.core_block.*"
MIXES: tuple[tuple[str, tuple[str, ...], int, int], ...] = (
    ("nothing else", (), 8, 0),
    ("recurrent value projections int8", (f"{CORE}.attn.c_v.weight",), 8, 0),
    ("recurrent value and output projections int8", (f"{CORE}.attn.c_v.weight", f"{CORE}.attn.c_proj.weight"), 8, 0),
    ("all value and output projections int8", ("*.attn.c_v.weight", "*.attn.c_proj.weight"), 8, 0),
    ("MLP's first matrices int8", ("*.mlp.fc.weight",), 8, 0),
    ("MLP's second matrices int8", ("*.mlp.proj.weight",), 8, 0),
    ("recurrent block int8", (f"{CORE}.weight",), 8, 0),
    ("prelude int8", ("transformer.prelude.*.weight",), 8, 0),
    ("coda int8", ("transformer.coda.*.weight",), 8, 0),
    ("groups of 16 in all blocks", ("*.attn.*.weight", "*.mlp.*.weight"), 4, 16),
    ("value embeddings int8", ("value_embeds.*.weight",), 8, 0),
)


def contraction(bench: Bench) -> str:
    """How fast the loop settles: the relative change of the state from loop to loop."""
    changes, shown = state_changes(bench.model, bench.windows[:8, :-1], 16), (2, 3, 4, 6, 8, 12, 16)
    heads = ["loops", *(f"{count - 1} to {count}" for count in shown)]
    return table(heads, [["state change", *(f"{changes[count - 2]:.4f}" for count in shown)]])


MEASUREMENTS: dict[str, Callable[[Bench], str]] = {
    "recipes": recipes,
    "loops": loops,
    "tied": tied,
    "without-data": without_data,
    "grid": grid,
    "calibration": calibration,
    "guard": guard,
    "components": components,
    "mixes": mixes,
    "contraction": contraction,
}
OTHER_MODELS: dict[str, tuple[Path, Callable[[Bench], str]]] = {
    "floor-presets": (Path("tests/data/tiny-trained"), presets),
    "slow-presets": (Path("tests/data/slow-loop"), presets),
    "slow-guard": (Path("tests/data/slow-loop"), guard),
    "slow-loops": (Path("tests/data/slow-loop"), loops),
    "slow-contraction": (Path("tests/data/slow-loop"), contraction),
}
