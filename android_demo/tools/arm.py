"""Runs the engine's tests on Arm: onnxruntime's library for 64-bit Arm Linux, under a Java for Arm, under qemu.

    python android_demo/tools/arm.py                       # as on a processor of today
    python android_demo/tools/arm.py --cpu cortex-a53      # Armv8.0: no atomics of Armv8.1, no dot products

After `make test-android`; needs Debian's qemu-user-static. The Java is downloaded to `android_demo/build/arm` (270 MB).
It is not Android's library, but the same kernels' code for the same instruction set.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from drive_apk import native_libraries

DEMO = Path(__file__).resolve().parent.parent
ARM = DEMO / "build" / "arm"
JAVA = "usr/lib/jvm/java-17-openjdk-arm64/bin/java"
SUITE = "dev.parcae.ort.OrtEngineTest"


def download_java(root: Path) -> None:
    """Debian's Java for arm64 with all that it needs, unpacked and not installed."""
    state, cache = ARM / "state", ARM / "cache"
    (state / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    (cache / "archives" / "partial").mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    folders = {"Dir::State": state, "Dir::State::status": state / "status", "Dir::Cache": cache}
    apart = [f"-o{name}={folder}" for name, folder in folders.items()] + ["-oAPT::Sandbox::User=root"]
    apt = ["apt-get", "-qq", "-oAPT::Architecture=arm64", "-oAPT::Architectures=arm64", *apart]
    subprocess.run([*apt, "update"], check=True)
    packages = ["openjdk-17-jre-headless", "libstdc++6"]
    subprocess.run([*apt, "install", "-y", "--download-only", "--no-install-recommends", *packages], check=True)
    for package in sorted((cache / "archives").glob("*.deb")):
        subprocess.run(["dpkg", "-x", str(package), str(root)], check=True)


def write_processors(root: Path) -> None:
    """What Linux on Arm says of its processors, where the guest looks first: qemu 7 shows those of the host, and
    onnxruntime's cpuinfo crashes over them."""
    facts = {"CPU implementer": "0x41", "CPU architecture": "8", "CPU variant": "0x0", "CPU part": "0xd03"}
    entries = [{"processor": str(number)} | facts | {"CPU revision": "4"} for number in range(os.cpu_count() or 1)]
    (root / "proc").mkdir(exist_ok=True)
    text = "\n".join("".join(f"{name}\t: {value}\n" for name, value in entry.items()) for entry in entries)
    (root / "proc" / "cpuinfo").write_text(text, encoding="utf-8")


def class_path() -> str:
    """Classes of the engine and its tests, what they need, and the runner."""
    runner = ARM / "runner"
    junit = sorted(Path.home().glob(".m2/repository/org/junit/**/junit-*-5.14.4.jar"))
    junit += sorted(Path.home().glob(".m2/repository/org/opentest4j/**/*.jar"))
    needed = [*junit, *Path.home().glob(".m2/repository/org/junit/platform/**/junit-platform-commons-1.14.4.jar")]
    paths = ":".join(map(str, needed))
    subprocess.run(["javac", "-d", runner, "-cp", paths, DEMO / "tools" / "RunTests.java"], check=True)
    built = [DEMO / "engine-ort" / "target" / name for name in ("classes", "test-classes")]
    return ":".join(map(str, [runner, *built, *sorted((DEMO / "app/target/jars").glob("*.jar")), *needed]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cpu", default="max", help="a processor that qemu-aarch64-static knows (default: max)")
    cpu = parser.parse_args().cpu
    emulator = shutil.which("qemu-aarch64-static")
    if emulator is None or shutil.which("apt-get") is None:
        print("arm.py needs Debian, and: apt-get install qemu-user-static", file=sys.stderr)
        sys.exit(5)
    root, native = ARM / "root", ARM / "native"
    if not (root / JAVA).exists():
        download_java(root)
    write_processors(root)
    shutil.rmtree(native, ignore_errors=True)
    native_libraries(native, "linux-aarch64")
    told = {"kit": DEMO.parent / "app_kit", "models": DEMO / "build" / "models"}
    java = [str(root / JAVA), "-Xmx1g", f"-XX:ErrorFile={ARM}/error.log", f"-Donnxruntime.native.path={native}"]
    java += [f"-Dparcae.{name}={path}" for name, path in told.items()]
    command = [emulator, "-cpu", cpu, "-L", str(root), *java, "-cp", class_path(), "RunTests", SUITE]
    sys.exit(subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}).returncode)


if __name__ == "__main__":
    main()
