"""Puts the models that the app is tested with into its folder, and this repository's own answers beside them.

    python android_demo/tools/prepare_models.py            # android_demo/build/models/; make test-android runs it

`parcae-tiny` is what the APK carries: int4 weights, activations in fp32, so that greedy tokens are the same on every
device. It is done again only where an artifact changed.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

DEMO = Path(__file__).resolve().parent.parent
ROOT = DEMO.parent
MODELS, ARTIFACTS = DEMO / "build" / "models", ROOT / "build" / "app"
STAMP = MODELS / ".sources"
# Name in the app: an artifact that the Makefile exports.
WANTED = {
    "parcae-tiny": "exact/parcae-tiny-onnx-dynamic-int4",
    "parcae-tiny-fp32-shared": "shared/parcae-tiny-onnx-dynamic-fp32",
    "parcae-tiny-fp32-full": "full/parcae-tiny-onnx-dynamic-fp32",
    "parcae-tiny-pte": "pte/parcae-tiny-executorch-dynamic-int4",
}


def sources() -> str:
    """SHA-256 over everything that decides what the app's folder holds."""
    paths = [ARTIFACTS / artifact / "manifest.json" for artifact in WANTED.values()]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise SystemExit(f"{missing[0].parent} is missing: run make test-android, which exports it")
    paths += sorted((ROOT / "export" / "bundle").glob("*.py"))
    paths += [DEMO / "tools" / name for name in ("prepare_models.py", "answers.py")]
    paths += [ROOT / "parcae_mobile" / "app_manifest.py"]
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def prepare(name: str, artifact: Path) -> None:
    """One model: bundled, and the answers to it."""
    tool = Path(sys.executable).with_name("parcae-export")
    put = ["bundle", str(artifact), "--app", str(MODELS), "--platform", "android", "--name", name, "--threads", "1"]
    subprocess.run([str(tool), *put], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    answers = [sys.executable, str(DEMO / "tools" / "answers.py"), str(artifact)]
    told = subprocess.run(answers, cwd=ROOT, check=True, capture_output=True).stdout
    (MODELS / f"{name}.answers.json").write_bytes(told)


def main() -> None:
    key = sources()
    if STAMP.is_file() and STAMP.read_text() == key:
        return
    shutil.rmtree(MODELS, ignore_errors=True)
    MODELS.mkdir(parents=True)
    for name, artifact in WANTED.items():
        prepare(name, ARTIFACTS / artifact)
    STAMP.write_text(key)


if __name__ == "__main__":
    main()
