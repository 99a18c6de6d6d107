"""Silence for what ExecuTorch's exporter says of itself: notes on its own deprecations, on optional parts not found.

    with quiet():
        program = torch.export.export(module, example)

No user of this command can act upon them; errors stay.
"""

from __future__ import annotations

import logging
import warnings

_LOGGERS = ("executorch", "executorch.backends.xnnpack.partition.xnnpack_partitioner", "torch.export")


def quiet() -> warnings.catch_warnings:
    """A context without warnings; the exporter's loggers keep to errors from here on."""
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    return warnings.catch_warnings(action="ignore")
