"""Looks into a finished APK: files, alignment, permissions, versions, a dex that Android can link; then its sizes.

    python android_demo/tools/check_apk.py android_demo/build/parcae-demo.apk

`drive_apk.py` then runs its code.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

from apk_zip import alignment, stored_offsets

ALLOWED = re.compile(
    r"AndroidManifest\.xml|resources\.arsc|classes\.dex|res/drawable/icon\.xml|assets/models/parcae-tiny/[\w.]+|"
    r"lib/(arm64-v8a|x86_64)/lib(onnxruntime|onnxruntime4j_jni)\.so|META-INF/(DEBUG\.(SF|RSA)|MANIFEST\.MF)"
)
PAGE = 16384


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


def check_dex(apk: Path) -> None:
    """No invokedynamic, which Android links, but without Java's LambdaMetafactory."""
    told = output("dexdump", "-d", apk)
    hold("invoke-" in told and "invoke-custom" not in told, "the dex has lambdas by invokedynamic")


def size_table(apk: Path) -> str:
    """What the APK's bytes are, as Markdown: natives, dex, model, and the rest: resources, zip headers, signature."""
    groups = {"natives": 0, "dex": 0, "model": 0}
    with zipfile.ZipFile(apk) as package:
        for item in package.infolist():
            for start, group in {"lib/": "natives", "classes": "dex", "assets/models/": "model"}.items():
                groups[group] += item.compress_size if item.filename.startswith(start) else 0
    groups["rest"] = apk.stat().st_size - sum(groups.values())
    groups["the APK"] = apk.stat().st_size
    rows = [f"| {name} | {size:,} |" for name, size in groups.items()]
    return "\n".join(["| part | bytes, compressed |", "|---|---|", *rows])


def check(apk: Path) -> None:
    """Everything; raises CheckError for the first thing that does not hold."""
    libraries = check_contents(apk)
    check_manifest(apk)
    check_dex(apk)
    print(f"{apk.name}: contents, alignment, no permission, no invokedynamic; {libraries} native libraries")


if __name__ == "__main__":
    try:
        check(Path(sys.argv[1]).resolve())
        print(size_table(Path(sys.argv[1])))
    except CheckError as error:
        print(f"check_apk: {error}", file=sys.stderr)
        sys.exit(4)
