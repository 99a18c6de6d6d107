"""What is tried with learned rounding: one trial for each setting of each table that `trials.py` prints.

A trial changes one thing of the default: 300 steps at .005 on `int4`, all parts trained, loop counts drawn, 70 % of the
text written by the model itself. The front has every variant of `front.py` after learning.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..learning_run import Learning
from ..recipe import Recipe, load_recipe
from .bench import asymmetric
from .front import variants

RECIPES = ("int4", "int4-zero-points", "int4-small")
DRAWS = (0, 1, 2)
LONG = 1200  # steps


@dataclass(frozen=True)
class Trial:
    """One run: `labels` are its first cells in `table`; `draw` leaves out a third of the calibration text by chance."""

    table: str
    labels: tuple[str, ...]
    recipe: Recipe
    learning: Learning = Learning()
    seed: int = 0
    draw: int | None = None

    @property
    def name(self) -> str:
        return "/".join((self.table, *self.labels))

    @property
    def settings(self) -> tuple[Recipe, Learning, int, int | None]:
        """What decides the result, the same for trials that stand in two tables."""
        return self.recipe, self.learning, self.seed, self.draw


HEADS: dict[str, tuple[str, ...]] = {
    "front": ("groups of", "int4 is", "recurrent block int8"),
    "steps": ("recipe", "steps"),
    "draws": ("recipe", "draw"),
    "text": ("written by the model", "steps"),
    "parts": ("trained",),
    "loops": ("loop counts", "gradients pass"),
    "rates": ("rate of latents",),
}


def trials() -> list[Trial]:
    """All of them, the longest first."""
    return [*_steps(), *_front(), *_text(), *_parts(), *_loops(), *_rates(), *_draws()]


def _front() -> Iterator[Trial]:
    for group, symmetric, eight, recipe in variants():
        yield Trial("front", (str(group), "symmetric" if symmetric else "zero points", eight), recipe)


def _steps() -> Iterator[Trial]:
    small = replace(asymmetric(load_recipe("int4-small")), name="int4-small with zero points")
    for recipe in (load_recipe("int4-small"), small):
        yield Trial("steps", (recipe.name, str(2 * LONG)), recipe, Learning(2 * LONG))
    for steps in (LONG, 300):
        for recipe in (*(load_recipe(name) for name in RECIPES), small):
            yield Trial("steps", (recipe.name, str(steps)), recipe, Learning(steps))


def _draws() -> Iterator[Trial]:
    for name in RECIPES:
        for draw in DRAWS:
            yield Trial("draws", (name, str(draw)), load_recipe(name), seed=draw, draw=draw)


def _text() -> Iterator[Trial]:
    for steps in (LONG, 300):
        for share in (0.0, 0.7, 1.0):
            yield Trial("text", (f"{share:.0%}", str(steps)), load_recipe("int4"), Learning(steps, written=share))


def _parts() -> Iterator[Trial]:
    for parts in (("rounding",), ("scales",), ("gains",), ("rounding", "scales"), ("rounding", "scales", "gains")):
        yield Trial("parts", (", ".join(parts),), load_recipe("int4"), Learning(parts=frozenset(parts)))


def _loops() -> Iterator[Trial]:
    for label, loops in (("drawn, 2 to settled", None), ("drawn, 1 to 16", (1, 16)), ("4", (4, 4)), ("8", (8, 8))):
        yield Trial("loops", (label, "all loops"), load_recipe("int4"), Learning(loops=loops))
    for through in (1, 2):
        labels = ("drawn, 2 to settled", f"the last {through}")
        yield Trial("loops", labels, load_recipe("int4"), Learning(through=through))


def _rates() -> Iterator[Trial]:
    for rate in (0.0025, 0.005, 0.01, 0.02):
        yield Trial("rates", (f"{rate:g}",), load_recipe("int4"), Learning(rounding_rate=rate))
