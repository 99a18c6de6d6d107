"""A loop count that fails is closed; the artifact is published without it, unless that count is needed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import export.pipeline
from export.bundle.describe import describe
from export.gates.lowering import LoweringVerdict
from export.gates.span import open_span
from export.job import Job, judged_loops, needed_loops, resolve
from export.kv.choice import PolicyChoice
from export.pipeline import Made, open_loops
from export.request import ExportRequest
from export.run.session import Session
from export.source import open_source
from export.targets.host import CacheGeometry
from export.targets.onnx.runtime.host import OnnxHost
from export.targets.registry import Loops, find_target
from parcae_mobile import Parcae
from parcae_mobile.early_exit import decode_step
from parcae_mobile.errors import UsageError
from parcae_mobile.kv_cache import KVCache
from parcae_mobile.manifest import read_manifest, verify_files
from quantize import load_recipe

JUDGED = (1, 2, 4, 6, 8, 16)


@pytest.mark.parametrize(
    ("failing", "needed", "span", "closed"),
    [
        ((), [6], (1, 16), []),
        ((1,), [6], (2, 16), [1]),
        ((1, 2), [6], (4, 16), [1, 2]),
        ((2,), [6], (4, 16), [1, 2]),  # 1 passed, but beyond a count that failed nothing is open
        ((16,), [6], (1, 8), [16]),
        ((1, 8), [6], (2, 6), [1, 8, 16]),
        ((1, 2, 4, 8, 16), [6], (6, 6), [1, 2, 4, 8, 16]),
    ],
)
def test_the_largest_range_around_the_trained_count_is_open(
    failing: tuple[int, ...], needed: list[int], span: tuple[int, int], closed: list[int]
) -> None:
    found = open_span(JUDGED, {count: ["KL 0.02"] for count in failing}, needed)
    assert (found.least, found.most) == span and list(found.closed) == closed and not found.problems
    for count, why in found.closed.items():
        assert why == "KL 0.02" if count in failing else "which failed" in why


@pytest.mark.parametrize(("failing", "needed"), [((6,), [6]), ((1, 6), [6]), ((2,), [1, 2, 4]), ((2,), [1, 4])])
def test_a_needed_count_that_fails_closes_nothing(failing: tuple[int, ...], needed: list[int]) -> None:
    found = open_span(JUDGED, {count: ["KL 0.02"] for count in failing}, needed)
    assert found.problems and not found.closed and found.problems[0].startswith(f"T={failing[-1]}: KL")


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., None]:
    """Let the compression gate find nothing wrong but at the loop counts that are given."""
    import export.prepare

    monkeypatch.setenv("PARCAE_CACHE", str(tmp_path_factory.mktemp("cache")))  # no other test is to read such an answer

    measured = export.prepare.compression_gate

    def fail(*counts: int) -> None:
        def gate(*given: Any) -> Any:
            lines = {count: [f"T={count}: KL 0.5 nats is above 0.1"] for count in counts}
            return replace(measured(*given), too_costly=lines, passed=False)

        monkeypatch.setattr(export.prepare, "compression_gate", gate)

    return fail


def test_an_artifact_is_published_with_the_range_that_passed(
    failing: Callable[..., None], cli: Callable[..., Any], mini: Path, text: Path, tmp_path: Path
) -> None:
    """The mini model is trained at 4 loops."""
    failing(1, 8)
    small = ("--kv", "full", "--quant", "fp32", "--max-loops", 8, "--context", 40)
    ran = cli("--model", mini, "--text", text, *small, "--out", tmp_path)
    folder = tmp_path / "mini-onnx-dynamic-fp32"
    said = " ".join(ran.out.split())
    assert ran.code == 0 and "T = 2 to 4 times" in said and "closed T=8: compression gate: KL 0.5 nats" in said, ran.err
    manifest = verify_files(folder)
    assert (manifest.min_loops, manifest.max_loops, manifest.kv.slots) == (2, 4, 8)
    assert manifest.closed == dict.fromkeys(("1", "8"), "compression gate: KL 0.5 nats is above 0.1")
    assert manifest.compression.passed and list(manifest.compression.by_loops) == ["1", "2", "4", "8"]
    for page in ("report.html", "README.md"):
        written = (folder / page).read_text()
        assert "T=1 may not run" in written and "2 to 4" in written and "KL 0.5 nats" in written
    assert cli("verify", folder).code == 0, "the self-test asks for open counts only"

    for loops, words in ((1, "--loops 1 is closed (compression gate: KL 0.5"), (5, "above the maximum of 4")):
        ran = cli("generate", folder, "--tokens", 2, "--loops", loops)
        assert ran.code == 2 and words in ran.line
    ran = cli("early-exit", folder, "--windows", 1, "--length", 34, "--loops", 4, "--thresholds", "0.9", "--json")
    assert ran.code == 0 and [row["average_loops"] for row in ran.json["fixed"]] == [2, 3, 4]
    session = Session.open(folder)
    with pytest.raises(UsageError, match="below the least of 2"):
        session.host.run([1], 1)
    app = describe(folder, manifest, session.host, "android", "mini")
    assert (app.loops.min, app.loops.max, app.loops.exit_from, app.cache.recur.slots) == (2, 4, 2, 8)
    assert app.self_test is not None and set(app.self_test.logits) == {"2", "4"}


def job_of(folder: Path, *loops: Loops, **options: Any) -> Job:
    request = ExportRequest(model=str(folder), quant="fp32", **options)
    return resolve(request, open_source(str(folder)), load_recipe("fp32"), find_target("onnx"), loops)


@pytest.mark.parametrize(
    ("loops", "needed", "judged"),
    [(("dynamic",), [4], [1, 2, 4, 8, 16]), ((2,), [2], [2]), ((2, 8), [2, 8], [2, 8])],
)
def test_the_trained_count_and_one_that_was_asked_for_have_to_pass(
    mini: Path, loops: tuple[Loops, ...], needed: list[int], judged: list[int]
) -> None:
    job = job_of(mini, *loops)
    assert judged_loops(job) == judged and needed_loops(job) == needed
    lines = {needed[-1]: [f"T={needed[-1]}: KL 0.5 nats is above 0.1"]}
    assert open_loops(job, lines, {}).problems == [f"T={needed[-1]}: compression gate: KL 0.5 nats is above 0.1"]
    assert open_loops(job, {}, lines).problems == [f"T={needed[-1]}: KL 0.5 nats is above 0.1"]
    elsewhere = {32: lines[needed[-1]]}  # a static artifact is not refused for a count that it has not
    assert not open_loops(job, elsewhere, {}).problems


def test_a_model_trained_at_more_loops_than_asked_for_needs_the_most(mini: Path) -> None:
    assert needed_loops(job_of(mini, "dynamic", max_loops=3)) == [3]


def test_rounding_that_costs_too_much_is_no_failure_where_it_is_closed() -> None:
    verdict = LoweringVerdict({}, {}, {}, {}, too_costly={1: ["T=1: kl_mean 1 is above 0.001"]})
    assert not verdict.passed and verdict.to_verdict().passed is False
    assert verdict.to_verdict([1]).passed is True and not verdict.to_verdict([1]).note
    assert replace(verdict, wrong=["T=2: max_abs 1"]).to_verdict([1]).passed is False


def test_a_token_leaves_the_eager_loop_where_the_host_lets_it(
    exported: tuple[Path, Any], mini_model: Parcae, mini_ids: torch.Tensor
) -> None:
    cache = KVCache(mini_model.config, 8)
    mini_model(mini_ids[:, :4], 8, cache=cache)
    used = [
        int(decode_step(mini_model, mini_ids[:, 4 + place : 5 + place], 8, 0.99, cache, least)[1])
        for place, least in enumerate((1, 3, 6))
    ]
    assert used == [2, 3, 6]
    geometry = replace(CacheGeometry.of(mini_model.config, 8), min_loops=3)
    host = OnnxHost(exported[0], "stages", geometry, 1)
    host.run([5], 8, exit_threshold=0.99)
    assert host.loops_used == 3


def test_a_policy_that_fails_falls_back_to_the_next(
    mini: Path, exported: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`shared` costs too much at the trained count; one that was asked for by name is not exchanged."""
    tried: list[str] = []

    def make(job: Job, prepared: Any, folder: Path, *rest: Any) -> Made:
        tried.append(job.options.kv_policy)
        (folder / "manifest.json").write_text("{}")
        problems = ["T=4: kl_mean 1 is above 0.001"] if tried[-1] == "shared" else []
        return Made(read_manifest(exported[0]), problems, hopeless=False)

    monkeypatch.setattr(export.pipeline, "make", make)
    prepared: Any = SimpleNamespace(seconds={})
    job = job_of(mini, "dynamic", kv="shared", verify=False, out=tmp_path)
    choice = PolicyChoice(("shared", "first1+shared", "full"), 8, {})
    result = export.pipeline.export_one(replace(job, kv_choice=choice), prepared)
    assert result.passed and tried == ["shared", "first1+shared"]
    failed = export.pipeline.export_one(job, prepared)
    assert not failed.passed and tried[2:] == ["shared"] and failed.path.name.endswith(".failed")
    after = choice.next()
    assert after is not None and after.policy == "first1+shared"
    assert after.note.startswith("the gates failed with the cache policy shared") and not choice.note


def test_an_older_manifest_opens_as_before(exported: tuple[Path, Any]) -> None:
    values = json.loads((exported[0] / "manifest.json").read_text())
    manifest = read_manifest(exported[0])
    for key in ("min_loops", "closed"):
        values.pop(key)
    values["kv"].pop("slots")
    older = type(manifest).model_validate(values)
    assert CacheGeometry.from_manifest(older) == CacheGeometry.from_manifest(manifest)
