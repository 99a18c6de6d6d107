"""`parcae-export bundle`: what it puts into an app, how often, what it refuses, and that it never leaves half of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from export.bundle.describe import graphs_of, work_per_token
from export.bundle.platforms import refusal, settings, token_parity
from export.bundle.selftest import places
from export.run.generation import generate
from export.targets.registry import find_target, load_host
from export.targets.runtimes import least_runtimes
from parcae_mobile.app_checks import check_files, read_app_manifest
from parcae_mobile.app_manifest import AppManifest
from parcae_mobile.manifest import MANIFEST, Manifest, Signature, read_manifest
from parcae_mobile.sampling import Sampling
from parcae_mobile.signature import check_signature, pinned

Cli = Callable[..., Any]


@pytest.fixture(scope="module")
def artifact(exported: tuple[Path, Any]) -> Path:
    return exported[0]


@pytest.fixture
def app(cli: Cli, artifact: Path, tmp_path: Path) -> Path:
    """An Android app's folder with the mini model in it."""
    folder = tmp_path / "app" / "models"
    ran = cli("bundle", artifact, "--platform", "android", "--app", folder)
    assert ran.code == 0, ran.err
    return folder


def state(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file below a folder: its content and when it was written."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def manifest_in(app: Path, name: str) -> AppManifest:
    return read_app_manifest((app / name / "app.json").read_text())


def altered(artifact: Path, folder: Path, **changes: Any) -> Path:
    """A copy of an artifact with other values in its manifest."""
    shutil.copytree(artifact, folder)
    values = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(values | changes))
    return folder


def test_an_app_gets_the_artifact_s_files_and_what_it_has_to_know(artifact: Path, app: Path) -> None:
    stated, name = read_manifest(artifact), artifact.name
    assert sorted(p.name for p in (app / name).iterdir()) == sorted([*stated.files, "app.json"])
    manifest = manifest_in(app, name)
    check_files(manifest, app / name)
    assert manifest.files == stated.files and manifest.platform == "android"
    assert (manifest.runtime.minimum, manifest.runtime.reason) == ("1.23", "opset 23")
    assert manifest.loops.min == 1 and manifest.loops.max == 16 and manifest.loops.built == []
    assert {role: graph.file for role, graph in manifest.graphs.items()} == {
        role: f"model_{role}.onnx" for role in ("prelude", "recur", "coda")
    }
    assert manifest.cache.prefill_chunk == 112 == manifest.cache.context and manifest.cache.recur.slots == 16
    assert manifest.tokenizer is not None and manifest.tokenizer.kind == "BPE"
    for loops, size in stated.kv.bytes_per_token.items():
        needed = manifest.memory.cache_per_token + manifest.memory.cache_per_token_and_slot * min(int(loops), 16)
        assert needed == size
    assert not manifest.token_parity and manifest.verified
    index = json.loads((app / "models.json").read_text())
    assert (index["platform"], [entry["name"] for entry in index["models"]]) == ("android", [name])
    assert index["models"][0]["bytes"] == sum(entry.bytes for entry in stated.files.values())


def test_the_self_test_points_at_the_golden_numbers_and_repeats_what_the_artifact_says(
    artifact: Path, app: Path
) -> None:
    test = manifest_in(app, artifact.name).self_test
    assert test is not None and test.greedy is not None and test.kl_mean == pytest.approx(4e-3)
    content = (app / artifact.name / test.file).read_bytes()
    with np.load(artifact / "golden.npz") as golden:
        assert test.input_ids == golden["input_ids"].tolist()
        for loops, rows in test.logits.items():
            numbers = np.frombuffer(content, "<f4", rows.shape[0] * rows.shape[1], rows.offset)
            assert np.array_equal(numbers.reshape(rows.shape), golden[f"logits_{loops}"])
    stated = read_manifest(artifact)
    host = load_host(find_target("onnx"))(artifact, stated, 1)
    for loops, tokens in test.greedy.tokens.items():
        host.reset()
        steps = generate(host, test.greedy.prompt, Sampling(), int(loops), len(tokens))
        assert [step.token for step in steps] == tokens and len(tokens) == 24
    assert not test.greedy.exact


