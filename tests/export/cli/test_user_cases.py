"""What users meet on the way: end tokens, short contexts, names that look like markup, numbers and encodings."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).parents[3]
FAST = ("--quant", "fp32", "--no-verify", "--kv", "full")


@pytest.fixture
def model(mini: Path, tmp_path: Path) -> Path:
    """A copy of the mini checkpoint, to be changed."""
    return Path(shutil.copytree(mini, tmp_path / "model"))


def add_tokens_up_to(folder: Path, last: int) -> None:
    """Special tokens behind the vocabulary, until one has the id `last`."""
    path = folder / "tokenizer.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    for index in range(max(values["model"]["vocab"].values()) + 1, last + 1):
        token = {"id": index, "content": f"<|special {index}|>", "special": True}
        values["added_tokens"].append(token | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False))
    path.write_text(json.dumps(values), encoding="utf-8")


def test_the_ids_that_end_a_text_are_the_same_everywhere(cli: Callable[..., Any], model: Path, tmp_path: Path) -> None:
    plain = cli("--model", model, *FAST, "--loops", "2", "--out", tmp_path / "a", "--json").json["artifacts"][0]
    free = cli("generate", plain["artifact"], "--prompt", "import", "--tokens", "6", "--json").json
    assert not free["stopped"]
    end = free["tokens"][3]
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": [end, 0]}), encoding="utf-8")
    again = cli("--model", model, *FAST, "--loops", "2", "--out", tmp_path / "b", "--json").json["artifacts"][0]
    folder = Path(again["artifact"])
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    genai = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))
    optimum = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert (manifest["eos"], manifest["stops"]) == (end, [end, 0])
    assert genai["model"]["eos_token_id"] == optimum["eos_token_id"] == [end, 0]
    stopped = cli("generate", folder, "--prompt", "import", "--tokens", "6", "--json").json
    assert stopped["stopped"] and stopped["tokens"] == free["tokens"][: free["tokens"].index(end) + 1]


def test_a_tokenizer_with_ids_beyond_the_table_is_refused_before_work(
    cli: Callable[..., Any], model: Path, tmp_path: Path
) -> None:
    add_tokens_up_to(model, 320)
    ran = cli("--model", model, *FAST, "--out", tmp_path / "out")
    assert ran.code == 3 and "has the id 320, and the token table 320 rows" in ran.line


@pytest.mark.parametrize("context", ["1", "16"])
def test_an_artifact_of_a_short_context_passes_its_own_verify(
    cli: Callable[..., Any], model: Path, tmp_path: Path, context: str
) -> None:
    ran = cli("--model", model, *FAST, "--context", context, "--out", tmp_path / "out", "--json")
    assert ran.code == 0, ran.err
    verified = cli("verify", ran.json["artifacts"][0]["artifact"])
    assert verified.code == 0, verified.err


@pytest.mark.parametrize("name", ["run[/v2]", "run[bold]2", ":key:"])
def test_square_brackets_and_colons_in_paths_are_text(
    cli: Callable[..., Any], model: Path, tmp_path: Path, name: str
) -> None:
    ran = cli("convert", model, tmp_path / name)
    assert ran.code == 0 and str(tmp_path / name) in ran.out


def test_a_published_path_is_printed_as_it_is(cli: Callable[..., Any], model: Path, tmp_path: Path) -> None:
    ran = cli("--model", model, *FAST, "--out", tmp_path / "run[/v2]")
    assert ran.code == 0 and str(tmp_path / "run[/v2]" / "model-onnx-dynamic-fp32") in ran.out.replace("\n", "")


def test_bytes_that_are_no_utf8_end_in_one_line(cli: Callable[..., Any], exported: tuple[Path, Any]) -> None:
    prompt = os.fsdecode(b"caf\xe9")
    for extra in ([], ["--compare-loops", "1,2"]):
        ran = cli("generate", exported[0], "--prompt", prompt, "--tokens", "2", *extra)
        assert ran.code == 2 and "--prompt: not UTF-8" in ran.line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["generate", "x", "--seed", "-1"], "--seed -1"),
        (["generate", "x", "--threads", "100000"], "--threads"),
        (["--seed", str(2**70)], "--seed"),
        (["--threads", "100000"], "--threads 100000"),
        (["recipes", "--plot", "no/such/folder/x.svg"], "there is no folder no/such/folder"),
    ],
)
def test_numbers_and_folders_that_cannot_be_are_refused_at_once(
    cli: Callable[..., Any], arguments: list[str], words: str
) -> None:
    ran = cli(*arguments)
    assert ran.code == 2 and words in ran.err and len(ran.err.splitlines()) == 1


def test_a_recipes_bits_are_whole_and_a_rule_without_effect_is_said(
    cli: Callable[..., Any], model: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "x.toml"
    recipe.write_text('budget = { kl = 1.0, top1 = 0.0 }\n[[rules]]\nmatch = "*.mlp.*"\nbits = 4.0\n', "utf-8")
    ran = cli("--model", model, "--quant", recipe, "--no-verify", "--out", tmp_path / "out")
    assert ran.code == 3 and "bits = 4.0" in ran.line
    recipe.write_text('budget = { kl = 1.0, top1 = 0.0 }\n[[rules]]\nmatch = "*.mpl.*"\nbits = 8\n', "utf-8")
    ran = cli("--model", model, "--quant", recipe, "--no-verify", "--kv", "full", "--out", tmp_path / "out", "--json")
    assert ran.code == 0, ran.err
    assert any("no parameter meets the rule '*.mpl.*' first" in note for note in ran.json["artifacts"][0]["notes"])


def test_a_figure_that_is_not_finite_is_null_in_json(cli: Callable[..., Any], model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    save_file({name: tensor * 0 for name, tensor in tensors.items()}, model / "model.safetensors")
    ran = cli("inspect", model, "--json")
    assert ran.code == 0 and json.loads(ran.out)["model"]["parameters"] > 0


def command(arguments: list[str], environment: dict[str, str], redirect: str = "") -> subprocess.CompletedProcess[str]:
    line = f'exec "$0" -m export.cli.main "$@" {redirect}'
    return subprocess.run(
        ["bash", "-c", line, sys.executable, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment, "OMP_NUM_THREADS": "1"},
        check=False,
    )


def test_a_character_that_the_terminal_lacks_is_escaped_and_a_closed_output_is_no_error(
    model: Path, tmp_path: Path
) -> None:
    done = command(["convert", str(model), str(tmp_path / "→")], {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "1"})
    assert done.returncode == 0 and "\\u2192: model.safetensors" in done.stdout, done.stderr
    done = command(["convert", str(model), str(tmp_path / "closed")], {}, ">&-")
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert (tmp_path / "closed" / "model.safetensors").exists()
