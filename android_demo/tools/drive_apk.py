"""Uses the code of a finished APK without a phone: its dex, Android's framework, and the desktop's onnxruntime.

    python android_demo/tools/drive_apk.py android_demo/build/parcae-demo.apk             # all tests of drive/
    python android_demo/tools/drive_apk.py android_demo/build/parcae-demo.apk ChatTest    # some

After `make test-android`, which does this too. The dex is turned back into classes, which run with the APK's own
resources, manifest and assets over the framework's real classes (Robolectric, on the JVM) and onnxruntime of the same
version. `drive/` has the tests. Pictures of the screens go to `build/pictures`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from build_apk import MAVEN, pinned
from check_apk import CheckError, output

DEMO = Path(__file__).resolve().parent.parent
BUILD, APP = DEMO / "build", DEMO / "app"
PROMPT, LOOPS = "import os\n\n\ndef ", (1, 4, 8)
SETTINGS = "com/android/tools/test_config.properties"  # where Robolectric looks for the APK


def expected_tokens() -> str:
    """This repository's own greedy answers, a line for each T."""
    told = json.loads((BUILD / "models" / "parcae-tiny.answers.json").read_text(encoding="utf-8"))
    cases = {case["case"]: case["turns"][0]["tokens"] for case in told["cases"]}
    return "\n".join(f"{loops}\t{','.join(map(str, cases[f'{PROMPT!r} at T={loops}']))}" for loops in LOOPS)


def native_libraries(folder: Path, platform: str) -> Path:
    """The desktop's onnxruntime of a platform such as `linux-x64`, from the package that the app was compiled with."""
    folder.mkdir()
    with zipfile.ZipFile(next((APP / "target" / "jars").glob("onnxruntime-*.jar"))) as package:
        for name in package.namelist():
            if name.startswith(f"ai/onnxruntime/native/{platform}/") and name.endswith(".so"):
                (folder / Path(name).name).write_bytes(package.read(name))
    return folder


def classes_of(apk: Path, work: Path) -> Path:
    """The dex of the APK as class files."""
    with zipfile.ZipFile(apk) as package:
        (work / "classes.dex").write_bytes(package.read("classes.dex"))
    raw, back, java = work / "raw.jar", work / "classes.jar", ["java", "-cp", BUILD / "jvm" / "dex" / "*"]
    output(*java, "com.googlecode.dex2jar.tools.Dex2jarCmd", "-f", "-dsn", "-o", raw, work / "classes.dex")
    output(*java, DEMO / "tools" / "MarkInterfaces.java", raw, back)
    return back


def framework() -> Path:
    """Android's framework, as the app was compiled against it."""
    return APP / "target" / "provided" / f"android-all-{pinned('android-all')}.jar"


def compile_driver(apk: Path, work: Path) -> Path:
    """The tests in `drive/`, and the settings that tell Robolectric where the APK is."""
    driver, path = work / "driver", f"{BUILD / 'jvm' / 'drive' / '*'}:{framework()}"
    output("javac", "-nowarn", "-proc:none", "-d", driver, "-cp", path, *sorted((DEMO / "drive").rglob("*.java")))
    settings = {
        "android_resource_apk": apk,
        "android_merged_manifest": APP / "src" / "main" / "AndroidManifest.xml",
        "android_custom_package": "dev.parcae.app",
    }
    (driver / SETTINGS).parent.mkdir(parents=True)
    text = "\n".join(f"{name}={value}" for name, value in settings.items())
    (driver / SETTINGS).write_text(text, encoding="utf-8")
    return driver


def drive(apk: Path, names: Sequence[str], work: Path) -> None:
    """Run the named tests of `drive/`, or all, on the APK; raises CheckError if one fails."""
    subprocess.run([*MAVEN, "-f", "tools/jvm", "package", "-P", "drive"], cwd=DEMO, check=True)
    (work / "expected").write_text(expected_tokens(), encoding="utf-8")
    driver = compile_driver(apk, work)
    names = names or [path.stem for path in sorted((DEMO / "drive").rglob("*Test.java"))]
    given = {
        "onnxruntime.native.path": native_libraries(work / "native", "linux-x64"),
        "parcae.models": BUILD / "models",
        "parcae.expected": work / "expected",
        "parcae.out": BUILD,
        "robolectric.offline": "true",
        "robolectric.dependency.dir": APP / "target" / "provided",
        "robolectric.usePreinstrumentedJars": "false",
        "java.io.tmpdir": work,
    }
    # dex2jar writes no stack maps, which Java's verifier wants; dx and Android have their own.
    unverified = ["-XX:+UnlockDiagnosticVMOptions", "-XX:-BytecodeVerificationRemote"]
    # Few direct bytes, so that a test can use them up.
    memory = ["-Xmx2g", "-XX:MaxDirectMemorySize=128m"]
    path = f"{driver}:{classes_of(apk, work)}:{BUILD / 'jvm' / 'drive' / '*'}:{framework()}"
    # Android's file descriptors are Java's with their numbers set.
    opened = ["--add-opens=java.base/java.io=ALL-UNNAMED", "--add-opens=java.base/java.nio=ALL-UNNAMED"]
    options = [*unverified, *memory, *opened, *(f"-D{name}={value}" for name, value in given.items())]
    done = subprocess.run(["java", *options, "-cp", path, "dev.parcae.drive.Drive", *names])
    if done.returncode:
        raise CheckError("the APK's code does not do what it should")


def main(apk: Path, names: Sequence[str] = ()) -> None:
    """Drive one APK in a folder that is gone afterwards."""
    work = Path(tempfile.mkdtemp(prefix="parcae-apk-"))
    try:
        drive(apk, names, work)
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]).resolve(), sys.argv[2:])
    except CheckError as error:
        print(f"drive_apk: {error}", file=sys.stderr)
        sys.exit(4)
