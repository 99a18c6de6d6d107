"""The manifest: a closed set of files under safe names, a strict schema, and JSON that never varies."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parcae_mobile.errors import ChecksumError, ManifestError
from parcae_mobile.manifest import MANIFEST, Manifest, hash_files, read_manifest, verify_files
from tests.manifest_values import manifest_values


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An artifact folder of three files."""
    folder = tmp_path / "artifact"
    (folder / "model.mlpackage").mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"graph")
    (folder / "weights.data").write_bytes(bytes(range(256)))
    (folder / "model.mlpackage" / "Manifest.json").write_bytes(b"{}")
    write(folder, files={name: entry.model_dump() for name, entry in hash_files(folder).items()})
    return folder


def write(folder: Path, **changes: Any) -> None:
    (folder / MANIFEST).write_text(json.dumps(manifest_values(**changes)), encoding="utf-8")


def rename_in_manifest(folder: Path, old: str, new: str) -> None:
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    manifest["files"][new] = manifest["files"].pop(old)
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")


def test_a_folder_that_is_what_its_manifest_says_passes(folder: Path) -> None:
    assert sorted(verify_files(folder).files) == ["model.mlpackage/Manifest.json", "model.onnx", "weights.data"]


@pytest.mark.parametrize("at", [0, 100, 255])
def test_one_altered_byte_is_found(folder: Path, at: int) -> None:
    content = bytearray((folder / "weights.data").read_bytes())
    content[at] ^= 1
    (folder / "weights.data").write_bytes(content)
    with pytest.raises(ChecksumError, match="weights.data does not match its SHA-256"):
        verify_files(folder)


def test_a_truncated_a_missing_and_an_added_file_are_named(folder: Path) -> None:
    (folder / "weights.data").write_bytes(b"short")
    with pytest.raises(ChecksumError, match="weights.data has 5 bytes, the manifest says 256"):
        verify_files(folder)
    (folder / "weights.data").unlink()
    with pytest.raises(ChecksumError, match="weights.data is missing"):
        verify_files(folder)
    (folder / "weights.data").write_bytes(bytes(range(256)))
    for name in ("extra.txt", "model.mlpackage/extra.bin", ".hidden"):
        (folder / name).write_bytes(b"")
        with pytest.raises(ChecksumError, match=f"{name} is not in the manifest"):
            verify_files(folder)
        (folder / name).unlink()
    verify_files(folder)


def test_two_swapped_files_are_found(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"other")
    with pytest.raises(ChecksumError, match="model.onnx"):
        verify_files(folder)


@pytest.mark.parametrize("name", ["model.onnx", "link-to-folder", MANIFEST])
def test_links_are_refused_wherever_they_lead(folder: Path, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    if name == "link-to-folder":
        outside.mkdir()
    else:
        outside.write_bytes((folder / name).read_bytes())
        (folder / name).unlink()
    os.symlink(outside, folder / name)
    with pytest.raises(ManifestError, match="is a link"):
        verify_files(folder)


@pytest.mark.parametrize(
    "name",
    ["../x", "a/../x", "/etc/passwd", "..", ".", "", "a//b", "a\\b", "..\\x", "C:\\x", "C:/x", "./a", "a/", "~/x"]
    + ["a\x00b", "a\nb", "\u202ea", MANIFEST, "-rf", ".hidden"],
)
def test_a_manifest_may_not_name_such_a_file(folder: Path, name: str) -> None:
    rename_in_manifest(folder, "model.onnx", name)
    with pytest.raises(ManifestError, match="not a relative path inside of the folder"):
        verify_files(folder)


@given(st.text(alphabet=st.sampled_from("ab._-/\\:~ \x00é"), max_size=8) | st.text(max_size=12))
def test_every_accepted_path_stays_inside_of_the_folder(path: str) -> None:
    entry = {path: {"bytes": 1, "sha256": "0" * 64}}
    try:
        manifest = Manifest.model_validate(manifest_values(files=entry))
    except ValueError:
        return
    (accepted,) = manifest.files
    assert not accepted.startswith(("/", ".", "~")) and "\\" not in accepted and "\x00" not in accepted
    assert all(part not in ("", ".", "..") for part in accepted.split("/"))
    root = Path("/somewhere/artifact")
    assert Path(os.path.normpath(root / accepted)).is_relative_to(root)


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"colour": "red"}, "colour"),
        ({"format": 2}, "format"),
        ({"loops": "many"}, "loops"),
        ({"max_loops": 0}, "max_loops"),
        ({"initial_state": "random"}, "initial_state"),
        ({"memory_bytes": -1}, "memory_bytes"),
        ({"kv": {"policy": "full"}}, "kv"),
        ({"loop_form": "unknown"}, "loop_form"),
        ({"compute": "fp8"}, "compute"),
        ({"geometry": {**manifest_values()["geometry"], "layers": {"prelude": 1}}}, "geometry.layers"),
        ({"files": {"a": {"bytes": -1, "sha256": "0" * 64}}}, "files.a.bytes"),
        ({"files": {"a": {"bytes": 1, "sha256": "xyz"}}}, "files.a.sha256"),
        ({"files": {"a": {"bytes": 1, "sha256": "0" * 64, "mode": 7}}}, "files.a.mode"),
        ({"files": []}, "files"),
    ],
)
def test_a_field_that_breaks_the_schema_is_named(folder: Path, changes: dict[str, Any], place: str) -> None:
    write(folder, **changes)
    with pytest.raises(ManifestError, match=place) as caught:
        read_manifest(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"5", b"null", b"\xff\xfe", b"{}", b"[" * 5000])
def test_a_manifest_that_is_no_manifest_is_refused(folder: Path, content: bytes) -> None:
    (folder / MANIFEST).write_bytes(content)
    with pytest.raises(ManifestError, match=MANIFEST):
        read_manifest(folder)


def test_a_missing_folder_and_a_missing_manifest_are_told_apart(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no such artifact folder"):
        read_manifest(tmp_path / "nowhere")
    (folder / MANIFEST).unlink()
    with pytest.raises(ManifestError, match="did not finish"):
        read_manifest(folder)


def test_every_prefix_of_a_manifest_is_refused(folder: Path) -> None:
    content = (folder / MANIFEST).read_bytes()
    for cut in range(0, len(content) - 1, 64):
        (folder / MANIFEST).write_bytes(content[:cut])
        with pytest.raises(ManifestError):
            read_manifest(folder)


def test_json_is_the_same_whatever_the_order_of_the_fields() -> None:
    ordered = manifest_values(tools={"a": "1", "b": "2"})
    turned = dict(reversed(ordered.items())) | {"tools": {"b": "2", "a": "1"}}
    first, second = Manifest.model_validate(ordered).to_json(), Manifest.model_validate(turned).to_json()
    assert first == second
    assert Manifest.model_validate_json(first).to_json() == first


def test_figures_that_are_not_finite_are_written_as_null() -> None:
    broken = {"passed": False, "by_loops": {"1": {"kl_mean": float("inf"), "errors": [float("nan"), 1.0]}}}
    written = json.loads(Manifest.model_validate(manifest_values(lowering=broken)).to_json())
    assert written["lowering"]["by_loops"]["1"] == {"kl_mean": None, "errors": [None, 1.0]}
