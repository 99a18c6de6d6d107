"""Recipes: ordered rules from parameter names to formats, in TOML, with the budget of their own compression gate.

    name = "int4"
    budget = { kl = 0.010, top1 = 0.92 }
    [[rules]]
    match = "transformer.wte.weight"        # shell-style pattern over the original's parameter names; first match wins
    bits = 8                                # 4 or 8 (2, 3 where a target can hold them); 16: fp16 values; 32: as it is
    group_size = 0                          # columns that share a scale; 0 = the whole row
    # or, for Core ML alone: bits = 4 and
    palette_rows = 16                       # rows that share a table of 16 free values; 0 = all of them
    # at the top, how often each T will run, where GPTQ shall weigh its Hessians so: all loops alike if not given
    loop_weights = { 4 = 1, 8 = 3 }

A matrix that no rule matches stays float. Vectors, norms and value gates always do. `A_log` and `dt_bias` set the poles
of the injection: a rule that touches them is an error. One that touches `B` needs `quantize_injection_matrix = true`.
Learned rounding leaves all three alone, unless `train_injection = true`.
"""

from __future__ import annotations

import difflib
import fnmatch
import hashlib
import json
import math
import re
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

from torch import nn

from parcae_mobile.errors import InputError, UsageError
from parcae_mobile.given_file import read_text

PRESETS = ("fp32", "fp16", "int8", "int4", "int4-zero-points", "int4-small", "int4-palette")
POLES = ("transformer.adapter.A_log", "transformer.adapter.dt_bias")
INJECTION_MATRICES = ("transformer.adapter.B", "transformer.adapter.adapter.weight")


MOST_BYTES, MOST_RULES, LONGEST = 1_000_000, 1000, 200  # of a recipe's file, of its rules, characters of a pattern
LONGEST_LINE = 2000
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")  # it becomes part of a folder's name


class RecipeError(InputError):
    """A recipe that cannot be read or that asks for what must not be done."""


@dataclass(frozen=True)
class Rule:
    """One rule: the parameters that it matches and their format; with `palette_rows`, a palette instead of scales."""

    match: str
    bits: int
    group_size: int = 0
    symmetric: bool = True
    palette_rows: int | None = None

    def groups_for(self, name: str, columns: int) -> int:
        """Columns that share a scale; raises `RecipeError` if they do not divide `columns`."""
        if self.group_size == 0 or self.group_size >= columns:
            return columns
        if columns % self.group_size:
            raise RecipeError(f"{name}: group size {self.group_size} does not divide its {columns} columns")
        return self.group_size

    def rows_for(self, name: str, rows: int) -> int:
        """Rows that share a palette; raises `RecipeError` if they do not divide `rows`."""
        if not self.palette_rows or self.palette_rows >= rows:
            return rows
        if rows % self.palette_rows:
            raise RecipeError(f"{name}: {self.palette_rows} rows to a palette do not divide its {rows} rows")
        return self.palette_rows


@dataclass(frozen=True)
class Budget:
    """What compression may cost at most: mean KL in nats and the least share of equal top-1 tokens."""

    kl: float
    top1: float


@dataclass(frozen=True)
class Recipe:
    """A named list of rules."""

    name: str
    rules: tuple[Rule, ...]
    budget: Budget
    quantize_injection_matrix: bool = False
    train_injection: bool = False
    loop_weights: tuple[tuple[int, float], ...] = ()  # (loop count, how often it is used), fewest loops first

    @property
    def sha256(self) -> str:
        """Digest of all that the recipe says, its name apart."""
        content = {key: value for key, value in asdict(self).items() if key != "name"}
        if not self.loop_weights:
            del content["loop_weights"]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def is_preset(self) -> bool:
        """Whether it is the package's recipe of its name."""
        return self.name in PRESETS and self == load_recipe(self.name)

    @property
    def has_palettes(self) -> bool:
        """Whether any rule asks for palettes, which only some targets have."""
        return any(rule.palette_rows is not None for rule in self.rules)

    @property
    def has_zero_points(self) -> bool:
        """Whether any rule asks for zero points, which only some targets have."""
        return any(not rule.symmetric for rule in self.rules)

    def first_match(self, name: str) -> Rule | None:
        """The first rule whose pattern matches, whatever it says."""
        return next((rule for rule in self.rules if fnmatch.fnmatchcase(name, rule.match)), None)


