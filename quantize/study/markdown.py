"""Markdown tables, and their places in a document.

A document holds `<!-- table NAME -->` and `<!-- end -->` on lines of their own; what is between them is replaced.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from parcae_mobile.errors import InputError


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; every row has as many cells as `heads`."""
    lines = [heads, ["---"] * len(heads), *rows]
    if any(len(line) != len(heads) for line in lines):
        raise ValueError(f"rows of {sorted({len(row) for row in rows})} cells under {len(heads)} heads")
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def replace_table(document: str, name: str, content: str) -> str:
    """The document with another table called `name`. Raises `InputError` if it has no such place."""
    pattern = re.compile(rf"(<!-- table {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
    if not pattern.search(document):
        raise InputError(f"the document has no '<!-- table {name} -->' with an '<!-- end -->' after it; add both")
    return pattern.sub(lambda match: f"{match[1]}\n{content}\n\n{match[2]}", document, count=1)
