"""The names of a model's three stages: what computes them is called by the first, their layers by the second.

    for stage, layers in STAGES.items(): ...               # "recur", "core_block"

Apart from the configuration, as `loops.py` is.
"""

from __future__ import annotations

STAGES = {"prelude": "prelude", "recur": "core_block", "coda": "coda"}  # in the order in which a token passes them
LAYER_GROUPS = tuple(STAGES.values())  # as the checkpoint's modules, the manifest's geometry and caches name them