def load_recipe(name_or_path: str | Path) -> Recipe:
    """A preset by name, or a TOML file. Raises `UsageError` for neither, `RecipeError` for a bad one.

    A file that bears a preset's name and says something else is called by that name and the start of its digest.
    """
    if str(name_or_path) in PRESETS:
        text = resources.files("quantize").joinpath("presets", f"{name_or_path}.toml").read_text(encoding="utf-8")
        return parse_recipe(text, str(name_or_path))
    path = Path(name_or_path)
    if not path.is_file():
        raise UsageError(f"--quant {name_or_path}: neither a preset ({', '.join(PRESETS)}) nor a TOML file")
    recipe = parse_recipe(read_text(path, RecipeError, MOST_BYTES), path.stem)
    if recipe.name in PRESETS and not recipe.is_preset:
        return replace(recipe, name=f"{recipe.name}-{recipe.sha256[:6]}")
    return recipe


def parse_recipe(text: str, source: str) -> Recipe:
    """A recipe from TOML text. `source` names it in errors."""
    if max(map(len, text.splitlines()), default=0) > LONGEST_LINE:  # dotted keys take memory by their length's square
        raise RecipeError(f"recipe {source}: a line of more than {LONGEST_LINE} characters; no rule needs one")
    try:
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: no TOML, or a number that is too long
        raise RecipeError(f"recipe {source}: not valid TOML ({str(error)[:200]})") from None
    _known(values, {field.name for field in fields(Recipe)}, f"recipe {source}")
    rules = values.get("rules", [])
    if not isinstance(rules, list) or len(rules) > MOST_RULES:
        raise RecipeError(f"recipe {source}: rules must be written as [[rules]] tables, at most {MOST_RULES}")
    budget = values.get("budget")
    if not isinstance(budget, dict):
        raise RecipeError(f"recipe {source}: give its budget, for example budget = {{ kl = 0.01, top1 = 0.92 }}")
    _known(budget, {"kl", "top1"}, f"recipe {source}: budget")
    for key in ("kl", "top1"):
        number = budget.get(key)
        if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number <= sys.float_info.max:
            raise RecipeError(f"recipe {source}: budget needs kl and top1 as numbers of at least 0")
    name, flags = values.get("name", source), {}
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise RecipeError(
            f"recipe {source}: name = {_short(name)} goes into a folder's name: give letters, digits, . _ + or -"
        )
    for key in ("quantize_injection_matrix", "train_injection"):
        flags[key] = values.get(key, False)
        if not isinstance(flags[key], bool):
            raise RecipeError(f"recipe {source}: {key} must be true or false")
    parsed = tuple(_rule(rule, f"recipe {source}: rule {number}") for number, rule in enumerate(rules, 1))
    weights = _loop_weights(values.get("loop_weights", {}), f"recipe {source}")
    return Recipe(name, parsed, Budget(float(budget["kl"]), float(budget["top1"])), loop_weights=weights, **flags)


def assign_rules(recipe: Recipe, model: nn.Module) -> dict[str, Rule]:
    """Which parameters the recipe quantizes and how, in the model's order. Raises `RecipeError` for a forbidden one."""
    return {name: rule for name, rule in _touched(recipe, model).items() if rule.bits < 16}


def rules_without_effect(recipe: Recipe, model: nn.Module) -> list[str]:
    """Patterns that no parameter of the model meets first."""
    met = [recipe.first_match(name) for name, _ in model.named_parameters()]
    return [rule.match for rule in recipe.rules if not any(rule is other for other in met)]


