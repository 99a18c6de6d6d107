"""Every bad input of the command: its exit code, one line on standard error, and nothing left on disk."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from export.targets import registry as target_module

Cli = Callable[..., Any]


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*")) if folder.exists() else []


@pytest.fixture
def refuse(cli: Cli, tmp_path: Path) -> Callable[..., str]:
    """Run an export that must be refused; returns its line."""

    def run(code: int, *arguments: object) -> str:
        out = tmp_path / "out"
        ran = cli(*arguments, "--out", out)
        assert ran.code == code, (ran.code, ran.err, ran.out)
        assert ran.out == "" and left_in(out) == []
        return ran.line

    return run


def damage(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> Path:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.fixture
def model(mini: Path, tmp_path: Path) -> Path:
    """A copy of the mini checkpoint, to be damaged."""
    return Path(shutil.copytree(mini, tmp_path / "model"))


def test_a_missing_folder(refuse: Callable[..., str], tmp_path: Path) -> None:
    assert "no such folder" in refuse(3, "--model", tmp_path / "nowhere")


def test_a_truncated_checkpoint(refuse: Callable[..., str], model: Path) -> None:
    content = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(content[: len(content) // 2])
    assert "model.safetensors" in refuse(3, "--model", model)


def test_a_wrong_shape(refuse: Callable[..., str], model: Path) -> None:
    damage(model, lambda t: t.update({"transformer.C.weight": torch.zeros(64, 63)}))
    assert "transformer.C.weight has shape (64, 63)" in refuse(3, "--model", model)


def test_a_nan_weight(refuse: Callable[..., str], model: Path) -> None:
    damage(model, lambda t: t["transformer.C.weight"].fill_(float("nan")))
    assert "transformer.C.weight holds NaN" in refuse(3, "--model", model)


def test_an_unknown_configuration_value(refuse: Callable[..., str], model: Path) -> None:
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    (model / "config.json").write_text(json.dumps(config | {"nonlin_name": "Mish"}), encoding="utf-8")
    assert "nonlin_name = 'Mish'" in refuse(3, "--model", model)


class Payload:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.trace}'",)


def test_a_pickle_with_code_in_it(refuse: Callable[..., str], model: Path, tmp_path: Path) -> None:
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(tmp_path / "it-ran"), protocol=2))
    assert "was not executed" in refuse(3, "--model", model)
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.parametrize(
    ("code", "arguments", "words"),
    [
        (2, ["--loops", "0"], "--loops 0"),
        (2, ["--loops", "x"], "--loops x"),
        (2, ["--loops", "-3"], "--loops -3"),
        (2, ["--loops", "1.5"], "--loops 1.5"),
        (2, ["--loops", "²"], "--loops ²"),
        (2, ["--loops", "17"], "above --max-loops 16"),
        (2, ["--loops", "4", "--max-loops", "3"], "above --max-loops 3"),
        (2, ["--max-loops", "0"], "--max-loops 0"),
        (2, ["--target", "tflite"], "unknown target 'tflite'"),
        (2, ["--loop-form", "while"], "--loop-form while"),
        (2, ["--compute", "fp16"], "--compute fp16"),
        (2, ["--quant", "int5"], "--quant int5"),
        (2, ["--learn-steps", "9"], "--learn-steps: nothing reads it with --algorithm auto; add --algorithm learned"),
        (2, ["--algorithm", "learned", "--learn-steps", "0"], "--learn-steps 0: give 1 or more"),
        (2, ["--algorithm", "learned", "--learn-minutes", "-1"], "--learn-minutes -1: give more than 0"),
        (2, ["--algorithm", "awq"], "--algorithm awq"),
        (2, ["--target", "executorch", "--quant", "int4-zero-points"], "executorch has no zero points"),
        (2, ["--context", "0"], "--context 0"),
        (2, ["--context", "113"], "the model takes 1 to 112"),
        (2, ["--threads", "-1"], "--threads -1"),
        (2, ["--random-weights"], "--random-weights needs"),
        (2, ["--kv", "ring"], "ring"),
        (5, ["--kv-dtype", "int3"], "--kv-dtype int3"),
        (3, ["--text", "nowhere.txt"], "nowhere.txt"),
        (3, ["--calibration", "nowhere.txt"], "nowhere.txt"),
        (3, ["--reference", "nowhere.npz"], "nowhere.npz"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_option_that_cannot_be(
    refuse: Callable[..., str], mini: Path, code: int, arguments: list[str], words: str
) -> None:
    options = [] if "--kv" in arguments else ["--kv", "full"]
    assert words in refuse(code, "--model", mini, *options, *arguments)


def test_a_shape_needs_random_weights(refuse: Callable[..., str]) -> None:
    assert "add --random-weights" in refuse(2, "--model", "parcae-140m")


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("name = ", "not valid TOML"),
        ('budget = { kl = 1.0, top1 = 0.0 }\n[[rules]]\nmatch = "*.A_log"\nbits = 8\n', "A_log"),
        ('budget = { kl = 1.0, top1 = 0.0 }\n[[rules]]\nmatch = "*"\nbits = 5\n', "bits = 5"),
        (
            'budget = { kl = 1.0, top1 = 0.0 }\n[[rules]]\nmatch = "*.weight"\nbits = 4\ngroup_size = 7\n',
            "group size 7",
        ),
    ],
)
def test_a_bad_recipe(refuse: Callable[..., str], mini: Path, tmp_path: Path, toml: str, words: str) -> None:
    (tmp_path / "recipe.toml").write_text(toml, encoding="utf-8")
    assert words in refuse(3, "--model", mini, "--quant", tmp_path / "recipe.toml")


def test_a_budget_that_is_looser_than_the_presets(refuse: Callable[..., str], mini: Path, loose: Path) -> None:
    assert "is looser than that of presets with 8 bits" in refuse(2, "--model", mini, "--quant", loose)


def test_a_text_that_is_too_short_for_the_gates(refuse: Callable[..., str], mini: Path, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("import os\n", encoding="utf-8")
    line = refuse(3, "--model", mini, "--algorithm", "rtn", "--text", tmp_path / "short.txt")
    assert "short.txt" in line and "give a longer text" in line


def test_a_reference_of_another_model(
    refuse: Callable[..., str], cli: Cli, mini: Path, data: Path, tmp_path: Path
) -> None:
    path = tmp_path / "other.npz"
    assert cli("reference", "--model", data / "takase-scales", "--out", path).code == 0
    assert "other weights" in refuse(3, "--model", mini, "--algorithm", "rtn", "--reference", path)


def test_a_target_that_is_not_built(refuse: Callable[..., str], mini: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = dataclasses.replace(target_module.TARGETS["onnx"], name="planned", module=None)
    monkeypatch.setitem(target_module.TARGETS, "planned", planned)
    assert "planned is not built" in refuse(5, "--model", mini, "--target", "planned")


def test_a_missing_extra_says_what_to_install(
    refuse: Callable[..., str], mini: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = dataclasses.replace(target_module.TARGETS["onnx"], name="absent", module="export.targets.absent")
    monkeypatch.setitem(target_module.TARGETS, "absent", absent)
    assert "pip install 'parcae-mobile[onnx]'" in refuse(5, "--model", mini, "--target", "absent")


def test_an_output_that_exists_is_left_as_it_is(cli: Cli, mini: Path, tmp_path: Path) -> None:
    existing = tmp_path / "mini-onnx-dynamic-int4"
    existing.mkdir()
    (existing / "mine.txt").write_text("keep", encoding="utf-8")
    ran = cli("--model", mini, "--out", tmp_path)
    assert ran.code == 2 and "add --force" in ran.line
    assert left_in(tmp_path) == ["mine.txt", "mini-onnx-dynamic-int4"]


def test_an_output_below_a_file_is_refused(cli: Cli, mini: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    ran = cli("--model", mini, "--no-verify", "--algorithm", "rtn", "--kv", "full", "--out", tmp_path / "file" / "out")
    assert ran.code == 3 and "cannot write to" in ran.line


def test_debug_shows_the_traceback_before_the_line(cli: Cli, tmp_path: Path) -> None:
    ran = cli("--model", tmp_path / "nowhere", "--debug")
    assert ran.code == 3 and "Traceback" in ran.err and ran.err.splitlines()[-1].startswith("error: ")


@pytest.fixture
def artifact(exported: tuple[Path, Any], tmp_path: Path) -> Path:
    """A copy of the exported artifact, to be damaged."""
    return Path(shutil.copytree(exported[0], tmp_path / exported[0].name))


def manifest_of(artifact: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    values = json.loads((artifact / "manifest.json").read_text(encoding="utf-8"))
    change(values)
    (artifact / "manifest.json").write_text(json.dumps(values), encoding="utf-8")


def alter(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("command", ["verify", "generate"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: alter(a / "weights.data"), "weights.data does not match its SHA-256"),
        (lambda a: alter(a / "model_recur.onnx"), "model_recur.onnx does not match its SHA-256"),
        (lambda a: (a / "golden.npz").unlink(), "golden.npz is missing"),
        (lambda a: (a / "more.bin").write_bytes(b"x"), "more.bin is not in the manifest"),
        (lambda a: manifest_of(a, lambda m: m["files"].update({"../x": m["files"].pop("golden.npz")})), "../x"),
        (lambda a: manifest_of(a, lambda m: m.update(colour="red")), "colour"),
        (lambda a: (a / "manifest.json").write_bytes(b"{"), "manifest.json"),
        (lambda a: (a / "manifest.json").unlink(), "has no manifest.json"),
        (lambda a: shutil.rmtree(a), "no such artifact folder"),
    ],
    ids=["weights", "graph", "removed", "added", "path", "field", "json", "no manifest", "no folder"],
)
def test_a_damaged_artifact_is_refused_before_it_runs(
    cli: Cli, artifact: Path, command: str, change: Callable[[Path], None], words: str
) -> None:
    change(artifact)
    ran = cli(command, artifact)
    assert ran.code == 3 and words in ran.line and ran.out == ""


def rehash(artifact: Path) -> None:
    from parcae_mobile.manifest import hash_files

    files = {name: entry.model_dump() for name, entry in hash_files(artifact).items()}
    manifest_of(artifact, lambda m: m.update(files=files, digest=""))


def test_an_artifact_that_computes_something_else_fails_its_self_test(cli: Cli, artifact: Path) -> None:
    content = bytearray((artifact / "weights.data").read_bytes())
    content[4096 * 3 : 4096 * 5] = bytes(8192)
    (artifact / "weights.data").write_bytes(content)
    rehash(artifact)
    ran = cli("verify", artifact)
    assert ran.code == 4 and ran.out == "" and "error: " in ran.line


def test_a_certificate_that_is_not_the_files_is_found(cli: Cli, artifact: Path) -> None:
    manifest_of(artifact, lambda m: m["certificate"].update(max_decay=m["certificate"]["max_decay"] - 1e-4))
    ran = cli("verify", artifact)
    assert ran.code == 4 and "stored decay" in ran.line


def test_a_broken_self_test_file_is_refused(cli: Cli, artifact: Path) -> None:
    (artifact / "golden.npz").write_bytes(b"PK\x03\x04 nothing")
    rehash(artifact)
    ran = cli("verify", artifact)
    assert ran.code == 3 and "golden.npz" in ran.line


def test_a_graph_that_cannot_be_read_is_refused(cli: Cli, artifact: Path) -> None:
    (artifact / "model_coda.onnx").write_bytes(b"\x08\x0a\x12 nothing")
    rehash(artifact)
    ran = cli("verify", artifact)
    assert ran.code == 3 and "model_coda.onnx" in ran.line


@pytest.mark.parametrize(
    ("code", "arguments", "words"),
    [
        (3, ["--prompt", "x " * 200], "do not fit the context of 112"),
        (3, ["--tokens", "113"], "do not fit the context of 112"),
        (2, ["--tokens", "0"], "--tokens 0"),
        (2, ["--loops", "0"], "loops = 0"),
        (2, ["--loops", "17"], "above the maximum of 16"),
        (2, ["--temperature", "-1"], "--temperature -1"),
        (2, ["--temperature", "nan"], "--temperature nan"),
        (2, ["--top-p", "0"], "--top-p 0"),
        (2, ["--top-k", "-1"], "--top-k -1"),
    ],
)
def test_a_generation_that_cannot_be(
    cli: Cli, exported: tuple[Path, Any], code: int, arguments: list[str], words: str
) -> None:
    ran = cli("generate", exported[0], *arguments)
    assert ran.code == code and words in ran.line


def test_an_artifact_without_tokenizer_reads_no_prompt(cli: Cli, artifact: Path) -> None:
    (artifact / "tokenizer.json").unlink()
    rehash(artifact)
    ran = cli("generate", artifact)
    assert ran.code == 3 and "no tokenizer.json" in ran.line


@pytest.mark.parametrize(
    ("code", "arguments", "words"),
    [
        (2, ["--device", "tpu"], "--device tpu"),
        (5, ["--device", "cuda"], "no CUDA device"),
        (3, ["--text", "nowhere.txt"], "nowhere.txt"),
        (3, ["--compare", "a.npz", "b.npz"], "a.npz"),
        (3, ["--out", "no/such/folder/reference.npz"], "no/such/folder"),
    ],
)
def test_a_reference_that_cannot_be(
    cli: Cli,
    mini: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    ran = cli("reference", "--model", mini, *arguments)
    assert ran.code == code and words in ran.line
    assert left_in(tmp_path) == []


def test_a_reference_is_not_overwritten_without_force(cli: Cli, mini: Path, tmp_path: Path) -> None:
    (tmp_path / "reference.npz").write_text("mine", encoding="utf-8")
    ran = cli("reference", "--model", mini, "--out", tmp_path / "reference.npz")
    assert ran.code == 2 and "add --force" in ran.line
    assert (tmp_path / "reference.npz").read_text(encoding="utf-8") == "mine"


def test_a_conversion_that_cannot_be(cli: Cli, mini: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    ran = cli("convert", mini, tmp_path / "there")
    assert ran.code == 2 and "exists" in ran.line
    ran = cli("convert", tmp_path / "nowhere", tmp_path / "new")
    assert ran.code == 3 and "no such folder" in ran.line
    assert left_in(tmp_path) == ["there"]


@pytest.mark.parametrize("subject", ["no-such-thing", "parcae-140m"])
def test_an_inspection_that_cannot_be(cli: Cli, subject: str) -> None:
    assert cli("inspect", subject).code in (2, 3)


@pytest.mark.parametrize(
    ("arguments", "words", "command"),
    [
        (["--lops", "3"], "--lops (Possible options: --help, --loops", "parcae-export"),
        (["--max-loops", "many"], "--max-loops", "parcae-export"),
        (["--out"], "--out", "parcae-export"),
        (["publish"], "No such command 'publish'", "parcae-export"),
        (["generate"], "Missing argument 'artifact'", "parcae-export generate"),
        (["generate", "folder", "--tokens", "few"], "--tokens", "parcae-export generate"),
    ],
)
def test_what_the_command_does_not_know_is_one_line(cli: Cli, arguments: list[str], words: str, command: str) -> None:
    ran = cli(*arguments)
    assert ran.code == 2 and words in ran.line and ran.out == ""
    assert "--help" in ran.line and (command in ran.line or arguments == ["--out"])


def test_a_file_that_nothing_would_read_is_refused(refuse: Callable[..., str], mini: Path, text: Path) -> None:
    plain = ("--model", mini, "--no-verify")
    assert "--no-verify compares with nothing" in refuse(2, *plain, "--reference", "golden.npz")
    assert "--no-verify and --kv full" in refuse(2, *plain, "--kv", "full", "--text", text)
