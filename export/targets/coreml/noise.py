"""Keeps what coremltools says to itself away from the user: on Linux it prints a page of warnings.

with quiet():
    import coremltools
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator


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
