"""The pole certificate: the injection as the finished artifact holds it, against the checkpoint.

Decays below 1 make the *linear* injection a contraction (Parcae, 2026). They do not prove that the whole non-linear
loop contracts; the lowering gate's per-loop state errors and `inspect`'s state changes measure that.
"""

from __future__ import annotations

import torch

from export.targets.registry import StoredInjection
from parcae_mobile.injection import DiagonalInjection
from parcae_mobile.manifest import Certificate
from parcae_mobile.model import Parcae

TOLERANCE = 1e-6
NOTE = "the linear injection contracts; the non-linear loop around it is measured, not proven"


def certify(model: Parcae, stored: StoredInjection | None) -> Certificate:
    """Compare what an artifact stores with the fp32 checkpoint model; `problems` says what is wrong."""
    injection = model.transformer["adapter"]
    if not isinstance(injection, DiagonalInjection):
        note = f"injection_type {model.config.injection_type!r} has no poles: no stability guarantee"
        return Certificate(max_decay=None, max_decay_checkpoint=None, injection_matrix_equal=None, note=note)
    expected = float(injection.decay().max())
    if stored is None:
        return Certificate(
            max_decay=None,
            max_decay_checkpoint=expected,
            injection_matrix_equal=None,
            problems=["certificate: the artifact's graphs consume no decay, dt and B"],
            note="not found in the artifact",
        )
    largest = float(stored.decay.max())
    equal = torch.equal(stored.matrix, injection.B.to(stored.matrix.dtype))
    problems = []
    if not largest < 1:
        problems.append(f"certificate: the greatest stored decay is {largest}, not below 1")
    for name, tensor, wanted in (("decay", stored.decay, injection.decay()), ("dt", stored.dt, injection.dt())):
        gap = float((tensor.float() - wanted).abs().max()) if tensor.shape == wanted.shape else float("inf")
        if tensor.dtype != torch.float32 or not gap <= TOLERANCE:
            problems.append(f"certificate: stored {name} ({tensor.dtype}) differs from the checkpoint's by {gap:.2g}")
    if not equal:
        problems.append("certificate: the stored injection matrix B is not the checkpoint's")
    return Certificate(
        max_decay=largest,
        max_decay_checkpoint=expected,
        injection_matrix_equal=equal,
        problems=problems,
        note=NOTE,
    )
