"""What an app of each platform can run, and how its runtime has to be set."""

from __future__ import annotations

from dataclasses import dataclass

from parcae_mobile.app_manifest import Platform
from parcae_mobile.errors import UsageError
from parcae_mobile.manifest import Manifest


@dataclass(frozen=True)
class Needs:
    """What is added to the bytes of an artifact: the runtime where it is counted in, and what estimates leave out."""

    runtime_bytes: int
    overhead_percent: int


# A browser's runtime lies in the same memory as the model, and that memory grows in steps and never shrinks: measured
# heaps of the 140M shape are within these figures (docs/apps.md). On phones the runtime's own pages are not counted.
NEEDS: dict[Platform, Needs] = {"web": Needs(17_000_000, 30), "android": Needs(0, 10), "ios": Needs(0, 10)}
FOLDS = {
    "session.disable_quant_qdq": "1"
}  # onnxruntime-web: portable matrices become fp32 at load, 5 to 8 times faster
ACCURACY = {"fp32": "1", "int8": "4"}


def check_platform(manifest: Manifest, platform: Platform) -> None:
    """Raise `UsageError` with the reason if an app of this platform cannot run the artifact."""
    reason = refusal(manifest, platform)
    if reason is not None:
        raise UsageError(f"{manifest.artifact} cannot go into {platform} apps: {reason}")


def refusal(manifest: Manifest, platform: Platform) -> str | None:
    """Why not, and what to export in its place; None if it can."""
    target, form = manifest.target, manifest.loop_form
    if platform == "ios":
        return None if target == "coreml" else "they run Core ML packages; export with --target coreml"
    if platform == "web":
        if target != "onnx":
            return "browsers run ONNX; export with --target onnx --portable"
        if form != "stages":
            return f"they run the loop themselves (form stages, this is {form}); export with --loops dynamic"
        return None
    if target == "coreml":
        return "Core ML is Apple's; export with --target onnx or executorch"
    if target == "onnx" and form == "scan" and manifest.compute == "int8":
        return "onnxruntime 1.28 crashes on Arm in int8 products inside of a Scan; export with --loop-form stages"
    return None


def settings(manifest: Manifest, platform: Platform) -> dict[str, str]:
    """Session entries of onnxruntime that give the arithmetic which the artifact was judged with."""
    if manifest.target != "onnx" or not manifest.portable:
        return {}
    if platform == "web":
        return FOLDS
    return {"session.qdq_matmulnbits_accuracy_level": ACCURACY[manifest.compute]}


def token_parity(manifest: Manifest, platform: Platform) -> bool:
    """Whether greedy tokens are the same on every device: nothing is rounded to fewer bits while computing."""
    if manifest.kv.dtype != "fp32":
        return False
    in_browser = platform == "web"  # its kernels leave activations in fp32 whatever the artifact allows
    return manifest.compute == "fp32" or (in_browser and manifest.compute == "int8")
