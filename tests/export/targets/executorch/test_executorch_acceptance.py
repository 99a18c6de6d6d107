"""The full matrix of ExecuTorch artifacts, and what of it needs a process of its own: `make acceptance`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from export.gates.lowering import lowering_gate
from export.targets.executorch.file import PteFile
from export.targets.executorch.host import ExecutorchHost
from export.targets.executorch.memory import measure
from export.targets.executorch.readback import unmatched
from export.targets.executorch.writer import MODEL, write_dynamic, write_static
from export.targets.host import CacheGeometry
from parcae_mobile import Parcae, load_model
from parcae_mobile.kv_cache import KVCache
from parcae_mobile.manifest import Delegation
from parcae_mobile.parity import greedy
from parcae_mobile.text import EMBEDDED_MODEL, text_ids
from parcae_mobile.tokenizer import TextTokenizer
from quantize import QuantizedModel, load_recipe, quantize_with

CONTEXT = 128


PRESETS = ("fp32", "int8", "int4", "int4-small")
PROMPTS = ("import os\n", "class Stack:\n", "def main(", "for line in ", "The history of", "Once upon a time")


@pytest.fixture(scope="module", params=PRESETS)
def quantized(request: pytest.FixtureRequest) -> QuantizedModel:
    return quantize_with(load_model(EMBEDDED_MODEL), load_recipe(request.param), "rtn")


@pytest.mark.acceptance
@pytest.mark.parametrize("loops", [1, 2, 4, 8])
def test_unrolled_programs_pass_the_gate_hold_the_recipes_integers_and_run_in_the_stock_runner(
    tmp_path: Path, quantized: QuantizedModel, loops: int
) -> None:
    delegation = write_static(quantized, tmp_path, loops, CONTEXT, bos=0, stops=(0,))
    judge("static", quantized, tmp_path, loops, (loops,), delegation)
    same = [agreement(tmp_path / MODEL, quantized.model, prompt, loops) for prompt in ascii_prompts(quantized, loops)]
    print(f"acceptance: stock runner {quantized.recipe.name} T={loops}: greedy tokens equal {same} of 64")
    if not quantized.tensors:
        assert same == [64] * len(same)


@pytest.mark.acceptance
def test_dynamic_programs_pass_the_gate_at_every_loop_count(tmp_path: Path, quantized: QuantizedModel) -> None:
    judge("dynamic", quantized, tmp_path, 16, (1, 2, 4, 8, 16), write_dynamic(quantized, tmp_path, 16, CONTEXT))


def judge(
    form: str,
    quantized: QuantizedModel,
    folder: Path,
    max_loops: int,
    loops: tuple[int, ...],
    delegation: dict[str, Delegation],
) -> None:
    """The lowering gate, the integers and the delegation of one file, each figure printed."""
    path = folder / MODEL
    host = ExecutorchHost(path, CacheGeometry.of(quantized.model.config, max_loops, CONTEXT), threads=1)
    texts = text_ids(EMBEDDED_MODEL, "heldout").windows(4, 64)
    verdict = lowering_gate(host, quantized.model, texts, loops, "int8" if quantized.tensors else "fp32")
    for count, distance in verdict.by_loops.items():
        print(
            f"acceptance: {form} {quantized.recipe.name} T={count}: max abs {distance.max_abs:.1e}, "
            f"KL {distance.kl_mean:.1e}, top-1 {distance.top1:.1%}, greedy {verdict.greedy_equal.get(count)}"
        )
    for name, part in delegation.items():
        print(
            f"acceptance: {form} {quantized.recipe.name} {name}: {part.macs_share:.1%} of {part.macs} MACs, "
            f"{part.operators_share:.1%} of {part.operators} operators in {part.delegates} delegates"
        )
    print(f"acceptance: {form} {quantized.recipe.name} T<={max_loops}: {path.stat().st_size} bytes")
    assert verdict.passed, verdict.failures
    assert unmatched(PteFile(path.read_bytes()), quantized) == []
    assert all(part.macs_share == 1.0 for part in delegation.values())


def ascii_prompts(quantized: QuantizedModel, loops: int) -> list[str]:
    """Three prompts that go on in ASCII and do not end: the runner's Python callback cannot take half a character."""
    tokenizer = TextTokenizer.load(EMBEDDED_MODEL)
    assert tokenizer is not None
    found = []
    for prompt in PROMPTS:
        expected = greedy(quantized.model, [tokenizer.bos, *tokenizer.encode(prompt)], 64, loops)
        if tokenizer.eos not in expected and all(tokenizer.decode([token]).isascii() for token in expected):
            found.append(prompt)
    assert len(found) >= 2, "add prompts"
    return found[:3]


