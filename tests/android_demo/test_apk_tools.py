"""The APK's zip file is laid out as Android maps it, and the checks of a finished APK refuse what they should."""

from __future__ import annotations

import importlib
import struct
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "android_demo" / "tools"


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    monkeypatch.setattr(sys, "path", [str(TOOLS), *sys.path])
    return {name: importlib.import_module(name) for name in ("apk_zip", "build_apk", "check_apk")}


def elf(alignment: int) -> bytes:
    """A 64-bit library with one loaded segment of an alignment."""
    head = b"\x7fELF\x02\x01".ljust(32, b"\0") + struct.pack("<Q", 64) + bytes(14) + struct.pack("<HH", 56, 1)
    return head.ljust(64, b"\0") + struct.pack("<I44xQ", 1, alignment)


def package(path: Path, entries: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as target:
        for name, data in entries.items():
            target.writestr(name, data)
    return path


def test_stored_files_start_on_words_and_libraries_on_pages(tmp_path: Path, tools: dict[str, ModuleType]) -> None:
    base = package(tmp_path / "base.apk", {"AndroidManifest.xml": b"m" * 7, "resources.arsc": b"r"})
    more = {"lib/arm64-v8a/libonnxruntime.so": elf(16384), "classes.dex": b"dex\n" * 100}
    tools["apk_zip"].write_aligned(base, more, tmp_path / "out.apk")
    offsets = tools["apk_zip"].stored_offsets(tmp_path / "out.apk")
    assert offsets["lib/arm64-v8a/libonnxruntime.so"] % 16384 == 0
    assert all(offset % 4 == 0 for offset in offsets.values()) and len(offsets) == 3
    with zipfile.ZipFile(tmp_path / "out.apk") as out:
        assert out.testzip() is None
        assert out.read("classes.dex") == more["classes.dex"]
    data = (tmp_path / "out.apk").read_bytes()
    assert data[offsets["AndroidManifest.xml"] :][:7] == b"m" * 7
    assert tools["check_apk"].check_contents(tmp_path / "out.apk") == 1


def test_two_builds_give_the_same_bytes(tmp_path: Path, tools: dict[str, ModuleType]) -> None:
    base = package(tmp_path / "base.apk", {"resources.arsc": b"r" * 13})
    for name in ("one.apk", "two.apk"):
        tools["apk_zip"].write_aligned(base, {"classes.dex": b"dex"}, tmp_path / name)
    assert (tmp_path / "one.apk").read_bytes() == (tmp_path / "two.apk").read_bytes()


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ({"assets/notes.txt": b"x"}, "assets/notes.txt, which nobody allowed"),
        ({"lib/arm64-v8a/libonnxruntime.so": elf(4096)}, "segments are not aligned to 16 KB"),
        ({"lib/arm64-v8a/libonnxruntime.so": b"MZ" + bytes(70)}, "not a 64-bit ELF file"),
        ({"lib/arm64-v8a/libonnxruntime.so": elf(16384)}, "no multiple of 16384"),
    ],
)
def test_what_an_apk_must_not_be_is_refused(
    tmp_path: Path, tools: dict[str, ModuleType], entries: dict[str, bytes], reason: str
) -> None:
    apk = package(tmp_path / "made.apk", entries)
    with pytest.raises(tools["check_apk"].CheckError, match=reason):
        tools["check_apk"].check_contents(apk)


def test_the_size_table_adds_up_to_the_file(tmp_path: Path, tools: dict[str, ModuleType]) -> None:
    library, weights = "lib/x86_64/libonnxruntime.so", "assets/models/m/weights.data"
    apk = package(tmp_path / "made.apk", {library: bytes(50), "classes.dex": bytes(70), weights: bytes(900)})
    rows = [line.strip("| ").split(" | ") for line in tools["check_apk"].size_table(apk).splitlines()[2:]]
    sizes = {name: int(size.replace(",", "")) for name, size in rows}
    assert sizes["natives"] == 50 and sizes["dex"] == 70 and sizes["model"] == 900
    assert sizes.pop("the APK") == apk.stat().st_size == sum(sizes.values())


def test_natives_of_an_aar_get_their_places_and_no_other_architecture(
    tmp_path: Path, tools: dict[str, ModuleType]
) -> None:
    names = ["arm64-v8a/libonnxruntime.so", "x86_64/libonnxruntime4j_jni.so", "armeabi-v7a/libonnxruntime.so"]
    aar = package(tmp_path / "onnxruntime.aar", {f"jni/{name}": elf(16384) for name in names})
    libraries = tools["build_apk"].natives(aar)
    assert sorted(libraries) == ["lib/arm64-v8a/libonnxruntime.so", "lib/x86_64/libonnxruntime4j_jni.so"]
