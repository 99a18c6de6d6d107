"""The host for an ONNX artifact, by what its manifest says.

host = open_host(folder, manifest, threads=1)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from export.targets.host import CacheGeometry, Host
from export.targets.onnx.runtime.host import OnnxHost
from export.targets.onnx.runtime.last_position import LastPositionHost
from export.targets.onnx.runtime.portable import PortableHost

if TYPE_CHECKING:
    from parcae_mobile.manifest import Manifest


def open_host(folder: Path, manifest: Manifest, threads: int = 0) -> Host:
    """The artifact of a folder on this machine's CPU."""
    geometry, form = CacheGeometry.from_manifest(manifest), manifest.loop_form
    graphs = {int(loops): name for loops, name in manifest.graphs.items()}
    if not graphs and manifest.loops != "dynamic":
        graphs = {manifest.loops: "model.onnx"}
    host: OnnxHost
    if manifest.portable:
        host = PortableHost(folder, form, geometry, threads, graphs=graphs, compute=manifest.compute)
    else:
        halves = bool(manifest.quantization.halves)
        host = OnnxHost(folder, form, geometry, threads, manifest.kv.dtype, graphs, halves=halves)
    return LastPositionHost(host) if manifest.last_logits else host
