"""The full matrix of ExecuTorch artifacts, and what of it needs a process of its own: `make acceptance`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from export.hosts.base import CacheGeometry
from export.hosts.executorch_host import ExecutorchHost
from export.lowering_gate import lowering_gate
from export.targets.executorch import MODEL, write_dynamic, write_static
from export.targets.executorch_file import PteFile
from export.targets.executorch_memory import measure
from export.targets.executorch_readback import unmatched
from parcae_mobile import load_model
from parcae_mobile.kv_cache import KVCache
from parcae_mobile.parity import greedy
from parcae_mobile.text import EMBEDDED_MODEL, text_ids
from parcae_mobile.tokenizer import TextTokenizer
from quantize import load_recipe, quantize_with

CONTEXT = 128


@pytest.mark.acceptance
@pytest.mark.parametrize("loops", [1, 2, 4, 8])
@pytest.mark.parametrize("preset", ["fp32", "int8", "int4", "int4-small"])
def test_unrolled_programs_pass_the_gate_and_hold_the_recipes_integers(tmp_path: Path, preset: str, loops: int) -> None:
    quantized = quantize_with(load_model(EMBEDDED_MODEL), load_recipe(preset), "rtn")
    write_static(quantized, tmp_path, loops, CONTEXT, bos=0, eos=0)
    host = ExecutorchHost(tmp_path / MODEL, CacheGeometry.of(quantized.model.config, loops, CONTEXT), threads=1)
    texts = text_ids(EMBEDDED_MODEL, "heldout").windows(2, 64)
    verdict = lowering_gate(host, quantized.model, texts, (loops,), "int8" if quantized.tensors else "fp32")
    assert verdict.passed, verdict.failures
    assert unmatched(PteFile((tmp_path / MODEL).read_bytes()), quantized) == []
    tokenizer = TextTokenizer.load(EMBEDDED_MODEL)
    assert tokenizer is not None
    if preset != "fp32":
        return
    prompt = "Once upon a time"
    command = [sys.executable, "-m", "export.hosts.executorch_runner", str(tmp_path / MODEL)]
    command += [str(EMBEDDED_MODEL / "tokenizer.json"), f"<|bos|>{prompt}", "--tokens", "64"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    expected = greedy(quantized.model, [tokenizer.bos, *tokenizer.encode(prompt)], 64, loops)
    assert json.loads(ran.stdout)["text"] == tokenizer.decode(expected)


@pytest.mark.acceptance
@pytest.mark.parametrize("preset", ["fp32", "int8", "int4", "int4-small"])
def test_dynamic_programs_pass_the_gate_at_every_loop_count(tmp_path: Path, preset: str) -> None:
    quantized = quantize_with(load_model(EMBEDDED_MODEL), load_recipe(preset), "rtn")
    write_dynamic(quantized, tmp_path, 16, CONTEXT)
    assert unmatched(PteFile((tmp_path / MODEL).read_bytes()), quantized) == []
    host = ExecutorchHost(tmp_path / MODEL, CacheGeometry.of(quantized.model.config, 16, CONTEXT), threads=1)
    texts = text_ids(EMBEDDED_MODEL, "heldout").windows(2, 64)
    compute = "int8" if quantized.tensors else "fp32"
    verdict = lowering_gate(host, quantized.model, texts, (1, 2, 4, 8, 16), compute)
    assert verdict.passed, verdict.failures


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
