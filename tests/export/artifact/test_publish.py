"""Artifact folders appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from export.artifact.publish import check_output, failed_folder, publish, staging
from parcae_mobile.errors import InputError, OutputExistsError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_complete_folder_is_renamed(tmp_path: Path) -> None:
    final = tmp_path / "deep" / "artifact"
    with staging(final) as folder:
        (folder / "model.onnx").write_bytes(b"x")
        assert not final.exists() and folder.parent == final.parent
        publish(folder, final)
    assert names(final.parent) == ["artifact"] and names(final) == ["model.onnx"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_of_work_that_did_not_finish(tmp_path: Path, error: type[BaseException]) -> None:
    final = tmp_path / "artifact"
    final.mkdir()
    (final / "old").write_bytes(b"old")
    with pytest.raises(error), staging(final) as folder:
        (folder / "half").write_bytes(b"x")
        raise error
    assert names(tmp_path) == ["artifact"] and names(final) == ["old"]


def test_a_replaced_folder_keeps_nothing_of_the_old_one(tmp_path: Path) -> None:
    final = tmp_path / "artifact"
    final.mkdir()
    (final / "old").write_bytes(b"old")
    with staging(final) as folder:
        (folder / "new").write_bytes(b"x")
        publish(folder, final)
    assert names(tmp_path) == ["artifact"] and names(final) == ["new"]


def test_an_existing_output_needs_force(tmp_path: Path) -> None:
    check_output(tmp_path / "new", force=False)
    check_output(tmp_path, force=True)
    with pytest.raises(OutputExistsError, match="--force"):
        check_output(tmp_path, force=False)


def test_a_place_that_cannot_be_written_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(InputError, match="cannot write to"), staging(tmp_path / "file" / "artifact"):
        raise AssertionError("never entered")


def test_failed_artifacts_have_a_name_of_their_own(tmp_path: Path) -> None:
    assert failed_folder(tmp_path / "a-onnx-T4-int8").name == "a-onnx-T4-int8.failed"
