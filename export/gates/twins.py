"""What stands beside an artifact in its gate: itself without rounding, and as other tools rewrite it.

    exact = open_exact(target, folder, manifest, quantized, cache, host)
    rewritten = open_rewritten(target, rewriting, to, manifest, quantized, cache)

Each is a host with the eager model that it is compared with, and the name of the bounds that hold for the two.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from export.beside import Answer
from export.targets.host import Host
from export.targets.registry import Target, load_exact, load_host
from parcae_mobile.kv_cache import CacheSpec
from parcae_mobile.manifest import Manifest
from parcae_mobile.model import Parcae
from quantize.apply import QuantizedModel

INT8_CACHE = "fp32, int8 cache"
ROUNDED_ALIKE = "rounded alike"  # no bounds but directions: see directions.py


@dataclass(frozen=True)
class Exact:
    """An artifact with rounding out of the way, and the eager model that has the values it stores."""

    host: Host
    model: Parcae
    cache: CacheSpec
    budget: str  # of FUNCTION, or ROUNDED_ALIKE where the host rounds still and the model rounds as it does


@dataclass(frozen=True)
class Rewritten:
    """The artifact as tools that re-process it may write it: as published, and without rounding if that is another."""

    by: str
    twins: tuple[Exact, ...]


def budget_name(compute: str, kv_dtype: str) -> str:
    """The budget of a published artifact by what it computes in and what its cache holds."""
    if compute == "fp32" and kv_dtype in ("fp16", "int8"):
        return f"fp32, {kv_dtype} cache"
    return compute


def open_exact(
    target: Target, folder: Path, manifest: Manifest, quantized: QuantizedModel, cache: CacheSpec, host: Host
) -> Exact | None:
    """The artifact without its rounding; None where `host` rounds nothing itself and lets its loop be tried from far.

    An int8 cache stays one, because its kernels know no other. An fp16 cache is widened with the rest.
    """
    if manifest.compute == "fp32" and manifest.kv.dtype != "fp16" and host.takes_state:
        return None
    module = load_exact(target)
    if module.STILL_ROUNDS:
        rounded = module.reference(quantized, manifest.compute)
        return None if manifest.compute == "fp32" else Exact(host, rounded, cache, ROUNDED_ALIKE)
    int8 = manifest.kv.dtype == "int8"
    spec = cache if int8 else replace(cache, dtype="fp32")
    exact = module.open_exact(folder, manifest, 1)
    return Exact(exact, module.reference(quantized, manifest.compute), spec, INT8_CACHE if int8 else "fp32")


def open_rewritten(
    target: Target,
    rewriting: Answer[str | None],
    to: Path,
    manifest: Manifest,
    quantized: QuantizedModel,
    cache: CacheSpec,
) -> Rewritten | None:
    """The artifact that `rewriting` writes into `to`; None where nothing rewrites this target's artifacts."""
    by = rewriting()
    if by is None:
        return None
    host = load_host(target)(to, manifest, 1)
    published = Exact(host, quantized.model, cache, budget_name(manifest.compute, manifest.kv.dtype))
    exact = open_exact(target, to, manifest, quantized, cache, host)
    if exact is None or manifest.compute == manifest.kv.dtype == "fp32":
        return Rewritten(by, (published,))
    return Rewritten(by, (published, exact))
