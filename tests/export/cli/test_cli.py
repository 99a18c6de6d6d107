"""The command on a small model, end to end: what it publishes, prints and repeats."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from export import pipeline, source
from export.targets import registry
from parcae_mobile import load_model
from parcae_mobile.errors import UsageError
from parcae_mobile.golden import load_reference
from parcae_mobile.manifest import read_manifest, verify_files

Cli = Callable[..., Any]
ROOT = Path(__file__).parents[3]


def numbers(verdict: dict[str, Any]) -> dict[str, Any]:
    return {loops: set(entry) for loops, entry in verdict["by_loops"].items()}


def test_json_carries_what_the_design_lists(exported: tuple[Path, dict[str, Any]]) -> None:
    folder, said = exported
    assert said["target"] == "onnx" and said["loops"] == "dynamic" and said["loop_form"] in ("stages", "scan")
    assert said["quant"] == "loose" and said["own_budget"] is True and Path(said["artifact"]) == folder
    for gate in ("lowering", "compression"):
        assert said[gate]["passed"] is True
        assert set(said[gate]["by_loops"]) == {"1", "2", "4", "8", "16"}
        for names in numbers(said[gate]).values():
            assert names >= {"kl_mean", "kl_sem", "top1", "max_abs", "perplexity_ratio"}
    assert said["certificate"]["injection_matrix_equal"] is True
    assert said["certificate"]["max_decay"] == pytest.approx(said["certificate"]["max_decay_checkpoint"], abs=1e-6)
    assert 0 < said["certificate"]["max_decay"] < 1
    kv = said["kv"]
    assert (kv["policy"], kv["dtype"]) == ("full", "fp32")
    assert kv["bytes_per_token"] == {str(t): 2 * (t + 2) * 64 * 4 for t in (1, 2, 4, 8, 16)}
    assert said["reference"]["device"] == "cpu" and len(said["reference"]["sha256"]) == 64
    assert {"quantize", "write", "gates"} <= set(said["seconds"])
    assert said["bytes_total"] == sum(entry["bytes"] for entry in said["files"].values())
    for name, entry in said["files"].items():
        assert (folder / name).stat().st_size == entry["bytes"] and len(entry["sha256"]) == 64


def test_the_folder_is_closed_and_small_where_it_should_be(exported: tuple[Path, dict[str, Any]]) -> None:
    folder, said = exported
    manifest = verify_files(folder)
    assert folder.name == manifest.artifact == "mini-onnx-dynamic-loose"
    assert {"weights.data", "tokenizer.json", "golden.npz"} <= set(manifest.files) == set(said["files"])
    assert (folder / "golden.npz").stat().st_size <= 2_000_000
    assert manifest.initial_state == "zero" and manifest.bos == 0 and manifest.max_loops == 16
    assert manifest.verified_by == "onnxruntime" and manifest.memory_bytes > 0
    assert set(manifest.quantization.tensors) >= {"transformer.wte.weight", "transformer.C.weight"}
    assert not any("adapter" in name for name in manifest.quantization.tensors)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_verify_runs_the_self_test(cli: Cli, exported: tuple[Path, Any]) -> None:
    ran = cli("verify", exported[0], "--json")
    assert ran.code == 0
    (said,) = ran.json["artifacts"]
    assert said["verify"]["files_checked"] == len(exported[1]["files"])
    assert len(said["verify"]["self_test"]) >= 3
    assert said["lowering"] == exported[1]["lowering"] and said["certificate"] == exported[1]["certificate"]
    readable = cli("verify", exported[0])
    assert readable.code == 0 and "match their checksums" in readable.out and "self-test T=1" in readable.out


def test_a_moved_artifact_still_verifies(cli: Cli, exported: tuple[Path, Any], tmp_path: Path) -> None:
    moved = shutil.copytree(exported[0], tmp_path / "elsewhere" / "renamed")
    assert cli("verify", moved).code == 0


def test_generate_streams_and_repeats(cli: Cli, exported: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    class Counting(io.StringIO):
        flushes = 0

        def flush(self) -> None:
            Counting.flushes += 1

    monkeypatch.setattr(io, "StringIO", Counting)
    arguments = ("generate", exported[0], "--prompt", "import os", "--tokens", 12, "--temperature", 1, "--seed", 3)
    first, again = cli(*arguments), cli(*arguments)
    assert first.code == 0 and "import os" in first.out and "tokens at T=4" in first.out
    assert Counting.flushes >= 6  # pieces appear as they are made
    assert first.out.split("\n[")[0] == again.out.split("\n[")[0]


def test_generate_respects_its_options(cli: Cli, exported: tuple[Path, Any]) -> None:
    def run(*arguments: object) -> dict[str, Any]:
        ran = cli("generate", exported[0], "--prompt", "def f", "--json", *arguments)
        assert ran.code == 0, ran.err
        return dict(ran.json)

    hot = ("--temperature", 5, "--tokens", 20)
    assert run("--tokens", 5, "--loops", 1)["loops"] == 1
    assert run("--tokens", 5)["loops"] == 4
    assert len(run("--tokens", 7)["tokens"]) <= 7
    assert run(*hot, "--seed", 1)["tokens"] != run(*hot, "--seed", 2)["tokens"]
    greedy = run("--tokens", 20)["tokens"]
    assert run(*hot, "--top-k", 1)["tokens"] == greedy == run(*hot, "--top-p", 1e-9)["tokens"]


def test_a_failed_gate_publishes_under_another_name(cli: Cli, mini: Path, text: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "strict.toml"
    rules = '[[rules]]\nmatch = "transformer.adapter.*"\nbits = 32\n[[rules]]\nmatch = "*.weight"\nbits = 4\n'
    recipe.write_text(f'name = "strict"\nbudget = {{ kl = 1e-12, top1 = 1.0 }}\n{rules}', encoding="utf-8")
    out = tmp_path / "out"
    arguments = ("--model", mini, "--text", text, "--quant", recipe, "--algorithm", "rtn", "--kv", "full", "--out", out)
    ran = cli(*arguments, "--json")
    assert ran.code == 4 and "compression gate" in ran.line and "strict.failed" in ran.line
    (said,) = ran.json["artifacts"]
    assert said["passed"] is False and said["compression"]["passed"] is False and said["lowering"]["passed"] is True
    assert [path.name for path in out.iterdir()] == ["mini-onnx-dynamic-strict.failed"]
    assert verify_files(out / "mini-onnx-dynamic-strict.failed").compression.passed is False


def test_force_replaces_and_quiet_is_silent(cli: Cli, mini: Path, text: Path, tmp_path: Path) -> None:
    arguments = ("--model", mini, "--no-verify", "--kv", "full", "--calibration", text, "--out", tmp_path, "--quiet")
    first = cli(*arguments)
    assert (first.code, first.out, first.err) == (0, "", "")
    folder = tmp_path / "mini-onnx-dynamic-int4"
    manifest = read_manifest(folder)
    assert manifest.lowering.passed is None and manifest.verified_by == "not verified"
    assert "not run" in manifest.lowering.note and manifest.reference is None
    (folder / "weights.data").write_bytes(b"damaged")
    assert cli(*arguments, "--force").code == 0
    verify_files(folder)
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_options_reach_the_artifact(cli: Cli, mini: Path, tmp_path: Path) -> None:
    plain = ("--model", mini, "--no-verify", "--json", "--kv", "full", "--out", tmp_path)
    form = ("--loop-form", "scan", "--context", 50, "--max-loops", 3, "--compute", "fp32", "--quant", "int4-small")
    ran = cli(*plain, *form, "--algorithm", "hqq")
    (said,) = ran.json["artifacts"]
    assert (said["loop_form"], said["compute"], said["quant"], said["algorithm"]) == (
        "scan",
        "fp32",
        "int4-small",
        "hqq",
    )
    manifest = read_manifest(Path(said["artifact"]))
    assert manifest.kv.context == 50 and manifest.max_loops == 3
    assert set(manifest.kv.bytes_per_token) == {"1", "2", "3"}
    assert {entry.bits for entry in manifest.quantization.tensors.values()} == {4, 8}
    assert "model.onnx" in manifest.files
    ran = cli("generate", said["artifact"], "--tokens", 45, "--prompt", "some words more")
    assert ran.code == 3 and "context of 50" in ran.line
    ran = cli("generate", said["artifact"], "--tokens", 3, "--loops", 4)
    assert ran.code == 2 and "maximum of 3" in ran.line


def test_threads_revision_and_seed_are_used(
    cli: Cli, mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_values: dict[str, Any]
) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(torch, "set_num_threads", lambda count: asked.update(threads=count))
    monkeypatch.setattr(
        source, "find_folder", lambda name, revision: asked.update(name=name, revision=revision) or mini
    )
    ran = cli("inspect", "owner/name", "--revision", "abc", "--json")
    assert ran.code == 0 and ran.json["model"]["model"] == "name"
    assert (asked["name"], asked["revision"]) == ("owner/name", "abc")
    from parcae_mobile import ParcaeConfig

    monkeypatch.setattr(source, "released_config", lambda name: ParcaeConfig.from_dict(small_values))
    opened: list[source.Source] = []

    def stop(*given: Any, **more: Any) -> source.Source:
        opened.append(source.open_source(*given, **more))
        raise UsageError("far enough")

    monkeypatch.setattr(pipeline, "open_source", stop)
    for seed in (1, 2):
        assert "far enough" in cli("--model", "parcae-140m", "--random-weights", "--seed", seed).line
    assert opened[0].weights_sha256 != opened[1].weights_sha256 and not opened[0].real
    monkeypatch.undo()
    monkeypatch.setattr(torch, "set_num_threads", lambda count: asked.update(threads=count))
    cli("--model", tmp_path / "nowhere", "--threads", 2)
    assert asked["threads"] == 2


def test_random_weights_are_verified_without_a_verdict_on_quality(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_values: dict[str, Any]
) -> None:
    from parcae_mobile import ParcaeConfig

    monkeypatch.setattr(source, "released_config", lambda name: ParcaeConfig.from_dict(small_values))
    arguments = ("--model", "parcae-140m", "--random-weights", "--quant", "fp32", "--max-loops", 2)
    ran = cli(*arguments, "--out", tmp_path, "--json")
    assert ran.code == 0, ran.err
    (said,) = ran.json["artifacts"]
    assert said["lowering"]["passed"] is True and set(said["lowering"]["by_loops"]) == {"1", "2"}
    assert said["compression"]["passed"] is None and "random weights" in said["compression"]["note"]
    assert "tokenizer.json" not in said["files"]
    assert cli(*arguments, "--text", "x.txt", "--out", tmp_path / "n").code == 2
    assert "no tokenizer" in cli(*arguments, "--calibration", "x.txt", "--out", tmp_path / "n").line


def test_reference_files_are_written_compared_and_used(cli: Cli, mini: Path, text: Path, tmp_path: Path) -> None:
    path = tmp_path / "golden.npz"
    ran = cli("reference", "--model", mini, "--text", text, "--out", path, "--json")
    assert ran.code == 0 and ran.json["sha256"] == load_reference(path).sha256 and ran.json["device"] == "cpu"
    ran = cli("reference", "--compare", path, path, "--json")
    assert {entry["max_abs"] for entry in ran.json["by_loops"].values()} == {0.0}
    ran = cli("reference", "--model", mini, "--text", text, "--out", path, "--force")
    assert ran.code == 0 and "cpu" in ran.out
    arguments = ("--model", mini, "--text", text, "--reference", path, "--quant", "fp32", "--kv", "full")
    ran = cli(*arguments, "--max-loops", 1, "--out", tmp_path / "out", "--json")
    assert ran.code == 0, ran.err
    (said,) = ran.json["artifacts"]
    assert said["reference"]["sha256"] == load_reference(path).sha256 and said["reference"]["note"] == ""
    assert said["reference"]["artifact_distance"]["1"]["max_abs"] < 1e-4


def test_convert_writes_a_checkpoint_that_loads(cli: Cli, data: Path, tmp_path: Path) -> None:
    ran = cli("convert", data / "linear-injection", tmp_path / "safe")
    assert ran.code == 0 and "note:" in ran.out and "pickle" in ran.out
    assert load_model(tmp_path / "safe").config.injection_type == "linear"


def test_inspect_describes_models_and_artifacts(cli: Cli, mini: Path, exported: tuple[Path, Any]) -> None:
    described = cli("inspect", mini, "--json").json["model"]
    assert described["parameters"] == sum(described["parameters_by_component"].values()) > 10_000
    assert described["layers"] == [1, 1, 1] and described["trained_loops"] == 4
    assert 0 < described["decay"]["max"] < 1 and set(described["state_change_by_loop"]) == set(map(str, range(2, 17)))
    assert "mini" in cli("inspect", mini).out
    (said,) = cli("inspect", exported[0], "--json").json["artifacts"]
    assert said["certificate"] == exported[1]["certificate"]
    assert "lowering gate: passed" in cli("inspect", exported[0]).out


def test_inspect_without_a_subject_describes_the_embedded_model(cli: Cli) -> None:
    ran = cli("inspect", "--json")
    assert ran.code == 0 and ran.json["model"]["model"] == "parcae-tiny"


def test_doctor_names_python_packages_targets_and_devices(cli: Cli) -> None:
    findings = {finding["subject"]: finding for finding in cli("doctor", "--json").json["findings"]}
    assert findings["python"]["detail"].startswith("3.11") and findings["target onnx"]["fine"]
    assert {"target executorch", "target coreml", "cuda device"} <= set(findings)
    ran = cli("doctor")
    assert ran.code == 0 and "target onnx" in ran.out


def test_help_names_every_subcommand(cli: Cli) -> None:
    ran = cli("--help")
    assert ran.code == 0
    for name in ("verify", "inspect", "generate", "reference", "convert", "doctor", "--loops", "--quant", "--kv-dtype"):
        assert name in ran.out


def test_the_embedded_model_exports_by_default(cli: Cli, tmp_path: Path) -> None:
    ran = cli("--no-verify", "--algorithm", "rtn", "--kv", "full", "--out", tmp_path, "--json")
    assert ran.code == 0, ran.err
    (said,) = ran.json["artifacts"]
    assert said["model"] == "parcae-tiny" and Path(said["artifact"]).name == f"parcae-tiny-onnx-dynamic-{said['quant']}"
    ran = cli("verify", said["artifact"])
    assert ran.code == 0, ran.err


def test_another_process_locale_and_umask_give_the_published_bytes(
    exported: tuple[Path, dict[str, Any]], mini: Path, text: Path, loose: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "export.cli.main", "--model", mini, "--text", text, "--calibration", text]
    command += ["--quant", loose, "--accept-budget", "--kv", "full", "--no-cache"]
    command += ["--out", tmp_path / "there", "--json"]
    environment = {**os.environ, "PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    environment |= {"TZ": "Asia/Kathmandu", "LC_ALL": "tr_TR.UTF-8"}
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, cwd=tmp_path, env=environment, umask=0o077, check=False
    )
    assert done.returncode == 0, done.stderr
    (said,) = json.loads(done.stdout)["artifacts"]
    there, here = Path(said["artifact"]), exported[0]
    assert sorted(path.name for path in there.iterdir()) == sorted(path.name for path in here.iterdir())
    for path in sorted(here.iterdir()):
        content = path.read_bytes()
        assert (there / path.name).read_bytes() == content, path.name
        assert str(tmp_path).encode() not in content and str(mini).encode() not in content


@pytest.mark.acceptance
@pytest.mark.parametrize("form", ["stages", "scan"])
def test_two_processes_and_two_folders_give_identical_bytes(mini: Path, text: Path, tmp_path: Path, form: str) -> None:
    made = []
    verify = ["--text", str(text)] if form == "stages" else ["--no-verify"]
    for number in (1, 2):
        out = tmp_path / f"folder-{number}"
        environment = {**os.environ, "PYTHONHASHSEED": str(number), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        environment |= {"TZ": "Asia/Kathmandu", "LC_ALL": "tr_TR.UTF-8"} if number == 2 else {}
        command = [sys.executable, "-m", "export.cli.main", "--model", str(mini), "--calibration", str(text)]
        command += ["--loop-form", form, "--quant", "int4-small", "--algorithm", "gptq", "--out", str(out)]
        command += ["--max-loops", "2", "--threads", "1", "--kv", "full", "--no-cache", *verify, "--json"]
        mask = 0o022 if number == 1 else 0o077
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path, env=environment, umask=mask, check=False
        )
        assert done.returncode in (0, 4), done.stderr
        (said,) = json.loads(done.stdout)["artifacts"]
        folder = Path(said["artifact"])
        made.append({path.name: path.read_bytes() for path in sorted(folder.iterdir())})
    assert set(made[0]) == set(made[1]) and len(made[0]) >= 5
    for name, content in made[0].items():
        assert content == made[1][name], name
        assert str(tmp_path).encode() not in content and str(mini).encode() not in content


def test_a_refusal_in_a_process_of_its_own_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "export.cli.main", "--model", str(tmp_path / "nowhere"), "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 3 and done.stdout == ""
    assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_doctor_tries_the_runtime_that_it_names(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = dataclasses.replace(registry.TARGETS["onnx"], runtime_module="a_runtime_that_is_not_installed")
    monkeypatch.setitem(registry.TARGETS, "onnx", absent)
    findings = {finding["subject"]: finding for finding in cli("doctor", "--json").json["findings"]}
    found = findings["target onnx"]
    assert not found["fine"] and "written, and not executed here" in found["detail"]
    assert "executed by" not in found["detail"] and "pip install" in found["detail"]


@pytest.mark.parametrize("context", [16])
def test_an_artifact_of_a_short_context_passes_its_own_self_test(
    cli: Cli, mini: Path, text: Path, context: int, tmp_path: Path
) -> None:
    files = ("--model", mini, "--text", text, "--calibration", text, "--quant", "fp32", "--kv", "full")
    ran = cli(*files, "--context", context, "--max-loops", 2, "--out", tmp_path, "--json")
    assert ran.code == 0, ran.err
    (artifact,) = ran.json["artifacts"]
    ran = cli("verify", artifact["artifact"], "--json")
    assert ran.code == 0 and ran.json["artifacts"][0]["verify"]["self_test"], ran.err


def test_weights_rounded_to_fp16_leave_activations_as_they_are(
    cli: Cli, mini: Path, text: Path, tmp_path: Path
) -> None:
    given = ("--model", mini, "--calibration", text, "--quant", "fp16", "--kv", "full")
    ran = cli(*given, "--max-loops", 2, "--no-verify", "--out", tmp_path, "--json")
    assert ran.code == 0, ran.err
    (artifact,) = ran.json["artifacts"]
    assert (artifact["compute"], artifact["kv"]["dtype"]) == ("fp32", "fp32")


def test_inspect_says_what_was_wrong_with_the_poles(
    cli: Cli, exported: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    failed = Path(shutil.copytree(exported[0], tmp_path / "x.failed"))
    values = json.loads((failed / "manifest.json").read_text(encoding="utf-8"))
    problem = "certificate: the greatest stored decay is 1.0000001192092896, not below 1"
    values["certificate"] |= {"max_decay": 1.0000001192092896, "problems": [problem]}
    (failed / "manifest.json").write_text(json.dumps(values), encoding="utf-8")
    shown = cli("inspect", failed).out
    assert "max decay 1.00000012 is NOT below 1" in shown and f"FAILED {problem}" in " ".join(shown.split())
