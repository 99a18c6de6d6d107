"""The page and the card of an artifact: what they show, that they are the same twice, and that nothing in them acts."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from export.report.card import card
from export.report.page.page import render, verdict_lines
from export.report.page.subject import ModelFacts, Subject
from parcae_mobile.manifest import Certificate, Manifest, read_manifest

FACTS = ModelFacts(
    bytes_by_component={"token table": (4_000_000, 1_000_000), "recurrent block": (2_000_000, 300_000)},
    decays=[0.1, 0.25, 0.49],
    state_changes=[0.5, 0.2, 0.05],
    sensitivity={"prelude": 0.01, "recurrent block": 0.02},
    sensitivity_loops=6,
)


@pytest.fixture(scope="module")
def manifest(exported: tuple[Path, Any]) -> Manifest:
    return read_manifest(exported[0])


class Reader(HTMLParser):
    """Tags with their attributes, and the text between them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_same_facts_give_the_same_bytes(manifest: Manifest) -> None:
    assert render([Subject(manifest, FACTS)]) == render([Subject(manifest, FACTS)])


def test_every_picture_has_a_text_in_its_place_with_its_figures(manifest: Manifest) -> None:
    reader = Reader(render([Subject(manifest, FACTS)]))
    spoken = [attributes["aria-label"] or "" for tag, attributes in reader.tags if attributes.get("role") == "img"]
    assert len(spoken) == 7 == sum(tag == "figure" for tag, _ in reader.tags)
    assert all(re.search(r"\d", text) for text in spoken)
    cost = manifest.compression.by_loops["8"]["kl_mean"]
    assert f"T=8 {cost:.2g}" in spoken[0]


def test_a_page_asks_for_nothing_and_runs_nothing(manifest: Manifest) -> None:
    html = render([Subject(manifest, FACTS)])
    reader = Reader(html)
    assert not {"script", "iframe", "img", "link"} & {tag for tag, a in reader.tags if a.get("href") != "data:,"}
    places = [value for _, attributes in reader.tags for key, value in attributes.items() if key in ("src", "href")]
    assert all(place is not None and place.startswith(("#", "data:,")) for place in places)
    assert "default-src 'none'" in html


def test_pictures_take_their_colours_from_the_page(manifest: Manifest) -> None:
    html = render([Subject(manifest, FACTS)])
    drawings = "".join(re.findall(r"(?s)<svg.*?</svg>", html))
    assert "var(--ink)" in drawings and "var(--series-1)" in drawings
    assert not re.findall(r"(?:fill|stroke): ?#[0-9a-f]{6}", drawings)


def test_markup_in_a_name_is_shown_and_not_obeyed(manifest: Manifest) -> None:
    changed = manifest.model_copy(update={"model": "<script>alert(1)</script>", "promise": "<b>bold</b>"})
    reader = Reader(render([Subject(changed, FACTS)]))
    assert "script" not in {tag for tag, _ in reader.tags}
    assert "<script>alert(1)</script>" in " ".join(reader.words)


@pytest.mark.parametrize(
    ("decay", "equal", "kind"), [(0.49, True, "passed"), (1.0000002, True, "failed"), (0.49, False, "failed")]
)
def test_the_certificate_is_shown_as_what_it_is(manifest: Manifest, decay: float, equal: bool, kind: str) -> None:
    certificate = Certificate(max_decay=decay, max_decay_checkpoint=0.49, injection_matrix_equal=equal)
    line = verdict_lines(Subject(manifest.model_copy(update={"certificate": certificate})))[-1]
    assert line.kind == kind and repr(decay) in line.detail


def test_a_gate_that_did_not_run_is_not_called_passed(manifest: Manifest) -> None:
    verdict = manifest.lowering.model_copy(update={"passed": None, "by_loops": {}, "note": "not run (--no-verify)"})
    line = verdict_lines(Subject(manifest.model_copy(update={"lowering": verdict})))[0]
    assert (line.word, line.kind) == ("not run:", "not-run")


def test_several_artifacts_stand_on_one_page(manifest: Manifest) -> None:
    other = manifest.model_copy(update={"artifact": "another"})
    words = " ".join(Reader(render([Subject(manifest), Subject(other)])).words)
    assert "2 artifacts side by side" in words and manifest.artifact in words and "another" in words


def test_a_card_has_the_hub_metadata_and_the_measured_table(manifest: Manifest) -> None:
    text = card(manifest, base_model="owner/parcae-tiny", licence="mit")
    head = text.split("---")[1]
    assert "base_model: owner/parcae-tiny" in head and "license: mit" in head and "library_name: onnx" in head
    assert f"{manifest.compression.by_loops['8']['kl_mean']:.1e}" in text
    assert "```sh\nparcae-export verify" in text


def test_a_card_without_a_licence_says_so(manifest: Manifest) -> None:
    text = card(manifest)
    assert "license:" not in text.split("---")[1] and "not stated by the checkpoint" in text
