"""Looks into a finished APK, and drives its code without a phone; `make test-android` does both.

    python android_demo/tools/check_apk.py android_demo/build/parcae-demo.apk

The shipped dex is turned back into classes, which run over the small framework in `drive/shim` (not Android's own) and
the desktop's onnxruntime of the same version. So what is proven is the APK's code, not Android's behaviour.
"""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from apk_zip import alignment, stored_offsets

DEMO = Path(__file__).resolve().parent.parent
BUILD = DEMO / "build"
ALLOWED = re.compile(
    r"AndroidManifest\.xml|resources\.arsc|classes\.dex|res/drawable/icon\.xml|assets/models/parcae-tiny/[\w.]+|"
    r"lib/(arm64-v8a|x86_64)/lib(onnxruntime|onnxruntime4j_jni)\.so|META-INF/(DEBUG\.(SF|RSA)|MANIFEST\.MF)"
)
PAGE = 16384
PROMPT, LOOPS = "import os\n\n\ndef ", (1, 4, 8)
STRING = re.compile(r'resource (0x[0-9a-f]+) string/\w+\s+\(\) "(.*?)"(?=\n\s+resource|\n\s*type|\s*\Z)', re.DOTALL)


class CheckError(Exception):
    """What does not hold, in a sentence."""


def missing_packages() -> list[str]:
    """Debian packages that have to be installed first."""
    return [] if shutil.which("dexdump") else ["dexdump"]


def hold(holds: bool, what: str) -> None:
    if not holds:
        raise CheckError(what)


def check_contents(apk: Path) -> int:
    """Only known files, stored ones aligned, libraries for 16 KB pages; returns the count of native libraries."""
    with zipfile.ZipFile(apk) as package:
        names = package.namelist()
        foreign = [name for name in names if not ALLOWED.fullmatch(name)]
        hold(not foreign, f"{apk.name} holds {', '.join(foreign)}, which nobody allowed")
        libraries = [name for name in names if name.endswith(".so")]
        for name in libraries:
            hold(least_segment(package.read(name)) >= PAGE, f"{name}: its segments are not aligned to 16 KB")
    for name, offset in stored_offsets(apk).items():
        hold(offset % alignment(name) == 0, f"{name} begins at {offset}, which is no multiple of {alignment(name)}")
    return len(libraries)


def least_segment(library: bytes) -> int:
    """The smallest alignment of the segments that a 64-bit little-endian ELF library loads."""
    hold(library[:6] == b"\x7fELF\x02\x01", "not a 64-bit ELF file")
    (start,), (size, count) = struct.unpack_from("<Q", library, 32), struct.unpack_from("<HH", library, 54)
    kinds = [struct.unpack_from("<I44xQ", library, start + place * size) for place in range(count)]
    return min(align for kind, align in kinds if kind == 1)


def output(*command: str | Path) -> str:
    """What a tool prints."""
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True).stdout


def check_manifest(apk: Path) -> None:
    """No permission of any kind, and the versions that the page about the app names."""
    told = output("aapt2", "dump", "badging", apk)
    hold("uses-permission" not in told, "the APK asks for a permission")
    hold("sdkVersion:'26'" in told and "targetSdkVersion:'35'" in told, "the APK names other Android versions")


def check_dex(classes: Path) -> None:
    """No invokedynamic, which Android links, but without Java's LambdaMetafactory."""
    told = output("dexdump", "-d", classes)
    hold("invoke-" in told and "invoke-custom" not in told, "the dex has lambdas by invokedynamic")


def expected_tokens() -> str:
    """This repository's own greedy answers, a line for each T."""
    told = json.loads((BUILD / "models" / "parcae-tiny.answers.json").read_text(encoding="utf-8"))
    cases = {case["case"]: case["turns"][0]["tokens"] for case in told["cases"]}
    return "\n".join(f"{loops}\t{','.join(map(str, cases[f'{PROMPT!r} at T={loops}']))}" for loops in LOOPS)


def native_libraries(folder: Path, platform: str) -> Path:
    """The desktop's onnxruntime of a platform such as `linux-x64`, from the package that the app was compiled with."""
    folder.mkdir()
    with zipfile.ZipFile(next((DEMO / "app/target/jars").glob("onnxruntime-*.jar"))) as package:
        for name in package.namelist():
            if name.startswith(f"ai/onnxruntime/native/{platform}/") and name.endswith(".so"):
                (folder / Path(name).name).write_bytes(package.read(name))
    return folder


def prepare(apk: Path, work: Path) -> list[str]:
    """The dex as classes, the driver, and what both need, in `work`; returns Java's arguments but for the natives."""
    with zipfile.ZipFile(apk) as package:
        (work / "classes.dex").write_bytes(package.read("classes.dex"))
    check_dex(work / "classes.dex")
    back, driver, tools = work / "classes.jar", work / "driver", BUILD / "jvm" / "dex" / "*"
    java = ["java", "-cp", tools]
    output(*java, "com.googlecode.dex2jar.tools.Dex2jarCmd", "-f", "-dsn", "-o", work / "raw.jar", work / "classes.dex")
    output(*java, DEMO / "tools" / "MarkInterfaces.java", work / "raw.jar", back)
    output("javac", "-nowarn", "-d", driver, *sorted((DEMO / "drive").rglob("*.java")))
    texts = STRING.findall(output("aapt2", "dump", "resources", apk))
    hold(len(texts) > 40, "the APK's strings cannot be read")
    lines = ["\t".join((number, text.replace("\n      ", "\\n"))) for number, text in texts]
    (work / "strings").write_text("\n".join(lines), encoding="utf-8")
    (work / "expected").write_text(expected_tokens(), encoding="utf-8")
    given = [apk, work / "files", work / "strings", work / "expected", BUILD / "models" / "parcae-tiny"]
    # dex2jar writes no stack maps, which Java's verifier wants; dx and Android have their own.
    unverified = ["-XX:+UnlockDiagnosticVMOptions", "-XX:-BytecodeVerificationRemote"]
    # Few direct bytes, so that the driver can use them up.
    memory = ["-Xmx1g", "-XX:MaxDirectMemorySize=128m"]
    return [*unverified, *memory, "-cp", f"{driver}:{back}", "DriveApk", *map(str, given)]


def check(apk: Path) -> None:
    """Everything; raises CheckError for the first thing that does not hold."""
    libraries = check_contents(apk)
    check_manifest(apk)
    work = Path(tempfile.mkdtemp(prefix="parcae-apk-"))
    try:
        arguments = prepare(apk, work)
        native = native_libraries(work / "native", "linux-x64")
        done = subprocess.run(["java", f"-Donnxruntime.native.path={native}", *arguments])
        hold(done.returncode == 0, "the APK's code does not do what it should")
    finally:
        shutil.rmtree(work)
    print(f"{apk.name}: contents, alignment, no permission, no invokedynamic; {libraries} native libraries")


if __name__ == "__main__":
    try:
        check(Path(sys.argv[1]).resolve())
    except CheckError as error:
        print(f"check_apk: {error}", file=sys.stderr)
        sys.exit(4)
