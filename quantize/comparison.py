"""Recipes and components side by side: what each costs in bytes and in distance from the fp32 model.

points = compare_recipes(model, held_out, [load_recipe(name) for name in PRESETS], calibration)
rows = sensitivity(model, held_out)                    # one component at a time
plot_recipes(points, Path("recipes.svg"))              # the same numbers give the same file
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from parcae_mobile.atomic import writing
from parcae_mobile.errors import ToolMissingError
from parcae_mobile.model import Parcae
from parcae_mobile.parity import Distance

from .algorithms import quantize_with
from .apply import Progress, quantize_model
from .compression import HeldOut, growth
from .planning import COMPONENTS, component, plan_table, total_bytes
from .recipe import INJECTION_MATRICES, Budget, Recipe, Rule


@dataclass(frozen=True)
class RecipePoint:
    """One recipe made by one algorithm; `loops` is the loop count that it is summed up by."""

    recipe: str
    algorithm: str
    nbytes: int
    float_bytes: int
    loops: int
    by_loops: dict[int, Distance]

    @property
    def distance(self) -> Distance:
        return self.by_loops[self.loops]

    @property
    def growth(self) -> float | None:
        """KL after the most loops over KL after 4, see `growth`."""
        return growth(self.by_loops)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"growth": self.growth}


@dataclass(frozen=True)
class SensitivityRow:
    """One component quantized alone, the rest fp32."""

    component: str
    bits: int
    parameters: int
    nbytes: int
    distance: Distance

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def compare_recipes(
    model: Parcae,
    held_out: HeldOut,
    recipes: Sequence[Recipe],
    calibration: Tensor | None = None,
    algorithms: Sequence[str] = ("auto",),
    loops: int = 8,
    progress: Progress | None = None,
) -> list[RecipePoint]:
    """A point for each recipe and algorithm, summed up at `loops` or at the most that `held_out` has."""
    loops = loops if loops in held_out.loops else max(held_out.loops)
    points, cells = [], [(recipe, algorithm) for recipe in recipes for algorithm in algorithms]
    for number, (recipe, algorithm) in enumerate(cells, 1):
        quantized = quantize_with(model, recipe, algorithm, calibration)
        distances, _ = held_out.measure(quantized.model)
        table = plan_table(recipe, model)
        floats = sum(row.float_bytes for row in table)
        points.append(RecipePoint(recipe.name, quantized.algorithm, total_bytes(table), floats, loops, distances))
        if progress is not None:
            progress(f"{recipe.name}, {quantized.algorithm}", number, len(cells))
    return points


def sensitivity(
    model: Parcae, held_out: HeldOut, bits: Sequence[int] = (4,), group_size: int = 32, loops: int = 8
) -> list[SensitivityRow]:
    """Each component alone at each of `bits`, rounded to nearest; of the injection only its matrix.

    A matrix whose columns groups do not divide has one scale for each row.
    """
    rows = []
    for part in COMPONENTS:
        columns = {
            name: parameter.shape[1]
            for name, parameter in model.named_parameters()
            if component(name) == part and parameter.dim() == 2 and "ve_gate" not in name
        }
        for width in bits if columns else ():
            grouped = {name: width != 8 and count % group_size == 0 for name, count in columns.items()}
            rules = tuple(Rule(name, width, group_size if grouped[name] else 0) for name in columns)
            alone = Recipe(part, rules, Budget(0, 0), any(name in INJECTION_MATRICES for name in columns))
            quantized = quantize_model(model, alone)
            distance = held_out.measure(quantized.model)[0][loops]
            count = sum(tensor.integers.numel() for tensor in quantized.tensors.values())
            nbytes = sum(tensor.nbytes for tensor in quantized.tensors.values())
            rows.append(SensitivityRow(part, width, count, nbytes, distance))
    return rows


def plot_recipes(points: Sequence[RecipePoint], path: Path, title: str = "Size and distance of recipes") -> None:
    """Tensor bytes against KL as SVG. Points without a distance from fp32 are left out, for the axis is logarithmic."""
    try:
        import matplotlib

        matplotlib.use("svg")
        from matplotlib import pyplot
    except ImportError:
        raise ToolMissingError("matplotlib is not installed: pip install matplotlib") from None
    shown = [point for point in points if point.distance.kl_mean > 0]
    with matplotlib.rc_context({"svg.hashsalt": "parcae-mobile", "svg.fonttype": "none"}):
        figure, axes = pyplot.subplots(figsize=(7, 4.5))
        for algorithm in dict.fromkeys(point.algorithm for point in shown):
            chosen = [point for point in shown if point.algorithm == algorithm]
            axes.errorbar(
                [point.nbytes / 1e6 for point in chosen],
                [point.distance.kl_mean for point in chosen],
                yerr=[2 * point.distance.kl_sem for point in chosen],
                fmt="o",
                capsize=3,
                label=algorithm,
            )
            for point in chosen:
                place = (point.nbytes / 1e6, point.distance.kl_mean)
                axes.annotate(point.recipe, place, xytext=(6, 4), textcoords="offset points", fontsize=8)
        height = f"KL to fp32 at T={_loops(points)} (nats)"
        axes.set(yscale="log", xlabel="tensor bytes (MB)", ylabel=height, title=title)
        axes.grid(alpha=0.3)
        axes.legend()
        with writing(path) as file:
            figure.savefig(file, format="svg", metadata={"Date": None}, bbox_inches="tight")
        pyplot.close(figure)


def _loops(points: Sequence[RecipePoint]) -> int:
    return points[0].loops if points else 8
