"""Attacks on Core ML packages: their programs, weight files, manifests, and what lies on the disk."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from export.targets.coreml.mil.errors import (
    BlobError,
    MilError,
    PackageError,
)
from tests.attacks.base import NOT_JSON, STRANGE
from tests.attacks.case import Case
from tests.attacks.mil_programs import PROGRAMS, Build, Package, execute, packaged


def weight_file(size: int = 32, start: int = 128, code: int = 2, sentinel: int = 0xDEADBEEF, version: int = 2) -> bytes:
    """A weight file of one blob of eight floats, or of what it claims to be."""
    head = struct.pack("<II", 1, version) + b"\0" * 56
    return head + struct.pack("<IIQQQ", sentinel, code, size, start, 0) + b"\0" * 32 + b"\0" * 32


def reads(shape: list[int | None], offset: int = 64) -> Build:
    def build(package: Package) -> None:
        package.blob("w", shape, "@model_path/weights/weight.bin", offset)
        package.add("add", "y", [1, 8], x="x", y="w")

    return build


WEIGHTS: list[tuple[str, Build, bytes]] = [
    ("nothing", reads([8]), b""),
    ("ten bytes", reads([8]), b"\0" * 10),
    ("a later version", reads([8]), weight_file(version=9)),
    ("no mark", reads([8]), weight_file(sentinel=0)),
    ("another type", reads([8]), weight_file(code=1)),
    ("another size", reads([8]), weight_file(size=16)),
    ("a size of 2^63", reads([8]), weight_file(size=2**63)),
    ("a payload beyond the file", reads([8]), weight_file(start=2**40)),
    ("a payload at the end of all numbers", reads([8]), weight_file(start=2**64 - 16)),
    ("an offset beyond the file", reads([8], 2**40), weight_file()),
    ("an odd offset", reads([8], 65), weight_file()),
    ("an offset of zero", reads([8], 0), weight_file()),
    ("a shape of 2^60", reads([2**60]), weight_file()),
    ("a shape of 2^63", reads([2**63]), weight_file()),
    ("a shape whose product overflows", reads([2**40, 2**40]), weight_file()),
]


def manifest(value: Any) -> Callable[[Path], Path]:
    """A whole package whose Manifest.json is another one."""

    def make(folder: Path) -> Path:
        place = packaged(lambda p: p.add("relu", "y", [1, 8], x="x"))(folder)
        (place / "Manifest.json").write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
        return place

    return make


def rooted(path: Any) -> dict[str, Any]:
    return {"itemInfoEntries": {"M": {"path": path}}, "rootModelIdentifier": "M"}


ROOTS: list[tuple[str, Any]] = [
    ("no entries", {"rootModelIdentifier": "M"}),
    ("no root", {"itemInfoEntries": {}}),
    ("a root that is not there", {"itemInfoEntries": {}, "rootModelIdentifier": "M"}),
    ("entries that are a list", {"itemInfoEntries": [], "rootModelIdentifier": "M"}),
    ("a root that is a list", {"itemInfoEntries": {}, "rootModelIdentifier": ["M"]}),
    ("a model above", rooted("../../evil")),
    ("a model at an absolute place", rooted("/etc/passwd")),
    ("a model of a zero byte", rooted("a\0b")),
    ("a model of a long name", rooted("x" * 100_000)),
    ("a model that is a folder", rooted("com.apple.CoreML")),
    ("a model that is a number", rooted(7)),
]


def inside(change: Callable[[Path], Any]) -> Callable[[Path], Path]:
    """A whole package, changed on the disk."""

    def make(folder: Path) -> Path:
        place = packaged(reads([8]), weight_file())(folder)
        change(place)
        return place

    return make


def at(name: str, put: Callable[[Path], Any]) -> Callable[[Path], Any]:
    def change(place: Path) -> None:
        (place / "Data" / "com.apple.CoreML" / name).unlink()
        put(place / "Data" / "com.apple.CoreML" / name)

    return change


def moved(place: Path) -> None:
    """The folder of data is a link to another place."""
    (place / "Data").rename(place.parent / "elsewhere")
    (place / "Data").symlink_to("../elsewhere")


def outside(place: Path) -> None:
    """The weights are a link to a file outside."""
    weights = place / "Data" / "com.apple.CoreML" / "weights" / "weight.bin"
    weights.rename(place.parent / "elsewhere.bin")
    weights.symlink_to(place.parent / "elsewhere.bin")


MODEL, WEIGHT = "model.mlmodel", "weights/weight.bin"
CASES = [
    *(Case(f"a package with {name}", packaged(build), execute, error) for name, build, error in PROGRAMS),
    *(Case(f"a weight file with {name}", packaged(build, data), execute, MilError) for name, build, data in WEIGHTS),
    *(Case(f"a package's manifest with {name}", manifest(value), execute, PackageError) for name, value in ROOTS),
    *(
        Case(f"a package's manifest is {name}", manifest(data), execute, PackageError)
        for name, data in NOT_JSON.items()
    ),
    *(Case(f"a package's model is {n}", inside(at(MODEL, p)), execute, PackageError) for n, p in STRANGE.items()),
    *(Case(f"a package's weights are {n}", inside(at(WEIGHT, p)), execute, BlobError) for n, p in STRANGE.items()),
    Case(
        "a package's model is no protobuf",
        inside(at(MODEL, lambda p: p.write_bytes(b"\xff" * 999))),
        execute,
        PackageError,
    ),
    Case(
        "a package's model is nested",
        inside(at(MODEL, lambda p: p.write_bytes(b"\x12\x7f" * 5000))),
        execute,
        PackageError,
    ),
    Case("a package whose data lies elsewhere", inside(moved), execute, PackageError),
    Case("a package whose weights lie elsewhere", inside(outside), execute, BlobError),
]
