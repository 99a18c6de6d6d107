"""An `.npz` as artifacts carry it: read back as it was, with headers that do not depend on the Python that wrote it."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np

from parcae_mobile.arrays import read_arrays, write_arrays

ARRAYS = {"ids": np.arange(5), "logits_1": np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3)}


def test_arrays_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "golden.npz"
    with path.open("wb") as file:
        write_arrays(ARRAYS, file)
    for name, array in read_arrays(path, 10_000).items():
        assert array.dtype == ARRAYS[name].dtype and np.array_equal(array, ARRAYS[name])
    assert set(np.load(path).files) == set(ARRAYS)


def test_headers_say_no_time_and_need_no_zip64() -> None:
    file = io.BytesIO()
    write_arrays(ARRAYS, file)
    for record in zipfile.ZipFile(file).infolist():
        assert record.date_time == (1980, 1, 1, 0, 0, 0)
        assert record.extract_version == 20 and not record.extra