def agreement(path: Path, model: Parcae, prompt: str, loops: int) -> int:
    """How many of 64 greedy tokens of the stock runner are eager's before the first that is not."""
    tokenizer = TextTokenizer.load(EMBEDDED_MODEL)
    assert tokenizer is not None
    expected = greedy(model, [tokenizer.bos, *tokenizer.encode(prompt)], 64, loops)
    command = [sys.executable, "-m", "export.targets.executorch.runner", str(path)]
    command += [str(EMBEDDED_MODEL / "tokenizer.json"), f"<|bos|>{prompt}", "--tokens", "64"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    pieces = json.loads(ran.stdout)["pieces"] if ran.returncode == 0 else []
    if not pieces:
        assert "UnicodeDecodeError" in ran.stderr and "utf-8" in ran.stderr, ran.stderr
        return -1
    same = (piece == tokenizer.decode([token]) for piece, token in zip(pieces, expected, strict=False))
    return next((place for place, equal in enumerate(same) if not equal), len(pieces))


@pytest.mark.acceptance
@pytest.mark.parametrize("form", ["dynamic", "static"])
def test_loops_that_share_cache_slots_decode_as_the_eager_cache_of_that_policy(tmp_path: Path, form: str) -> None:
    model = load_model(EMBEDDED_MODEL)
    quantized = quantize_with(model, load_recipe("fp32"), "rtn")
    if form == "dynamic":
        write_dynamic(quantized, tmp_path, 4, CONTEXT, slots=2)
    else:
        write_static(quantized, tmp_path, 4, CONTEXT, slots=2)
    geometry = CacheGeometry.of(model.config, 4, CONTEXT, "first1+shared")
    host = ExecutorchHost(tmp_path / MODEL, geometry, threads=1)
    prompt = text_ids(EMBEDDED_MODEL, "heldout").ids[:24].tolist()
    expected = greedy(model, prompt, 48, 4, KVCache(model.config, 4, context=CONTEXT, policy="first1+shared"))
    given, made = prompt, []
    for _ in expected:
        logits = host.run(given, 4, positions=[len(given) - 1])
        made.append(int(logits[0, : model.config.vocab_size].argmax()))
        given = made[-1:]
    assert made == expected


@pytest.mark.acceptance
def test_memory_is_flat_in_loops_and_the_weight_cache_keeps_it_flat_where_it_is_not(tmp_path: Path) -> None:
    quantized = quantize_with(load_model(EMBEDDED_MODEL), load_recipe("fp32"), "rtn")
    write_dynamic(quantized, tmp_path, 16, CONTEXT)
    few, many = (measure(tmp_path / MODEL, loops)["run"]["VmHWM"] for loops in (1, 16))
    assert many <= 1.05 * few
    unrolled = tmp_path / "unrolled"
    unrolled.mkdir()
    write_static(quantized, unrolled, 8, CONTEXT)
    off, on = (measure(unrolled / MODEL, 8, cache)["run"]["RssAnon"] for cache in (False, True))
    block = sum(p.numel() for p in quantized.model.transformer["core_block"].parameters()) * 4
    assert off - on > 5 * block  # seven of eight copies, but for what the allocator rounds


SAME = """
import sys, torch
from pathlib import Path
from typing import Any
from export.targets.executorch.writer import write_dynamic
from parcae_mobile.config import ParcaeConfig
from parcae_mobile.random_weights import random_model
from quantize import load_recipe, quantize_with
torch.set_num_threads(1)
config = ParcaeConfig.from_dict({"n_embd": 64, "num_attention_heads": 2, "vocab_size": 256, "block_size": 32,
    "n_layers_in_recurrent_block": 1, "recurrent_embedding_dimension": 64, "tie_embeddings": True,
    "recurrent_intermediation_embedding_dimension": 64, "intermediate_size": 64, "norm_class_name": "RMSNorm"})
write_dynamic(quantize_with(random_model(config), load_recipe("int4-small"), "rtn"), Path(sys.argv[1]), 2, 32)
"""


@pytest.mark.acceptance
def test_two_processes_write_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    environment = {"PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": ":".join(sys.path)}
    subprocess.run([sys.executable, "-c", SAME, str(there)], check=True, capture_output=True, env=environment)
    monkeypatch.setattr(sys, "argv", ["", str(here)])
    exec(compile(SAME, "same", "exec"), {})
    written = [(folder / MODEL).read_bytes() for folder in (here, there)]
    assert written[0] == written[1]
    assert str(tmp_path).encode() not in written[0] and b"site-packages" not in written[0]
