"""Artifact folders appear whole or not at all."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from export.artifact import publish as publish_module
from export.artifact.publish import check_output, failed_folder, publish, staging
from parcae_mobile.errors import InputError, OutputExistsError
from parcae_mobile.manifest import MANIFEST

ROOT = Path(__file__).parents[3]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def artifact(folder: Path) -> Path:
    folder.mkdir()
    (folder / MANIFEST).write_text("{}", encoding="utf-8")
    return folder


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
    final = artifact(tmp_path / "artifact")
    with staging(final) as folder:
        (folder / "new").write_bytes(b"x")
        publish(folder, final)
    assert names(tmp_path) == ["artifact"] and names(final) == ["new"]


def test_a_system_that_cannot_exchange_folders_replaces_them_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish_module, "_exchange", lambda first, second: False)
    final = artifact(tmp_path / "artifact")
    with staging(final) as folder:
        (folder / "new").write_bytes(b"x")
        publish(folder, final)
    assert names(tmp_path) == ["artifact"] and names(final) == ["new"]


@pytest.mark.parametrize("failed", [False, True])
def test_a_folder_that_is_no_artifact_is_never_replaced(tmp_path: Path, failed: bool) -> None:
    final = tmp_path / "artifact"
    place = failed_folder(final) if failed else final
    place.mkdir()
    (place / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputExistsError, match="no artifact folder"):
        check_output(final, force=True)
    with pytest.raises(OutputExistsError, match="no artifact folder"), staging(place) as folder:
        publish(folder, place)
    assert names(place) == ["thesis.txt"]


def test_what_a_killed_process_left_is_removed_by_the_next_export(tmp_path: Path) -> None:
    final = tmp_path / "artifact"
    code = (
        "import os, signal, sys; from pathlib import Path; from export.artifact.publish import staging\n"
        "with staging(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'half').write_bytes(b'x'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(final)], cwd=ROOT, check=False)
    assert [name for name in names(tmp_path) if name.endswith(".partial")]
    with staging(final) as folder:
        assert names(tmp_path) == [folder.name]
        publish(folder, final)
    assert names(tmp_path) == ["artifact"]


def test_the_work_of_another_living_process_is_left_alone(tmp_path: Path) -> None:
    final = tmp_path / "artifact"
    with staging(final) as first, staging(final) as second:
        assert {first.name, second.name} <= set(names(tmp_path))


def test_an_old_artifact_that_a_killed_process_moved_away_comes_back(tmp_path: Path) -> None:
    final = tmp_path / "artifact"
    artifact(tmp_path / ".artifact.abc.old")
    with pytest.raises(RuntimeError), staging(final):
        raise RuntimeError
    assert names(tmp_path) == ["artifact"] and names(final) == [MANIFEST]


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    final = tmp_path / "artifact"
    with pytest.raises(InputError, match="no space left"), staging(final) as folder:
        (folder / "half").write_bytes(b"x")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert names(tmp_path) == []


def test_a_published_folder_has_the_mode_that_the_user_asks_for(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        with staging(tmp_path / "artifact") as folder:
            publish(folder, tmp_path / "artifact")
    finally:
        os.umask(before)
    assert (tmp_path / "artifact").stat().st_mode & 0o777 == 0o700


def test_an_existing_output_needs_force(tmp_path: Path) -> None:
    final = artifact(tmp_path / "artifact")
    check_output(tmp_path / "new", force=False)
    check_output(final, force=True)
    with pytest.raises(OutputExistsError, match="--force"):
        check_output(final, force=False)


def test_a_place_that_cannot_be_written_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(InputError, match="cannot write to"), staging(tmp_path / "file" / "artifact"):
        raise AssertionError("never entered")


def test_failed_artifacts_have_a_name_of_their_own(tmp_path: Path) -> None:
    assert failed_folder(tmp_path / "a-onnx-T4-int8").name == "a-onnx-T4-int8.failed"
