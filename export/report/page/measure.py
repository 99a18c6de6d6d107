"""The facts of a page that are measured on the model while it is exported.

facts = model_facts(source, recipe)                    # decays are each artifact's own, and added by it
"""

from __future__ import annotations

from collections import defaultdict

import torch

from export.report.page.subject import ModelFacts
from export.source import Source
from parcae_mobile.parity import state_changes
from quantize.comparison import sensitivity
from quantize.compression import HeldOut
from quantize.planning import COMPONENTS, plan_table
from quantize.recipe import Recipe

CHANGE_LOOPS, CHANGE_TOKENS = 16, 128
SENSITIVITY_WINDOWS, SENSITIVITY_LENGTH = 2, 128
SMALL_MODEL = 50_000_000  # parameters; of larger ones the cost of each part is not measured


def model_facts(source: Source, recipe: Recipe) -> ModelFacts:
    """Bytes by part, state changes on text, and what each part costs alone where there is text to judge it on."""
    model, config = source.model, source.model.config
    sizes: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for row in plan_table(recipe, model):
        sizes[row.component][0] += row.float_bytes
        sizes[row.component][1] += row.nbytes
    ids = source.text("heldout", least=CHANGE_TOKENS).ids[: min(CHANGE_TOKENS, config.context)]
    with torch.no_grad():
        changes = state_changes(model, ids[None], 1 if config.plain else CHANGE_LOOPS)
    costs, loops = {}, config.mean_recurrence
    if source.real and config.context > 1 and sum(parameter.numel() for parameter in model.parameters()) < SMALL_MODEL:
        length = min(SENSITIVITY_LENGTH, config.context - 1)
        windows = source.text("heldout", least=SENSITIVITY_WINDOWS * (length + 1)).windows(SENSITIVITY_WINDOWS, length)
        rows = sensitivity(model, HeldOut(model, windows, [loops]), loops=loops)
        costs = {row.component: row.distance.kl_mean for row in rows}
    return ModelFacts(
        bytes_by_component={name: (sizes[name][0], sizes[name][1]) for name in COMPONENTS if name in sizes},
        decays=(),
        state_changes=changes,
        sensitivity=costs,
        sensitivity_loops=loops,
    )
