"""The documents: pages that the program writes are what it would write now, and links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "app_kit").glob("*.md")])


def test_generated_pages_are_what_the_program_says() -> None:
    done = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(page: Path) -> None:
    text = re.sub(r"(?s)```.*?```", "", page.read_text(encoding="utf-8"))
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"[a-z]+:", link)]
    broken = [link for link in links if link.split("#")[0] and not (page.parent / link.split("#")[0]).exists()]
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_a_document_names_exist(page: Path) -> None:
    pattern = r"`((?:export|parcae_mobile|quantize|tests|training|app_kit)/[\w./-]+\.(?:py|json|toml|html))`"
    named = re.findall(pattern, page.read_text(encoding="utf-8"))
    assert not [name for name in named if not (ROOT / name).exists()]
