"""Whose budget a recipe is judged by: it may ask for less loss than the presets allow, not for more on its own word.

check_budget(recipe, model, accepted=False)            # raises UsageError for one that is looser than its presets'

What the presets allow depends on the smallest format that a recipe gives to any matrix of the model at hand: an int8
recipe may not claim the budget of int4 by a rule that matches nothing.
"""

from __future__ import annotations

import functools

from torch import nn

from parcae_mobile.errors import UsageError

from .recipe import PRESETS, Budget, Recipe, assign_rules, half_matrices, load_recipe


@functools.cache
def standard_budget(bits: int) -> Budget:
    """The loosest budget among the presets whose smallest format has `bits` bits; below 4, that of 4 bits."""
    presets = [load_recipe(name) for name in PRESETS]
    least = [min((rule.bits for rule in preset.rules), default=32) for preset in presets]
    budgets = [preset.budget for preset, smallest in zip(presets, least, strict=True) if smallest == max(bits, 4)]
    return Budget(max(budget.kl for budget in budgets), min(budget.top1 for budget in budgets))


def least_bits(recipe: Recipe, model: nn.Module) -> int:
    """The smallest format that a recipe gives to a matrix of the model; 32 where all are stored as they are."""
    bits = [rule.bits for rule in assign_rules(recipe, model).values()]
    return min(bits, default=16 if half_matrices(recipe, model) else 32)


def is_looser(recipe: Recipe, model: nn.Module) -> bool:
    """Whether a recipe of a user's allows more loss than the presets of its smallest format."""
    if recipe.is_preset:
        return False
    standard = standard_budget(least_bits(recipe, model))
    return recipe.budget.kl > standard.kl or recipe.budget.top1 < standard.top1


def check_budget(recipe: Recipe, model: nn.Module, accepted: bool) -> None:
    """Raise `UsageError` for a looser budget that was not accepted by name."""
    if accepted or not is_looser(recipe, model):
        return
    own, bits = recipe.budget, least_bits(recipe, model)
    standard = standard_budget(bits)
    raise UsageError(
        f"recipe {recipe.name}: its budget (kl {own.kl:g}, top1 {own.top1:g}) is looser than that of presets with "
        f"{bits} bits (kl {standard.kl:g}, top1 {standard.top1:g}); tighten it, or add --accept-budget"
    )