def test_the_same_again_changes_nothing(cli: Cli, artifact: Path, app: Path) -> None:
    before = state(app / artifact.name)
    ran = cli("bundle", artifact, "--platform", "android", "--app", app, "--json")
    assert ran.code == 0 and ran.json["done"] == "unchanged"
    assert state(app / artifact.name) == before


def test_a_bundled_model_is_signed_and_stays_so(cli: Cli, artifact: Path, app: Path, tmp_path: Path) -> None:
    model = app / artifact.name
    key, ours = tmp_path / "key.pem", ed25519.Ed25519PrivateKey.generate()
    pem = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    key.write_bytes(ours.private_bytes(*pem))
    ran = cli("sign", model, "--key", key)
    assert ran.code == 0 and pinned(ours) in ran.out
    again = cli("bundle", artifact, "--platform", "android", "--app", app, "--json")
    assert again.json["done"] == "unchanged"
    check_signature(model, ours.public_key())
    (model / "weights.data").write_bytes(b"short")
    assert cli("sign", model, "--key", key).code == 3


def test_a_damaged_copy_is_replaced(cli: Cli, artifact: Path, app: Path) -> None:
    before = {name: content for name, (content, _) in state(app).items()}
    (app / artifact.name / "weights.data").write_bytes(b"short")
    (app / artifact.name / "left-over.txt").write_bytes(b"")
    ran = cli("bundle", artifact, "--platform", "android", "--app", app, "--json")
    assert ran.code == 0 and ran.json["done"] == "replaced"
    assert {name: content for name, (content, _) in state(app).items()} == before


def test_models_lie_side_by_side_and_leave_alone(cli: Cli, artifact: Path, app: Path) -> None:
    (app / "notes.txt").write_text("mine")
    assert cli("bundle", artifact, "--platform", "android", "--app", app, "--name", "second one").code == 0
    ran = cli("bundle", "--app", app, "--list")
    assert ran.code == 0 and artifact.name in ran.out and "second one: android" in ran.out
    first = state(app / artifact.name)
    ran = cli("bundle", "--app", app, "--remove", "second one", "--json")
    assert ran.code == 0 and [model["name"] for model in ran.json["models"]] == [artifact.name]
    assert sorted(path.name for path in app.iterdir()) == sorted([artifact.name, "models.json", "notes.txt"])
    assert state(app / artifact.name) == first
    assert cli("bundle", "--app", app, "--remove", artifact.name).code == 0
    assert json.loads((app / "models.json").read_text())["models"] == []
    ran = cli("bundle", "--app", app, "--list")
    assert ran.code == 0 and "no models" in ran.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--platform", "ios"], "cannot go into ios apps: they run Core ML packages"),
        (["--platform", "symbian"], "--platform symbian: choose web, android, ios"),
        ([], "bundle needs --platform"),
        (["--platform", "web"], "holds models for android"),
        (["--platform", "android", "--name", "../elsewhere"], "--name '../elsewhere'"),
        (["--platform", "android", "--name", "mine"], "is no bundled model"),
        (["--platform", "android", "--list"], "takes one of"),
    ],
)
def test_what_cannot_be_bundled_is_one_line_and_touches_nothing(
    cli: Cli, artifact: Path, app: Path, arguments: list[str], words: str
) -> None:
    (app / "mine").mkdir()
    (app / "mine" / "work.txt").write_text("mine")
    before = state(app.parent)
    ran = cli("bundle", artifact, "--app", app, *arguments)
    assert ran.code == 2 and words in ran.line and ran.out == ""
    assert state(app.parent) == before


