"""The page and the card of an artifact: what they show, that they are the same twice, and that nothing in them acts."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from export.report.card import card
from export.report.page.drawing import NOTEBOOK
from export.report.page.front import front_plots
from export.report.page.page import budget_words, render, verdict_lines
from export.report.page.stored import read_facts
from export.report.page.subject import ModelFacts, Speeds, Subject, letters
from export.report.page.summary import comparison, key_figures
from parcae_mobile.errors import InputError
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
    assert all(f"{name}: {colour}" in html for name, colour in NOTEBOOK.items()), "a notebook shows the same"


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


def test_bounds_are_said_in_words_and_which_question_they_answer() -> None:
    exact = {"function.max_abs": 1e-4, "function.greedy_equal": 64.0, "kl_mean": 1e-3}
    assert budget_words(exact) == (
        "without rounding greatest difference at most 0.0001, equal greedy tokens at least 64; "
        "with it mean KL at most 0.001"
    )
    assert budget_words({"kl_mean": 0.01, "top1": 0.92}) == "mean KL at most 0.01, top-1 at least 92.0%"
    assert budget_words({}) == "" and budget_words({"new_key": 2.0}) == "new_key 2"


def test_a_gate_that_did_not_run_is_not_called_passed(manifest: Manifest) -> None:
    verdict = manifest.lowering.model_copy(update={"passed": None, "by_loops": {}, "note": "not run (--no-verify)"})
    line = verdict_lines(Subject(manifest.model_copy(update={"lowering": verdict})))[0]
    assert (line.word, line.kind) == ("not run:", "not-run")


def costing(manifest: Manifest, name: str, kl: float, nbytes: int) -> Manifest:
    """The manifest of an artifact that is as far from fp32 and as large as it is told."""
    rows = {loops: {**row, "kl_mean": kl} for loops, row in manifest.compression.by_loops.items()}
    files = {**manifest.files, "weights.data": manifest.files["weights.data"].model_copy(update={"bytes": nbytes})}
    verdict = manifest.compression.model_copy(update={"by_loops": rows})
    return manifest.model_copy(update={"artifact": name, "compression": verdict, "files": files})


def test_several_artifacts_stand_on_one_page_with_their_front(manifest: Manifest) -> None:
    judged, _ = Subject(manifest).cost or (0, {})
    times = [Speeds("a machine", {128: {1: 1.5, judged: ms}, 1024: {judged: 9.0}}) for ms in (4.25, 6.5)]
    pair = [
        Subject(costing(manifest, "m-onnx-int4", 0.008, 1_000_000), FACTS, times[0]),
        Subject(costing(manifest, "m-onnx-int8", 0.0002, 2_000_000), FACTS, times[1]),
    ]
    assert letters(pair) == ["A int4", "B int8"]
    reader = Reader(render(pair))
    words = " ".join(reader.words)
    assert "2 artifacts side by side" in words and "m-onnx-int4" in words and "m-onnx-int8" in words
    table = comparison(pair)
    assert [row[table.columns.index("KL to fp32")] for row in table.rows] == ["8.0e-03", "2.0e-04"]
    assert [row[-1] for row in table.rows] == ["4.25", "6.50"] and table.columns[-1] == "ms per token after 128"
    size, speed = front_plots(pair)
    assert f"B int8, T={judged}: 6.50 ms, 0.0002" in speed.alternative and "A int4" in size.alternative


def test_what_nothing_judged_is_named_beside_the_front_and_not_drawn_in_it(manifest: Manifest) -> None:
    blank = manifest.compression.model_copy(update={"passed": None, "by_loops": {}, "note": "not run (--no-verify)"})
    unknown = manifest.model_copy(update={"artifact": "m-none", "compression": blank})
    three = [costing(manifest, "m-int4", 0.008, 1_000_000), costing(manifest, "m-int8", 0.0002, 2_000_000), unknown]
    (front,) = front_plots([Subject(each) for each in three])
    assert "not shown" in front.caption.lower() and "C none" in front.caption and "C none" not in front.alternative
    row = comparison([Subject(each) for each in three]).rows[2]
    assert row[3:5] == ["-", "-"] and "compression not run" in row[6]


def test_one_artifact_has_key_figures_and_with_a_bench_its_times(manifest: Manifest) -> None:
    assert not list(front_plots([Subject(manifest, FACTS)]))
    loops, cost = Subject(manifest).cost or (0, {})
    figures = key_figures(Subject(manifest, FACTS, Speeds("a machine", {128: {1: 1.5, loops: 4.25}})))
    assert figures[1].value == f"{cost['top1']:.1%}" and f"T={loops}" in figures[1].what
    assert figures[-1].value == "4.25 ms" and "4.6 times smaller" in figures[0].what
    timed = Reader(render([Subject(manifest, FACTS, Speeds("a machine", {128: {1: 1.5, 8: 4.25}}))]))
    spoken = [attributes["aria-label"] or "" for tag, attributes in timed.tags if attributes.get("role") == "img"]
    assert any("T=8 4.25 ms" in text for text in spoken)


def test_the_facts_on_a_page_are_read_back_from_it(manifest: Manifest, tmp_path: Path) -> None:
    assert read_facts(tmp_path) is None
    page = render([Subject(manifest, FACTS)])
    (tmp_path / "report.html").write_text(page, encoding="utf-8")
    assert read_facts(tmp_path) == FACTS
    (tmp_path / "report.html").write_text(re.sub(r'<meta name="parcae-facts".*', "", page), encoding="utf-8")
    assert read_facts(tmp_path) is None
    (tmp_path / "report.html").write_text(page.replace("bytes_by_component", "bytes"), encoding="utf-8")
    with pytest.raises(InputError, match="facts cannot be read; export the artifact again"):
        read_facts(tmp_path)


def test_commands_show_one_artifact_and_compare_several(
    cli: Callable[..., Any], exported: tuple[Path, Any], tmp_path: Path
) -> None:
    folder, page = exported[0], tmp_path / "compare.html"
    assert Path(cli("report", folder).out.strip()) == folder / "report.html"
    ran = cli("compare", folder, folder, "--out", page, "--json")
    assert ran.code == 0 and [row["checks"] for row in ran.json["rows"]] == ["passed", "passed"]
    assert "Injection poles: A" in page.read_text(encoding="utf-8"), "facts come from the artifact's own page"
    assert cli("compare", folder, folder, "--out", page).code == 2, "it is there already"
    assert "two or more artifact folders" in cli("compare", folder, "--out", tmp_path / "x.html").line
    (tmp_path / "bench.json").write_text('{"format": 1}')
    ran = cli("report", folder, "--bench", tmp_path / "bench.json", "--out", tmp_path / "timed.html")
    assert ran.code == 3 and "no times of" in ran.line and not (tmp_path / "timed.html").exists()


def test_a_card_has_the_hub_metadata_and_the_measured_table(manifest: Manifest) -> None:
    text = card(manifest, base_model="owner/parcae-tiny", licence="mit")
    head = text.split("---")[1]
    assert "base_model: owner/parcae-tiny" in head and "license: mit" in head and "library_name: onnx" in head
    assert f"{manifest.compression.by_loops['8']['kl_mean']:.1e}" in text
    assert "```sh\nparcae-export verify" in text


def test_a_card_without_a_licence_says_so(manifest: Manifest) -> None:
    text = card(manifest)
    assert "license:" not in text.split("---")[1] and "not stated by the checkpoint" in text
