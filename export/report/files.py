"""The pages that travel with an artifact: report.html and the model card README.md, written before files are hashed.

write_pages(job, manifest, facts, stored, folder)
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import yaml

from export.job import Job
from export.report.card import CARD, card
from export.report.page.page import REPORT, render
from export.report.page.subject import ModelFacts, Subject
from export.targets.registry import StoredInjection
from parcae_mobile.hub import is_hub_id
from parcae_mobile.manifest import Manifest


def write_pages(
    job: Job, manifest: Manifest, facts: ModelFacts | None, stored: StoredInjection | None, folder: Path
) -> None:
    """Write both pages. `manifest` lists the files so far; `stored` is the injection as re-read from them."""
    if facts is not None and stored is not None:
        facts = replace(facts, decays=stored.decay.flatten().tolist())
    (folder / REPORT).write_text(render([Subject(manifest, facts)]), encoding="utf-8")
    model = job.request.model
    base = model if model is not None and is_hub_id(model) and not Path(model).exists() else None
    (folder / CARD).write_text(card(manifest, base, licence(job.source.folder)), encoding="utf-8")


def licence(folder: Path | None) -> str | None:
    """The licence that a checkpoint's own card names in its metadata; None where it names none."""
    if folder is None or not (folder / CARD).is_file():
        return None
    head = (folder / CARD).read_text(encoding="utf-8", errors="replace").split("\n---", 1)[0]
    if not head.startswith("---"):
        return None
    try:
        metadata = yaml.safe_load(head.removeprefix("---"))
    except yaml.YAMLError:
        return None
    named = metadata.get("license") if isinstance(metadata, dict) else None
    return named if isinstance(named, str) and named.strip() and "\n" not in named else None
