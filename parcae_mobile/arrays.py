"""Arrays of an `.npz` file that somebody else made: sizes are checked before memory is taken, nothing is unpickled.

    write_arrays(arrays, file)                                     # the same bytes from every Python
    arrays = read_arrays(folder / "golden.npz", most=64_000_000)

An archive of a kilobyte can unpack to gigabytes, and an array's header can state any shape. Here the header has to be
what the record's stated size is, and all records together have a bound.
"""

from __future__ import annotations

import io
import math
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

MOST_RECORDS = 1000
HEADER = 10_000  # bytes that an array's header may take
# What numpy and zipfile raise for a file that is cut off or overwritten.
DAMAGED = (
    OSError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
    SyntaxError,
    tokenize.TokenError,
    MemoryError,
    OverflowError,
    zipfile.BadZipFile,
    zlib.error,
)


def write_arrays(arrays: Mapping[str, np.ndarray], file: IO[bytes], compression: int = zipfile.ZIP_STORED) -> None:
    """An `.npz`. Of `numpy.savez` the headers differ between Python 3.11.2 and 3.11.7."""
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, array in arrays.items():
            record = io.BytesIO()
            npy.write_array(record, np.asanyarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), record.getvalue(), compression)


def read_arrays(path: Path, most: int) -> dict[str, np.ndarray]:
    """Arrays by name, of at most `most` bytes together. Raises one of `DAMAGED` for anything else."""
    if not path.is_file():
        raise FileNotFoundError("no such file" if not path.exists() else "no regular file")
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
        if len(records) > MOST_RECORDS or len({record.filename for record in records}) < len(records):
            raise ValueError("too many records, or two of one name")
        if sum(record.file_size for record in records) > most:
            raise ValueError(f"more than {most} bytes of arrays")
        return {record.filename.removesuffix(".npy"): _read(archive, record) for record in records}


def _read(archive: zipfile.ZipFile, record: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(record) as file:
        version = npy.read_magic(file)
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
        if read is None:
            raise ValueError(f"{record.filename}: an array of format {version}")
        shape, fortran, dtype = read(file)
        if dtype.hasobject or dtype.kind not in "biufSU":
            raise ValueError(f"{record.filename}: values of type {dtype}")
        size = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or not 0 <= record.file_size - size <= HEADER:
            raise ValueError(f"{record.filename}: shape {shape} in a record of {record.file_size} bytes")
        data = file.read(size)
        if len(data) != size or file.read(1):
            raise ValueError(f"{record.filename}: cut off")
    array = np.frombuffer(bytearray(data), dtype)
    return array.reshape(shape, order="F" if fortran else "C")
