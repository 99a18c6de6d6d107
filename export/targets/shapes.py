"""Whether a target takes a model's shape and a recipe's formats: asked before work, answered in the target's folder.

    asked = Asked(config, assign_rules(recipe, model), sizes, options)
    refusal(find_target("onnx"), asked)                # None, or one line that says what it does not take
    table(config, ...)                                 # every target and flavour, for `doctor --model`

Each target's `shapes.py` has `refusal(asked)` and imports nothing heavy, so that the answer costs nothing and stays
true where the target's libraries are not installed.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast

from export.targets.registry import DYNAMIC, TARGETS, Loops, Target, WriteOptions
from parcae_mobile.config import ParcaeConfig
from parcae_mobile.manifest import Compute
from quantize.recipe import Rule

PORTABLE = " --portable"


@dataclass(frozen=True)
class Asked:
    """What decides whether a target can: the model's shape, the matrices that are quantized, the artifact's options.

    `rules` and `sizes` are by parameter; sizes are (rows, columns).
    """

    config: ParcaeConfig
    rules: Mapping[str, Rule]
    sizes: Mapping[str, tuple[int, int]]
    options: WriteOptions


@dataclass(frozen=True)
class Answer:
    """A row of the table: a target with its flavour, a loop form, and why it refuses; None is yes."""

    flavour: str
    form: str
    why: str | None


def refusal(target: Target, asked: Asked) -> str | None:
    """Why a target cannot write this, None if it can."""
    return cast("str | None", importlib.import_module(target.shapes_module).refusal(asked))


def head_sizes(target: Target, asked_options: WriteOptions, config: ParcaeConfig) -> dict[str, int]:
    """Head sizes of the caches by stage, where a target pads heads; the model's otherwise."""
    module = importlib.import_module(target.shapes_module)
    padded = getattr(module, "head_sizes", None)
    if padded is None or asked_options.portable:
        return {stage: config.head_width(stage) for stage in ("prelude", "core_block", "coda")}
    return cast("dict[str, int]", padded(config))


def answers(asked: Asked, default_compute: Mapping[str, str]) -> list[Answer]:
    """Every target, flavour and loop form of it, with its own default types, and the answer of each."""
    rows = []
    for target in TARGETS.values():
        for portable in (False, True) if target.portable_forms else (False,):
            compute = cast(Compute, default_compute[target.name])
            for loops, forms in ((DYNAMIC, target.dynamic_forms), (1, target.static_forms)):
                for form in forms:
                    if portable and form not in target.portable_forms:
                        continue
                    options = replace(
                        asked.options,
                        loop_form=form,
                        loops=cast(Loops, loops),
                        compute=compute,
                        kv_dtype="fp32" if portable else target.default_kv_dtype(compute),
                        portable=portable,
                    )
                    flavour = target.name + (PORTABLE if portable else "")
                    rows.append(Answer(flavour, form, refusal(target, replace(asked, options=options))))
    return rows


def instead(asked: Asked, default_compute: Mapping[str, str]) -> str:
    """What takes it, to end a refusal with: `--target executorch, or --target onnx --portable`."""
    static = asked.options.loops != DYNAMIC
    forms = {"unrolled"} if static else {"stages", "scan", "while"}
    able = [row.flavour for row in answers(asked, default_compute) if row.why is None and row.form in forms]
    named = [f"--target {flavour}" for flavour in dict.fromkeys(able)]
    return f"use {', or '.join(named)}" if named else "no target takes it; use another --quant or --context"
