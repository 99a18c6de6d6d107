"""`make android-demo`: the APK, from Maven Central and Debian packages, without Android Studio.

    python android_demo/tools/build_apk.py                 # android_demo/build/parcae-demo.apk
    python android_demo/tools/build_apk.py --aar onnxruntime-android-1.29.0.aar

Resources by aapt2, classes by Kotlin, ProGuard, `Desugar.java` and dx, a signature by a key that is made at the first
build. Where Maven Central does not serve onnxruntime-android, the APK has no native libraries, is named so, and cannot
run a model on a phone.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from apk_zip import write_aligned
from check_apk import size_table

DEMO = Path(__file__).resolve().parent.parent
BUILD, APP = DEMO / "build" / "apk", DEMO / "app"
FRAMEWORK = Path("/usr/share/android-framework-res/framework-res.apk")
MODEL = "parcae-tiny"
ABIS = ("arm64-v8a", "x86_64")
LEAST, TARGET = "26", "35"
MAVEN = ["mvn", "-B", "-ntp", "-q"]
JAVA = ["java", "-Xmx2g", "-cp", "build/jvm/dex/*"]
JDK = "openjdk-17-jdk-headless"
# Programs, and Debian's packages that have them.
TOOLS = {"javac": JDK, "keytool": JDK, "mvn": "maven", "aapt2": "aapt", "apksigner": "apksigner"}


def missing_packages() -> list[str]:
    """Debian packages that have to be installed first."""
    packages = {package for tool, package in TOOLS.items() if shutil.which(tool) is None}
    return sorted(packages if FRAMEWORK.is_file() else packages | {"android-framework-res"})


def run(*command: str | Path) -> None:
    """Run a tool in `android_demo/`; what it prints is shown only if it fails."""
    done = subprocess.run([str(part) for part in command], cwd=DEMO, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command[0]} failed:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")


def link_resources() -> Path:
    """Resources, manifest and the model as an APK without code, and `R.java` for the compiler."""
    sources = APP / "src" / "main"
    assets, generated = BUILD / "assets", APP / "target" / "generated-sources" / "r"
    shutil.rmtree(assets, ignore_errors=True)
    shutil.copytree(DEMO / "build" / "models" / MODEL, assets / "models" / MODEL)
    generated.mkdir(parents=True, exist_ok=True)
    run("aapt2", "compile", "--dir", sources / "res", "-o", BUILD / "res.zip")
    stored = [part for suffix in ("data", "onnx", "npz") for part in ("-0", suffix)]
    versions = ["--min-sdk-version", LEAST, "--target-sdk-version", TARGET]
    run(
        *("aapt2", "link", "-I", FRAMEWORK, "--manifest", sources / "AndroidManifest.xml", *versions),
        *("--java", generated, "-A", assets, *stored, "-o", BUILD / "base.apk", BUILD / "res.zip"),
    )
    return BUILD / "base.apk"


def dex() -> bytes:
    """The compiled classes of the app, and what they reach of its libraries, as `classes.dex`."""
    run(*MAVEN, "-f", "tools/jvm", "package", "-P", "dex")
    classes = "(!META-INF/**,**.class)"  # notices and the desktop's native libraries stay behind
    jars = [*sorted((APP / "target" / "jars").glob("*.jar")), *(APP / "target").glob("app-*.jar")]
    annotations = [jar for jar in jars if jar.name.startswith("annotations-")]  # for compilers, not for a phone
    rules = [f"-injars {jar}{classes}" for jar in jars if jar not in annotations]
    libraries = [*annotations, APP / "target" / "provided" / f"android-all-{pinned('android-all')}.jar"]
    modules = [f"<java.home>/jmods/java.{name}.jmod(!**.jar;!module-info.class)" for name in ("base", "logging")]
    rules += [f"-libraryjars {path}" for path in (*libraries, *modules)]
    shrunk, plain, out = BUILD / "shrunk.jar", BUILD / "plain.jar", BUILD / "classes.dex"
    rules += [f"-outjars {shrunk}", (DEMO / "tools" / "shrink.pro").read_text(encoding="utf-8")]
    shrunk.unlink(missing_ok=True)
    (BUILD / "shrink.pro").write_text("\n".join(rules), encoding="utf-8")
    run(*JAVA, "proguard.ProGuard", f"@{BUILD / 'shrink.pro'}")
    run(*JAVA, "tools/Desugar.java", shrunk, plain)
    run(*JAVA, "com.android.dx.command.Main", "--dex", f"--min-sdk-version={LEAST}", f"--output={out}", plain)
    return out.read_bytes()


def natives(aar: Path | None) -> dict[str, bytes]:
    """Native libraries of onnxruntime-android by their names in an APK; none where the package cannot be had."""
    if aar is None:
        version = pinned("onnxruntime")
        aar = BUILD / f"onnxruntime-android-{version}.aar"
        artifact = f"com.microsoft.onnxruntime:onnxruntime-android:{version}:aar"
        copy = [*MAVEN, "dependency:copy", f"-Dartifact={artifact}", f"-DoutputDirectory={BUILD}"]
        if not aar.is_file() and subprocess.run(copy, cwd=DEMO, capture_output=True).returncode:
            return {}
    with zipfile.ZipFile(aar) as package:
        return {
            f"lib/{abi}/{Path(name).name}": package.read(name)
            for abi in ABIS
            for name in package.namelist()
            if name.startswith(f"jni/{abi}/") and name.endswith(".so")
        }


def pinned(name: str) -> str:
    """The version that `pom.xml` pins, such as that of `onnxruntime`."""
    found = re.search(rf"<{name}\.version>([^<]+)</", (DEMO / "pom.xml").read_text(encoding="utf-8"))
    assert found is not None
    return found[1]


def sign(aligned: Path, out: Path) -> None:
    """Sign with a key that is made at the first build and never committed, and verify."""
    key, word = DEMO / "build" / "debug.jks", "android"
    if not key.is_file():
        name = ["-alias", "debug", "-dname", "CN=parcae-mobile demo"]
        strength = ["-keyalg", "RSA", "-keysize", "3072", "-validity", "10000"]
        run("keytool", "-genkeypair", "-keystore", key, "-storepass", word, "-keypass", word, *name, *strength)
    run("apksigner", "sign", "--ks", key, "--ks-pass", f"pass:{word}", "--out", out, aligned)
    run("apksigner", "verify", "--min-sdk-version", LEAST, out)


def pack(base: Path, aar: Path | None) -> Path:
    """Classes and natives into the APK of the resources; aligned, signed, verified, and its sizes printed."""
    libraries = natives(aar)
    out = DEMO / "build" / ("parcae-demo.apk" if libraries else "parcae-demo-without-natives.apk")
    write_aligned(base, {"classes.dex": dex(), **libraries}, BUILD / "aligned.apk")
    sign(BUILD / "aligned.apk", out)
    print(f"{out.relative_to(DEMO.parent)}, signed and verified:\n{size_table(out)}")
    if not libraries:
        print(
            f"android-demo: Maven Central did not serve onnxruntime-android {pinned('onnxruntime')} here, so this APK "
            "has no native libraries and cannot run a model on a phone: give the package by --aar FILE"
        )
    return out


def compile_app(*options: str) -> None:
    """Compile all modules, and test them unless the options say otherwise; jars lie in `app/target` afterwards."""
    for classes in DEMO.glob("*/target/classes"):  # the compiler leaves those of sources that are gone
        shutil.rmtree(classes)
    subprocess.run([*MAVEN, "-P", "app", "verify", f"-Dparcae.python={sys.executable}", *options], cwd=DEMO, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--aar", type=Path, help="onnxruntime-android's AAR where Maven Central does not serve it")
    arguments = parser.parse_args()
    if arguments.aar is not None and not zipfile.is_zipfile(arguments.aar):
        parser.error(f"{arguments.aar} is no AAR; give the file onnxruntime-android-{pinned('onnxruntime')}.aar")
    packages = missing_packages()
    if packages:
        print(f"android-demo needs: apt-get install {' '.join(packages)}", file=sys.stderr)
        sys.exit(5)
    subprocess.run([sys.executable, str(DEMO / "tools" / "prepare_models.py")], check=True)
    BUILD.mkdir(parents=True, exist_ok=True)
    base = link_resources()
    compile_app("-DskipTests")
    pack(base, arguments.aar)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