def test_bad_folders_are_named(cli: Cli, artifact: Path, app: Path, tmp_path: Path) -> None:
    ran = cli("bundle", artifact, "--platform", "web")
    assert ran.code == 2 and "needs --app" in ran.line
    ran = cli("bundle", "--app", app, "--remove", "nothing")
    assert ran.code == 2 and artifact.name in ran.line
    ran = cli("bundle", tmp_path, "--platform", "web", "--app", tmp_path / "new")
    assert ran.code == 3 and "not an artifact folder" in ran.line
    (app / artifact.name / "app.json").write_text("{")
    ran = cli("bundle", "--app", app, "--list")
    assert ran.code == 3 and "not a JSON object" in ran.line
    (tmp_path / "file").write_text("")
    ran = cli("bundle", "--app", tmp_path / "file", "--list")
    assert ran.code == 3 and "is a file" in ran.line


def test_an_artifact_that_is_damaged_or_failed_its_gates_is_not_bundled(
    cli: Cli, artifact: Path, tmp_path: Path
) -> None:
    failed = json.loads((artifact / MANIFEST).read_text())["lowering"] | {"passed": False}
    folder = altered(artifact, tmp_path / "failed", lowering=failed)
    ran = cli("bundle", folder, "--platform", "web", "--app", tmp_path / "app")
    assert ran.code == 4 and "failed its lowering gate" in ran.line
    damaged = altered(artifact, tmp_path / "damaged")
    (damaged / "weights.data").write_bytes((artifact / "weights.data").read_bytes()[:-1])
    ran = cli("bundle", damaged, "--platform", "web", "--app", tmp_path / "app")
    assert ran.code == 3 and "weights.data" in ran.line
    assert not (tmp_path / "app").exists()


