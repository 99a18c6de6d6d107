"""Exports the models that the app is tested with, bundles them, and writes this repository's own answers beside them.

    python android_demo/tools/prepare_models.py            # android_demo/build/models/; again only if sources change

`parcae-tiny` is what the APK carries: int4 weights, activations in fp32, so that greedy tokens are the same on every
device.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

DEMO = Path(__file__).resolve().parent.parent
ROOT = DEMO.parent
MODELS, ARTIFACTS = DEMO / "build" / "models", DEMO / "build" / "artifacts"
STAMP = MODELS / ".sources"
# Name in the app: arguments of the export. Gates are run for the one that is shipped; tests judge the others.
WANTED = {
    "parcae-tiny": ["--quant", "int4", "--compute", "fp32"],
    "parcae-tiny-fp32-shared": ["--quant", "fp32", "--kv", "shared", "--no-verify"],
    "parcae-tiny-fp32-full": ["--quant", "fp32", "--kv", "full", "--no-verify"],
}


def sources() -> str:
    """SHA-256 over everything that decides what an export holds."""
    digest = hashlib.sha256()
    for package in ("parcae_mobile", "quantize", "export", "android_demo/tools"):
        for path in sorted((ROOT / package).rglob("*")):
            if path.is_file() and path.suffix != ".pyc":
                digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def command(*arguments: str) -> None:
    """Run parcae-export of this environment."""
    tool = Path(sys.executable).with_name("parcae-export")
    subprocess.run([str(tool), *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def prepare(name: str, arguments: list[str]) -> None:
    """One model: export, bundle, answers."""
    out = ARTIFACTS / name
    shutil.rmtree(out, ignore_errors=True)
    command("--target", "onnx", "--loops", "dynamic", *arguments, "--out", str(out), "--threads", "1", "--quiet")
    artifact = next(out.iterdir())
    command("bundle", str(artifact), "--app", str(MODELS), "--platform", "android", "--name", name, "--threads", "1")
    answers = subprocess.run(
        [sys.executable, str(DEMO / "tools" / "answers.py"), str(artifact)], cwd=ROOT, check=True, capture_output=True
    )
    (MODELS / f"{name}.answers.json").write_bytes(answers.stdout)


def main() -> None:
    key = sources()
    if STAMP.is_file() and STAMP.read_text() == key:
        return
    shutil.rmtree(MODELS, ignore_errors=True)
    MODELS.mkdir(parents=True)
    for name, arguments in WANTED.items():
        print(f"android: preparing {name}", flush=True)
        prepare(name, arguments)
    STAMP.write_text(key)


if __name__ == "__main__":
    main()
