"""Optimum's own command on a Parcae checkpoint: what it writes is a verified artifact, and its model class runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import parcae_mobile
from export import pipeline
from export.pipeline import ExportResult
from export.request import ExportRequest
from parcae_mobile import load_model
from parcae_mobile.kv_cache import KVCache
from parcae_mobile.manifest import verify_files
from parcae_mobile.parity import greedy

ROOT = Path(__file__).parents[2]
TINY = Path(parcae_mobile.__file__).parent / "tiny"
PROMPT, NEW = list(range(100, 116)), 64


def run(*arguments: object, module: bool = False) -> subprocess.CompletedProcess[str]:
    """The installed `optimum-cli`, with this package on the path as an installation puts it there."""
    cli = str(Path(sys.executable).parent / "optimum-cli")
    command = [sys.executable, "-m", "export.optimum_plugin"] if module else [cli]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, env=environment)


@pytest.mark.acceptance
def test_optimum_cli_exports_a_checkpoint_that_optimum_runs(tmp_path: Path) -> None:
    from optimum.onnxruntime import ORTModelForCausalLM

    out = tmp_path / "out"
    ran = run("export", "onnx", "--model", TINY, "--model-kwargs", '{"loops": 4}', out)
    assert ran.returncode == 0, ran.stderr[-2000:]
    manifest = verify_files(out)
    assert (manifest.loops, manifest.lowering.passed, manifest.quantization.recipe) == (4, True, "fp32")
    model = ORTModelForCausalLM.from_pretrained(out)
    given = torch.tensor([PROMPT])
    made = model.generate(given, attention_mask=torch.ones_like(given), max_new_tokens=NEW, do_sample=False)
    eager = load_model(TINY)
    cache = KVCache(eager.config, 4, policy=manifest.kv.policy)
    tokens, expected = made[0, len(PROMPT) :].tolist(), greedy(eager, PROMPT, NEW, 4, cache)
    stop = expected.index(manifest.eos) + 1 if manifest.eos in expected else NEW
    assert tokens[:stop] == expected[:stop] and len(tokens) >= stop


@pytest.mark.acceptance
def test_what_it_does_not_take_is_refused(tmp_path: Path) -> None:
    ran = run("export", "onnx", "--model", TINY, "--model-kwargs", '{"layers": 4}', tmp_path / "out", module=True)
    assert ran.returncode == 2 and "error: --model-kwargs: layers means nothing to Parcae" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("dtype", "kwargs", "expected"),
    [
        (torch.float16, {"loops": 2}, (2, "fp16", "fp32", True)),
        (torch.float32, {"loops": "dynamic"}, ("dynamic", "fp32", "fp32", None)),
    ],
)
def test_types_and_loop_counts_that_the_page_names(
    dtype: torch.dtype,
    kwargs: dict[str, Any],
    expected: tuple[Any, ...],
    tmp_path: Path,
    mini: Path,
    text: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from export import optimum_plugin

    def run_export(request: ExportRequest) -> list[ExportResult]:
        """On a short text, and without the measurement of KV policies."""
        return pipeline.run_export(replace(request, text=text, calibration=text, kv="full", max_loops=4))

    monkeypatch.setattr(optimum_plugin, "run_export", run_export)
    model = optimum_plugin.ParcaeHubModel.from_pretrained(
        mini, config=optimum_plugin.ParcaeHubConfig(), torch_dtype=dtype
    )
    optimum_plugin.write(model.checkpoint, tmp_path / "out", kwargs, model.dtype_asked)
    manifest = verify_files(tmp_path / "out")
    assert (manifest.loops, manifest.quantization.recipe, manifest.compute) == expected[:3]
    assert manifest.lowering.passed and (expected[3] is None or not manifest.last_logits)
