"""Checks of a finished artifact folder: files, schema, certificate, and a self-test through the host runtime.

report = verify_artifact(folder)                       # raises if anything is not what the manifest says
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from export.gates.lowering import BUDGETS
from export.gates.twins import budget_name
from export.targets.registry import find_target, load_host, load_target
from parcae_mobile.arrays import DAMAGED, read_arrays
from parcae_mobile.errors import GateError, InputError, reason_of
from parcae_mobile.golden import MOST_BYTES
from parcae_mobile.manifest import Manifest, verify_files
from parcae_mobile.parity import Distance, compare

SELF_TEST = ("max_abs", "kl_mean", "top1", "cosine")


@dataclass
class VerifyReport:
    """What was checked and measured."""

    manifest: Manifest
    self_test: dict[int, Distance]

    def to_json(self) -> dict[str, Any]:
        return {
            "files_checked": len(self.manifest.files),
            "self_test": {str(loops): distance.to_dict() for loops, distance in self.self_test.items()},
        }


def verify_artifact(folder: Path, threads: int = 0) -> VerifyReport:
    """Files against the manifest, the stored injection against the certificate, logits against `golden.npz`.

    Raises `ManifestError` or `ChecksumError` for the folder, `GateError` if it computes something else than it states.
    """
    manifest = verify_files(folder)
    target = find_target(manifest.target)
    stored = load_target(target).read_injection(folder)
    stated = manifest.certificate.max_decay
    if stated is not None and (stored is None or abs(float(stored.decay.max()) - stated) > 1e-6):
        raise GateError(f"{folder}: the stored decay is not the certificate's {stated}")
    golden = _golden(folder, manifest)
    host = load_host(target)(folder, manifest, threads)
    distances: dict[int, Distance] = {}
    for name in sorted(golden):
        if name.startswith("logits_"):
            loops = int(name.removeprefix("logits_"))
            host.reset()
            logits = host.run(golden["input_ids"].tolist(), loops, golden["positions"].tolist())
            distances[loops] = compare(torch.from_numpy(golden[name]), torch.from_numpy(logits))
    budget = BUDGETS[budget_name(manifest.compute, manifest.kv.dtype)]
    failures = _failures(distances, {loops: widened(budget, manifest, loops) for loops in distances})
    if failures:
        raise GateError(f"{folder}: self-test failed ({failures[0]}); this machine computes something else")
    return VerifyReport(manifest, distances)


def _golden(folder: Path, manifest: Manifest) -> dict[str, np.ndarray]:
    path = folder / "golden.npz"
    if not path.exists():
        raise InputError(f"{folder} has no golden.npz to test itself with; export it again")
    try:
        golden = read_arrays(path, MOST_BYTES)
        _check_golden(golden, manifest)
    except DAMAGED as error:
        raise InputError(f"{path}: not readable ({reason_of(error)}); export the artifact again") from None
    return golden


def _check_golden(golden: dict[str, np.ndarray], manifest: Manifest) -> None:
    """Raise `ValueError` unless the arrays are what the artifact's self-test reads."""
    ids, positions = golden["input_ids"], golden["positions"]
    if any(part.ndim != 1 or part.dtype.kind != "i" or not part.size for part in (ids, positions)):
        raise ValueError("input_ids and positions must be whole numbers in a row")
    shape = (len(positions), manifest.geometry.padded_vocab_size)
    counts = {name: int(name.removeprefix("logits_")) for name in golden if name.startswith("logits_")}
    if not counts:
        raise ValueError("no logits")
    for name, count in counts.items():
        if golden[name].shape != shape or golden[name].dtype != np.float32:
            raise ValueError(f"{name} is {golden[name].dtype} {golden[name].shape}, not float32 {shape}")
        if not 1 <= count <= manifest.max_loops:
            raise ValueError(f"{name}: the artifact has 1 to {manifest.max_loops} loops")
        if not np.isfinite(golden[name]).all():
            raise ValueError(f"{name} holds NaN or infinite values")


def widened(budget: dict[str, float], manifest: Manifest, loops: int) -> dict[str, float]:
    """Bounds as the export's gate widened them by the model's own rounding noise, where it did.

    Top-1 is asked only where the gate asked it.
    """
    asked, allowed = manifest.lowering.budget, manifest.lowering.by_loops.get(str(loops), {}).get("allowed", {})
    bounds = {key: bound for key, bound in budget.items() if key in asked or key != "top1" or not asked}
    return {key: max(bound, allowed.get(key, bound)) for key, bound in bounds.items()}


def _failures(distances: dict[int, Distance], budgets: dict[int, dict[str, float]]) -> list[str]:
    lines = []
    for loops, distance in distances.items():
        for key, bound in budgets[loops].items():
            if key not in SELF_TEST:
                continue
            value = distance.to_dict()[key]
            # A rate over a few positions may miss its bound by one of them.
            allowed = bound - 1.5 / distance.positions if key == "top1" else bound
            if key == "kl_mean":
                allowed = 4 * bound  # a mean over few positions scatters
            if (value < allowed) if key in ("top1", "cosine") else (value > allowed):
                lines.append(f"T={loops}: {key} {value:.3g}, bound {bound:.3g}")
    return lines
