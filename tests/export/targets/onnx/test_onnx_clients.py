"""Several static loop counts in one folder, and stock clients on it: 64 greedy tokens at each, the same as eager's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

import parcae_mobile
from parcae_mobile import Parcae, load_model
from parcae_mobile.kv_cache import KVCache
from parcae_mobile.loops import policy_slots
from parcae_mobile.manifest import read_manifest
from parcae_mobile.parity import greedy

Cli = Callable[..., Any]
TINY = Path(parcae_mobile.__file__).parent / "tiny"
COUNTS = (2, 4, 8)
PROMPT, NEW = list(range(100, 116)), 64
FLAVOURS = ([], ["--all-logits"], ["--kv", "full"], ["--portable"])


@pytest.fixture(scope="module")
def several(
    cli: Cli, mini: Path, text: Path, loose: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """The mini model at two static loop counts, and what `--json` said."""
    out = tmp_path_factory.mktemp("several")
    files = ("--model", mini, "--text", text, "--calibration", text, "--quant", loose, "--accept-budget")
    ran = cli(*files, "--kv", "full", "--loops", 3, "--loops", 2, "--loops", 3, "--out", out, "--json")
    assert ran.code == 0, ran.err
    (artifact,) = ran.json["artifacts"]
    return Path(artifact["artifact"]), artifact


def test_small_graphs_lie_beside_one_weights_file(several: tuple[Path, dict[str, Any]]) -> None:
    folder, said = several
    assert folder.name == "mini-onnx-T2-T3-loose"
    assert said["graphs"] == {"2": "model_T2.onnx", "3": "model.onnx"} and said["loops"] == 3
    data = [name for name in said["files"] if name.endswith(".data")]
    assert data == ["weights.data"]
    for name in said["graphs"].values():
        graph = onnx.load(folder / name, load_external_data=False).graph
        places = {e.value for t in graph.initializer for e in t.external_data if e.key == "location"}
        assert places == {"weights.data"}
        assert said["files"][name]["bytes"] < 100_000
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_the_weights_are_those_of_each_count_alone(
    several: tuple[Path, dict[str, Any]], cli: Cli, mini: Path, text: Path, loose: Path, tmp_path: Path
) -> None:
    folder, said = several
    files = ("--model", mini, "--calibration", text, "--quant", loose, "--kv", "full", "--no-verify")
    ran = cli(*files, "--loops", 2, "--out", tmp_path, "--json")
    (alone,) = ran.json["artifacts"]
    assert alone["files"]["weights.data"]["sha256"] == said["files"]["weights.data"]["sha256"]
    assert (Path(alone["artifact"]) / "model.onnx").read_bytes() == (folder / "model_T2.onnx").read_bytes()


def test_each_count_is_gated_verified_and_generates(cli: Cli, several: tuple[Path, dict[str, Any]]) -> None:
    folder, said = several
    assert said["lowering"]["passed"] is True and set(said["lowering"]["by_loops"]) == {"2", "3"}
    (verified,) = cli("verify", folder, "--json").json["artifacts"]
    assert set(verified["verify"]["self_test"]) == {"2", "3"}
    two, three, default = (
        cli("generate", folder, "--tokens", 8, "--json", *loops).json for loops in (["--loops", 2], ["--loops", 3], [])
    )
    assert (two["loops"], three["loops"]) == (2, 3) and default["tokens"] == three["tokens"]
    ran = cli("generate", folder, "--loops", 4)
    assert ran.code == 2 and "built for 2, 3 loops" in ran.line
    shown = cli("inspect", folder)
    assert shown.code == 0 and "T=2 (model_T2.onnx), T=3 (model.onnx)" in " ".join(shown.out.split())


def test_a_graph_that_was_changed_is_found(cli: Cli, several: tuple[Path, Any], tmp_path: Path) -> None:
    import shutil

    mutant = shutil.copytree(several[0], tmp_path / "mutant")
    (mutant / "model_T2.onnx").write_bytes((mutant / "model.onnx").read_bytes())
    ran = cli("verify", mutant)
    assert ran.code == 3 and "model_T2.onnx" in ran.line


def test_other_targets_keep_a_folder_for_each_count() -> None:
    from export.request import group_loops
    from export.targets.registry import TARGETS

    assert group_loops(TARGETS["onnx"], [4, "dynamic", 2, 4]) == [("dynamic",), (2, 4)]
    assert group_loops(TARGETS["coreml"], [4, 2, 4]) == [(4,), (2,)]
    assert group_loops(TARGETS["onnx"], [4]) == [(4,)]


@pytest.mark.parametrize(
    ("code", "arguments", "said"),
    [
        (2, ["--portable", "--target", "coreml"], "--portable: only onnx"),
        (2, ["--portable", "--loop-form", "scan"], "--loop-form scan"),
        (5, ["--portable", "--kv-dtype", "int8"], "--kv-dtype int8: --portable has fp32"),
        (2, ["--all-logits"], "--all-logits is for static ONNX graphs"),
        (2, ["--compute", "fp16"], "--compute fp16: onnx has fp32, int8"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    cli: Cli, mini: Path, tmp_path: Path, code: int, arguments: list[str], said: str
) -> None:
    ran = cli("--model", mini, "--out", tmp_path, *arguments)
    assert ran.code == code and said in ran.line and not list(tmp_path.iterdir())


def genai_tokens(folder: Path, loops: int, prompt: list[int], new: int) -> list[int]:
    import onnxruntime_genai as genai

    config = genai.Config(str(folder))
    overlay = folder / f"genai_overlay_T{loops}.json"
    if overlay.exists():
        config.overlay(overlay.read_text(encoding="utf-8"))
    model = genai.Model(config)
    options = genai.GeneratorParams(model)
    options.set_search_options(max_length=len(prompt) + new, do_sample=False)
    generator, tokens = genai.Generator(model, options), []
    generator.append_tokens(prompt)
    while not generator.is_done() and len(tokens) < new:
        generator.generate_next_token()
        tokens.append(int(generator.get_next_tokens()[0]))
    return tokens


def optimum_tokens(folder: Path, loops: int, prompt: list[int], new: int) -> list[int]:
    from optimum.onnxruntime import ORTModelForCausalLM
    from transformers import AutoConfig

    manifest = read_manifest(folder)
    layers = manifest.geometry.layers
    slots = policy_slots(manifest.kv.policy, loops)
    count = layers["prelude"] + slots * layers["core_block"] + layers["coda"]
    config = AutoConfig.from_pretrained(folder, num_hidden_layers=count)
    name = manifest.graphs.get(str(loops), "model.onnx")
    model = ORTModelForCausalLM.from_pretrained(folder, file_name=name, config=config)
    given = torch.tensor([prompt])
    made = model.generate(given, attention_mask=torch.ones_like(given), max_new_tokens=new, do_sample=False)
    return list(made[0, len(prompt) :].tolist())


def same_until_the_end(tokens: list[int], expected: list[int], eos: int) -> bool:
    """Clients stop at the end token, eager goes on."""
    stop = expected.index(eos) + 1 if eos in expected else len(expected)
    return tokens[:stop] == expected[:stop] and len(tokens) >= stop


@pytest.fixture(scope="module")
def embedded() -> Parcae:
    return load_model(TINY)


@pytest.fixture(scope="module")
def embedded_folder(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The embedded model in fp32 at T=2, 4 and 8, verified, in the flavour asked for."""
    made: dict[tuple[str, ...], Path] = {}

    def get(flavour: list[str]) -> Path:
        key = tuple(flavour)
        if key not in made:
            loops = [argument for count in COUNTS for argument in ("--loops", count)]
            out = tmp_path_factory.mktemp("embedded")
            ran = cli(*loops, "--quant", "fp32", "--out", out, "--json", *flavour)
            assert ran.code == 0, ran.err
            (artifact,) = ran.json["artifacts"]
            assert artifact["lowering"]["by_loops"]["8"]["greedy_equal"] == 64
            made[key] = Path(artifact["artifact"])
        return made[key]

    return get