def test_a_copy_that_breaks_off_leaves_what_was_there(
    cli: Cli, artifact: Path, app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = state(app)

    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    ran = cli("bundle", artifact, "--platform", "android", "--app", app, "--name", "other")
    assert ran.code == 3 and "no space left" in ran.line
    assert state(app) == before and [path.name for path in app.iterdir() if path.name.startswith(".")] == []


FORMS = [
    ("web", {}, None),
    ("web", {"portable": True}, None),
    ("web", {"loop_form": "scan"}, "--loops dynamic"),
    ("web", {"loop_form": "unrolled", "loops": 4}, "--loops dynamic"),
    ("web", {"target": "executorch"}, "browsers run ONNX"),
    ("web", {"target": "coreml"}, "browsers run ONNX"),
    ("android", {}, None),
    ("android", {"target": "executorch"}, None),
    ("android", {"target": "coreml"}, "Core ML is Apple's"),
    ("android", {"loop_form": "scan"}, "crashes on Arm"),
    ("android", {"loop_form": "scan", "compute": "fp32"}, None),
    ("ios", {"target": "coreml", "loop_form": "while"}, None),
    ("ios", {"target": "executorch"}, "they run Core ML"),
]


@pytest.mark.parametrize(("platform", "changes", "words"), FORMS)
def test_each_platform_takes_what_its_runtime_runs(
    artifact: Path, platform: Any, changes: dict[str, Any], words: str | None
) -> None:
    reason = refusal(read_manifest(artifact).model_copy(update=changes), platform)
    assert reason is None if words is None else reason is not None and words in reason


def test_the_promise_and_the_settings_follow_the_arithmetic(artifact: Path) -> None:
    int8 = read_manifest(artifact)
    fp32 = int8.model_copy(update={"compute": "fp32"})
    rounded = fp32.model_copy(update={"kv": fp32.kv.model_copy(update={"dtype": "int8"})})
    promised: dict[tuple[str, Any], Manifest] = {("web", True): int8, ("android", False): int8, ("android", True): fp32}
    for (platform, parity), manifest in promised.items():
        assert token_parity(manifest, platform) is parity  # type: ignore[arg-type]
    assert not token_parity(rounded, "web") and not token_parity(rounded, "android")
    portable = fp32.model_copy(update={"portable": True})
    assert settings(fp32, "web") == {}
    assert settings(portable, "web") == {"session.disable_quant_qdq": "1"}
    assert settings(portable, "android") == {"session.qdq_matmulnbits_accuracy_level": "1"}


def test_the_least_runtime_is_the_measured_one_of_each_form_and_cache(artifact: Path) -> None:
    def least(portable: bool, kv_dtype: str) -> str:
        return least_runtimes("onnx", portable, kv_dtype)["onnxruntime"].version

    assert (least(True, "fp32"), least(False, "fp32"), least(False, "int8")) == ("1.19", "1.23", "1.27")
    assert read_manifest(artifact).minimum_runtime == {"onnxruntime": "1.23"}
    assert {name: floor.version for name, floor in least_runtimes("coreml", False, "fp16").items()} == {
        "iOS": "18",
        "macOS": "15",
    }


ARRAY = {"name": "state", "dtype": "float32", "shape": [1, 64, 8]}
LOGITS = {"name": "logits", "dtype": "float16", "shape": [1, 64, 60]}
PACKAGE = "model.mlpackage"
SHAPES: list[tuple[dict[str, Any], list[str], dict[str, tuple[str, str | None, str | None]]]] = [
    (
        {"target": "executorch"},
        ["coda", "prelude", "recur"],
        {role: ("model.pte", role, None) for role in ("prelude", "recur", "coda")},
    ),
    ({"target": "executorch", "loop_form": "unrolled", "loops": 4}, ["forward"], {"4": ("model.pte", "forward", None)}),
    (
        {"target": "coreml"},
        [f"{PACKAGE}:{role}{size}" for role in ("coda", "prelude", "recur") for size in ("", "_64")],
        {role: (PACKAGE, role, f"{role}_64") for role in ("prelude", "recur", "coda")},
    ),
    ({"target": "coreml", "loop_form": "while"}, [f"{PACKAGE}:main"], {"model": (PACKAGE, "main", None)}),
    ({"loop_form": "scan"}, ["model.onnx"], {"model": ("model.onnx", None, None)}),
    (
        {"loop_form": "unrolled", "loops": 4, "graphs": {"2": "model_T2.onnx", "4": "model.onnx"}},
        ["model.onnx", "model_T2.onnx"],
        {"2": ("model_T2.onnx", None, None), "4": ("model.onnx", None, None)},
    ),
]


@pytest.mark.parametrize(("changes", "signature", "expected"), SHAPES)
def test_graphs_are_found_in_the_files_of_each_target(
    artifact: Path, changes: dict[str, Any], signature: list[str], expected: dict[str, Any]
) -> None:
    entry = read_manifest(artifact).files["weights.data"]
    names = ["golden.npz", "model.onnx", "model_T2.onnx", "model.pte", f"{PACKAGE}/Manifest.json"]
    part = Signature.model_validate({"inputs": [ARRAY], "outputs": [LOGITS]})
    given: dict[str, Any] = {"signature": dict.fromkeys(signature, part), "files": dict.fromkeys(names, entry)}
    manifest = read_manifest(artifact).model_copy(update=given | changes)
    found = graphs_of(manifest)
    assert {key: (graph.file, graph.function, graph.prefill_function) for key, graph in found.items()} == expected
    assert work_per_token(manifest) == 8 * 4


def test_golden_logits_are_found_only_where_they_lie_as_they_are(tmp_path: Path) -> None:
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    path = tmp_path / "golden.npz"
    np.savez(path, input_ids=np.arange(3), logits_8=rows)
    (place,) = places(path).values()
    assert np.array_equal(np.frombuffer(path.read_bytes(), "<f4", 12, place.offset).reshape(3, 4), rows)
    for bad in (rows.astype(np.float64), rows[0], np.asfortranarray(rows)):
        np.savez(path, logits_8=bad)
        with pytest.raises(Exception, match="not stored as rows of fp32"):
            places(path)
    np.savez_compressed(path, logits_8=rows)
    with pytest.raises(Exception, match="not stored as rows of fp32"):
        places(path)