def half_matrices(recipe: Recipe, model: nn.Module) -> list[str]:
    """The parameters whose values the recipe rounds to fp16. Raises `RecipeError` as `assign_rules` does."""
    return [name for name, rule in _touched(recipe, model).items() if rule.bits == 16]


def _touched(recipe: Recipe, model: nn.Module) -> dict[str, Rule]:
    chosen: dict[str, Rule] = {}
    for name, parameter in model.named_parameters():
        rule = recipe.first_match(name)
        if rule is None or rule.bits == 32:
            continue
        touches = f"recipe {recipe.name}: rule {rule.match!r} touches {name}"
        if name in POLES:
            raise RecipeError(f"{touches}, which sets the loop's stability; leave it out")
        if name in INJECTION_MATRICES and not recipe.quantize_injection_matrix:
            raise RecipeError(f"{touches}; set quantize_injection_matrix = true to allow it")
        if parameter.dim() != 2 or "ve_gate" in name:
            continue
        rule.groups_for(name, parameter.shape[1])
        rule.rows_for(name, parameter.shape[0])
        chosen[name] = rule
    return chosen


def _rule(values: Any, where: str) -> Rule:
    if not isinstance(values, dict):
        raise RecipeError(f"{where}: write rules as [[rules]] tables")
    _known(values, {field.name for field in fields(Rule)}, where)
    match, bits, group = values.get("match"), values.get("bits"), values.get("group_size", 0)
    if not isinstance(match, str) or not 0 < len(match) <= LONGEST:
        raise RecipeError(f"{where}: needs match, a pattern over parameter names of at most {LONGEST} characters")
    if not isinstance(bits, int) or isinstance(bits, bool) or bits not in (2, 3, 4, 8, 16, 32):
        raise RecipeError(f"{where}: bits = {_short(bits)} must be 2, 3, 4, 8, or 16 or 32 to stay float")
    if isinstance(group, bool) or not isinstance(group, int) or group < 0:
        raise RecipeError(f"{where}: group_size = {_short(group)} must be a whole number, 0 for the whole row")
    symmetric = values.get("symmetric", True)
    if not isinstance(symmetric, bool):
        raise RecipeError(f"{where}: symmetric = {_short(symmetric)} must be true or false")
    return Rule(match, bits, group, symmetric, _palette_rows(values, where))


def _palette_rows(values: Mapping[str, Any], where: str) -> int | None:
    rows = values.get("palette_rows")
    if rows is None:
        return None
    if isinstance(rows, bool) or not isinstance(rows, int) or rows < 0:
        raise RecipeError(f"{where}: palette_rows = {_short(rows)} must be a whole number, 0 for all rows")
    if values["bits"] != 4 or "group_size" in values or "symmetric" in values:
        raise RecipeError(f"{where}: palette_rows goes with bits = 4 and without group_size and symmetric")
    return rows


def _loop_weights(values: Any, where: str) -> tuple[tuple[int, float], ...]:
    wrong = f"{where}: loop_weights = {values!r}: give loop counts and how often each is used, as in {{ 4 = 1, 8 = 3 }}"
    if not isinstance(values, dict):
        raise RecipeError(wrong)
    weights = []
    for count, weight in values.items():
        number = isinstance(weight, int | float) and not isinstance(weight, bool) and 0 < weight < math.inf
        if not (count.isascii() and count.isdigit() and int(count) > 0 and number):
            raise RecipeError(wrong)
        weights.append((int(count), float(weight)))
    return tuple(sorted(weights))


def _known(values: Mapping[str, Any], known: set[str], where: str) -> None:
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key[:80], sorted(known), 1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known))}"
            raise RecipeError(f"{where}: unknown key {key[:80]!r}; {hint}")


def _short(value: Any) -> str:
    return repr(value)[:80]