@pytest.mark.acceptance
@pytest.mark.parametrize("flavour", FLAVOURS, ids=lambda flavour: " ".join(flavour) or "default")
@pytest.mark.parametrize("loops", COUNTS)
@pytest.mark.parametrize("client", [genai_tokens, optimum_tokens])
def test_clients_give_eagers_greedy_tokens(
    embedded_folder: Any, embedded: Parcae, client: Callable[..., list[int]], loops: int, flavour: list[str]
) -> None:
    folder = embedded_folder(flavour)
    tokens = client(folder, loops, PROMPT, NEW)
    eos = json.loads((folder / "config.json").read_text())["eos_token_id"]
    cache = KVCache(embedded.config, loops, policy=read_manifest(folder).kv.policy)
    assert same_until_the_end(tokens, greedy(embedded, PROMPT, NEW, loops, cache), eos)


@pytest.mark.acceptance
def test_clients_stop_at_the_context_with_an_error(cli: Cli, tmp_path: Path) -> None:
    import onnxruntime_genai as genai

    ran = cli("--loops", 2, "--quant", "fp32", "--context", 24, "--no-verify", "--out", tmp_path, "--json")
    folder = Path(ran.json["artifacts"][0]["artifact"])
    model = genai.Model(str(folder))
    options = genai.GeneratorParams(model)
    options.set_search_options(max_length=25, do_sample=False)
    with pytest.raises(RuntimeError, match="max_length"):
        genai.Generator(model, options)


@pytest.mark.acceptance
@pytest.mark.parametrize(
    "arguments",
    [
        ["--portable"],
        ["--portable", "--compute", "fp32"],
        ["--portable", "--loops", 2, "--loops", 8],
        ["--portable", "--quant", "int4-small", "--loops", 4, "--compute", "fp32"],
        ["--quant", "fp16"],
        ["--quant", "fp16", "--portable", "--loops", 4],
        ["--loops", 2, "--loops", 4, "--kv-dtype", "int8"],
    ],
    ids=lambda arguments: " ".join(map(str, arguments)),
)
def test_flavours_of_the_embedded_model_pass_their_gates_and_verify(
    cli: Cli, tmp_path: Path, arguments: list[Any]
) -> None:
    ran = cli(*arguments, "--out", tmp_path, "--json", "--algorithm", "rtn")
    (artifact,) = ran.json["artifacts"]
    assert artifact["lowering"]["passed"] is True, artifact["problems"]
    assert artifact["certificate"]["injection_matrix_equal"] is True
    print({loops: (entry["max_abs"], entry["kl_mean"]) for loops, entry in artifact["lowering"]["by_loops"].items()})
    assert cli("verify", artifact["artifact"]).code == 0
