"""The facts of a model inside a report.html, so that a page made later can show them too.

text = facts_text(facts)                               # goes into the page's head
facts = read_facts(folder)                             # None: the artifact was not judged, or has no page
"""

from __future__ import annotations

import json
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path

from export.report.page.subject import ModelFacts
from parcae_mobile.errors import InputError

FACTS = "parcae-facts"


def facts_text(facts: ModelFacts) -> str:
    """JSON of the facts, the same for the same facts."""
    return json.dumps(asdict(facts), sort_keys=True, separators=(",", ":"))


def read_facts(folder: Path) -> ModelFacts | None:
    """The facts that an artifact's own page holds. Raises `InputError` for a page that holds something else."""
    page = folder / "report.html"
    if not page.is_file():
        return None
    reader = _Head()
    reader.feed(page.read_text(encoding="utf-8", errors="replace"))
    if reader.content is None:
        return None
    try:
        values = json.loads(reader.content)
        sizes = {str(name): (int(before), int(after)) for name, (before, after) in values["bytes_by_component"].items()}
        return ModelFacts(
            bytes_by_component=sizes,
            decays=[float(value) for value in values["decays"]],
            state_changes=[float(value) for value in values["state_changes"]],
            sensitivity={str(name): float(cost) for name, cost in values["sensitivity"].items()},
            sensitivity_loops=int(values["sensitivity_loops"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{page}: its facts cannot be read; export the artifact again") from None


class _Head(HTMLParser):
    """The content of the page's element of facts."""

    content: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag == "meta" and named.get("name") == FACTS:
            self.content = named.get("content")
