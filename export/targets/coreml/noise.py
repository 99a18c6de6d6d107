"""Keeps what coremltools says to itself away from the user, and its import to what is used of it.

with importing():
    import coremltools
with quiet():
    ...                                                # on Linux it prints a page of warnings
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator

# What coremltools imports, if it is installed, to convert from it, which nothing here asks for and which
# is most of the time that its import takes.
CONVERTED_FROM = (
    "executorch", "sklearn", "tensorflow", "torchao", "torchaudio", "torchvision", "transformers", "xgboost",
)  # fmt: skip


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Quiet, and packages that coremltools would convert from are not there unless they are imported already.

    In this process it then believes for good that they are not installed.
    """
    hidden = [name for name in CONVERTED_FROM if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: not importable
    try:
        with quiet():
            yield
    finally:
        for name in hidden:
            del sys.modules[name]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Neither warnings nor prints nor log lines below errors; exceptions pass."""
    before = logging.root.manager.disable
    sink = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)  # of every logger: coremltools imports packages that warn in their own names
        try:
            yield
        finally:
            logging.disable(before)
