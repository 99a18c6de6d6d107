"""The readers as functions of bytes, for property tests and for the fuzzer: each returns, or raises an error of ours.

TARGETS["manifest"](data)                              # anything but a ParcaeError that comes out is a fault
"""

from __future__ import annotations

import contextlib
import functools
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from export.bench.rows import read_table
from export.targets.coreml.mil.interpreter import MilProgram
from parcae_mobile import load_model
from parcae_mobile.app_checks import read_app_manifest
from parcae_mobile.config import ParcaeConfig
from parcae_mobile.errors import ParcaeError
from parcae_mobile.golden import load_reference
from parcae_mobile.manifest import MANIFEST, read_manifest
from quantize import load_recipe
from tests.attacks import base, files, manifests, mil_packages, mil_programs, pickles
from tests.conftest import SMALL
from tests.manifest_values import manifest_values

Reader = Callable[[bytes], None]


@functools.cache
def scratch() -> Path:
    """A folder for the file that is read."""
    return Path(tempfile.mkdtemp(prefix="parcae-fuzz-"))


def forget() -> None:
    """Remove it."""
    shutil.rmtree(scratch(), ignore_errors=True)
    scratch.cache_clear()


def of_file(name: str, read: Callable[[Path], object]) -> Reader:
    """A reader of one file."""

    def run(data: bytes) -> None:
        path = scratch() / name
        path.write_bytes(data)
        with contextlib.suppress(ParcaeError):
            read(path)

    return run


@functools.cache
def _folder(name: str) -> Path:
    place = scratch() / f"folder-{name}"
    place.mkdir()
    return base.checkpoint(place, name=name)


def weights(name: str) -> Reader:
    """A reader of a checkpoint whose weights are the bytes."""

    def run(data: bytes) -> None:
        folder = _folder(name)
        (folder / name).write_bytes(data)
        with contextlib.suppress(ParcaeError):
            load_model(folder)

    return run


def mil(data: bytes) -> None:
    """A package whose program is the bytes: opened, and run where it can be."""
    place = scratch() / "mil"
    if not place.exists():
        place.mkdir()
        mil_programs.packaged(mil_packages.reads([8]), mil_packages.weight_file())(place)
    package = place / "net.mlpackage"
    (package / "Data" / "com.apple.CoreML" / "model.mlmodel").write_bytes(data)
    try:
        program = MilProgram.open(package)
        program.predict({"x": torch.ones(1, 8)}, program.make_state(), loop_limit=50, bounded=True)
    except ParcaeError:
        pass


def app(data: bytes) -> None:
    """An app's manifest."""
    with contextlib.suppress(ParcaeError):
        read_app_manifest(data.decode("utf-8", "replace"))


TARGETS: dict[str, Reader] = {
    "config": of_file("config.json", ParcaeConfig.from_file),
    "manifest": of_file(MANIFEST, lambda path: read_manifest(path.parent)),
    "app": app,
    "recipe": of_file("recipe.toml", load_recipe),
    "reference": of_file("reference.npz", load_reference),
    "table": of_file("bench.json", read_table),
    "safetensors": weights("model.safetensors"),
    "pickle": weights("pytorch_model.bin"),
    "mil": mil,
}


def program(build: mil_programs.Build) -> bytes:
    """The bytes of a program, without its package."""
    package = mil_programs.Package()
    build(package)
    return bytes(package.spec.SerializeToString())


@functools.cache
def seeds() -> dict[str, list[bytes]]:
    """Good files to start from."""
    return {
        "config": [json.dumps(SMALL).encode()],
        "manifest": [json.dumps(manifest_values()).encode()],
        "app": [json.dumps(manifests.BASE).encode()],
        "recipe": [(files.BUDGET + files.RULE).encode()],
        "reference": [files.reference()],
        "table": [json.dumps({"runs": {"1": files.RUN}, "rows": [{**files.ROW, "speeds": [files.SPEED]}]}).encode()],
        "safetensors": [base.weights()],
        "pickle": [pickles.saved(base.tensors()), pickles.saved(base.tensors(), legacy=True)],
        "mil": [program(mil_packages.reads([8])), program(mil_programs.loop), program(lambda p: p.add("relu", "y", [1, 8], x="x"))],
    }
