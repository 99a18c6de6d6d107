"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from parcae_mobile.atomic import write_text, writing
from parcae_mobile.errors import InputError


def test_a_failure_in_the_middle_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "reference.npz"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match="half"), writing(path) as file:
        file.write(b"new, but only")
        raise ValueError("half")
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["reference.npz"]


def test_a_full_disk_is_one_line_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("old", encoding="utf-8")
    with pytest.raises(InputError, match="No space left"), writing(path):
        raise OSError(28, "No space left on device")
    assert path.read_text(encoding="utf-8") == "old" and os.listdir(tmp_path) == ["page.html"]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="missing"):
        write_text(tmp_path / "missing" / "page.html", "text")


def test_a_new_file_has_the_mode_that_the_user_asks_for(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "page.html", "text")
    finally:
        os.umask(before)
    assert (tmp_path / "page.html").stat().st_mode & 0o777 == 0o640
