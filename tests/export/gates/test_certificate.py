"""The pole certificate speaks of the tensors in the finished file, and finds every change of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from export.gates.certificate import certify
from export.targets.onnx.runtime.host import OnnxHost
from export.targets.onnx.writer import read_injection
from export.targets.registry import StoredInjection
from parcae_mobile import Parcae
from quantize import QuantizedModel


@pytest.fixture(scope="module", params=["stages", "scan"])
def stored(
    request: pytest.FixtureRequest,
    mini_model: Parcae,
    quantized: Callable[..., QuantizedModel],
    write_onnx: Callable[..., OnnxHost],
    tmp_path_factory: pytest.TempPathFactory,
) -> StoredInjection:
    """What a written int4-small artifact stores."""
    folder = tmp_path_factory.mktemp(request.param)
    write_onnx(quantized(mini_model, "int4-small"), folder, request.param)
    found = read_injection(folder)
    assert found is not None
    return found


def test_the_stored_injection_is_the_checkpoints(stored: StoredInjection, mini_model: Parcae) -> None:
    certificate = certify(mini_model, stored)
    assert certificate.problems == [] and certificate.injection_matrix_equal is True
    assert certificate.max_decay == pytest.approx(float(mini_model.transformer["adapter"].decay().max()), abs=1e-7)
    assert torch.equal(stored.matrix, mini_model.transformer["adapter"].B)
    assert "not proven" in certificate.note


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: replace(s, decay=s.decay + 2e-6), "decay"),
        (lambda s: replace(s, decay=s.decay.clamp_min(1.0)), "not below 1"),
        (lambda s: replace(s, decay=s.decay[:-1]), "decay"),
        (lambda s: replace(s, decay=s.decay.half()), "decay"),
        (lambda s: replace(s, dt=s.dt * 1.001), "dt"),
        (lambda s: replace(s, matrix=s.matrix.index_fill(0, torch.tensor([3]), 0.0)), "matrix B"),
        (lambda s: replace(s, matrix=s.matrix * (1 + 2**-23)), "matrix B"),
    ],
)
def test_every_change_of_it_is_found(
    stored: StoredInjection, mini_model: Parcae, change: Callable[[StoredInjection], StoredInjection], words: str
) -> None:
    problems = certify(mini_model, change(stored)).problems
    assert any(words in problem for problem in problems)


def test_an_artifact_without_the_injection_has_no_certificate(mini_model: Parcae) -> None:
    certificate = certify(mini_model, None)
    assert certificate.problems and certificate.max_decay is None


@pytest.mark.parametrize("injection", ["linear", "add"])
def test_other_injections_promise_nothing(
    small: Callable[..., Parcae],
    quantized: Callable[..., QuantizedModel],
    write_onnx: Callable[..., OnnxHost],
    tmp_path: Path,
    injection: str,
) -> None:
    model = small(injection_type=injection)
    write_onnx(quantized(model), tmp_path)
    assert read_injection(tmp_path) is None
    certificate = certify(model, None)
    assert certificate.problems == [] and certificate.max_decay is None and "no stability guarantee" in certificate.note
