"""An artifact as one JSON object: what `--json` says of it, from its manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from parcae_mobile.manifest import Manifest


def describe(path: Path, manifest: Manifest) -> dict[str, Any]:
    """What `--json` says of any artifact."""
    files = {name: entry.model_dump() for name, entry in manifest.files.items()}
    reference = manifest.reference
    return {
        "artifact": str(path),
        "model": manifest.model,
        "target": manifest.target,
        "loops": manifest.loops,
        "min_loops": manifest.min_loops,
        "max_loops": manifest.max_loops,
        "closed": manifest.closed,
        "graphs": manifest.graphs,
        "portable": manifest.portable,
        "loop_form": manifest.loop_form,
        "quant": manifest.quantization.recipe,
        "recipe_sha256": manifest.quantization.recipe_sha256,
        "own_budget": manifest.quantization.own_budget,
        "algorithm": manifest.quantization.algorithm,
        "compute": manifest.compute,
        "files": files,
        "digest": manifest.files_digest,
        "bytes_total": sum(entry["bytes"] for entry in files.values()),
        "lowering": manifest.lowering.model_dump(mode="json"),
        "compression": manifest.compression.model_dump(mode="json"),
        "certificate": manifest.certificate.model_dump(),
        "kv": manifest.kv.model_dump(),
        "delegation": {
            name: part.model_dump() | {"macs_share": part.macs_share, "operators_share": part.operators_share}
            for name, part in manifest.delegation.items()
        },
        "reference": None if reference is None else reference.model_dump(mode="json"),
        "verified_by": manifest.verified_by,
    }
