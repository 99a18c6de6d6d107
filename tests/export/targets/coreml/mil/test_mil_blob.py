"""weight.bin: our reader against the official one, and what it refuses."""

from __future__ import annotations

import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from export.targets.coreml.mil.dtypes import BOOL, BY_NAME
from export.targets.coreml.mil.errors import BlobError
from export.targets.coreml.mil.files.blob import BlobFile, decode, packed_bytes

NARROW = ["int4", "uint1", "uint2", "uint3", "uint4", "uint6"]
WHOLE = {
    "int8": "int8", "uint8": "uint8", "int16": "int16", "uint16": "uint16", "int32": "int32", "uint32": "uint32",
    "fp32": "float32", "fp16": "float16",
}  # fmt: skip
FIRST = 64  # offset of a file's first record


def write(mil: SimpleNamespace, path: Path, name: str, array: np.ndarray) -> int:
    method = {"fp32": "float"}.get(name, name)
    payload = array.view(np.uint16) if name == "fp16" else array
    writer = mil.Writer(str(path))
    offset = getattr(writer, f"write_{method}_data")(np.ascontiguousarray(payload))
    del writer  # flushes
    return int(offset)


def official(mil: SimpleNamespace, path: Path, name: str, offset: int) -> np.ndarray:
    method = {"fp32": "float"}.get(name, name)
    array = np.array(getattr(mil.Reader(str(path)), f"read_{method}_data")(offset))
    return array.view(np.float16) if name == "fp16" else array


@pytest.mark.parametrize("name", sorted(WHOLE))
@pytest.mark.parametrize("count", [1, 5, 64, 1000])
def test_whole_byte_types_read_like_the_official_reader(
    mil: SimpleNamespace, tmp_path: Path, name: str, count: int
) -> None:
    rng = np.random.default_rng(count)
    info = np.iinfo(WHOLE[name]) if name[0] in "iu" else None
    array = rng.integers(info.min, info.max, count, endpoint=True) if info else rng.standard_normal(count)
    array = array.astype(WHOLE[name])
    offset = write(mil, tmp_path / "w.bin", name, array)
    ours = BlobFile(tmp_path / "w.bin").read(offset, BY_NAME[name], (count,))
    assert ours.tolist() == array.tolist()
    assert ours.tolist() == official(mil, tmp_path / "w.bin", name, offset).tolist()
    assert ours.dtype == BY_NAME[name].carrier


@pytest.mark.parametrize("name", NARROW)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_packed_types_read_like_the_official_reader(
    mil: SimpleNamespace, narrow: Any, tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    dtype = BY_NAME[name]
    values = data.draw(st.lists(st.integers(dtype.low, dtype.high), min_size=1, max_size=70))
    path = tmp_path_factory.mktemp("blob") / "w.bin"
    offset = write(mil, path, name, narrow(name, values))
    ours = BlobFile(path).read(offset, dtype, (len(values),))
    assert ours.tolist() == values
    assert ours.tolist() == np.array(official(mil, path, name, offset), dtype=np.int16).tolist()


def test_several_blobs_of_one_file_are_found_by_their_offsets(mil: SimpleNamespace, tmp_path: Path) -> None:
    arrays = [np.arange(n, dtype=np.float32) + n for n in (3, 100, 17)]
    writer = mil.Writer(str(tmp_path / "w.bin"))
    offsets = [writer.write_float_data(array) for array in arrays]
    del writer
    file = BlobFile(tmp_path / "w.bin")
    for offset, array in zip(offsets, arrays, strict=True):
        assert file.read(offset, BY_NAME["fp32"], array.shape).tolist() == array.tolist()


def test_shape_is_row_major(mil: SimpleNamespace, narrow: Any, tmp_path: Path) -> None:
    offset = write(mil, tmp_path / "w.bin", "uint3", narrow("uint3", np.arange(6)))
    assert BlobFile(tmp_path / "w.bin").read(offset, BY_NAME["uint3"], (2, 3)).tolist() == [[0, 1, 2], [3, 4, 5]]


def test_writing_to_a_payload_does_not_reach_the_file(mil: SimpleNamespace, tmp_path: Path) -> None:
    offset = write(mil, tmp_path / "w.bin", "fp32", np.ones(8, np.float32))
    before = (tmp_path / "w.bin").read_bytes()
    BlobFile(tmp_path / "w.bin").read(offset, BY_NAME["fp32"], (8,)).fill_(7)
    assert (tmp_path / "w.bin").read_bytes() == before


@pytest.fixture
def floats(mil: SimpleNamespace, tmp_path: Path) -> Path:
    """A file with one blob: 20 fp32 ones."""
    assert write(mil, tmp_path / "weight.bin", "fp32", np.ones(20, np.float32)) == FIRST
    return tmp_path / "weight.bin"


def patched(path: Path, offset: int, data: bytes) -> BlobFile:
    content = bytearray(path.read_bytes())
    content[offset : offset + len(data)] = data
    path.write_bytes(content)
    return BlobFile(path)


@pytest.mark.parametrize(
    ("offset", "data", "message"),
    [
        (FIRST, b"\0\0\0\0", "no blob record"),
        (FIRST + 4, struct.pack("<I", 1), "data type 1"),
        (FIRST + 8, struct.pack("<Q", 76), "76 bytes"),
        (FIRST + 16, struct.pack("<Q", 10**6), "truncated"),
        (FIRST + 24, struct.pack("<Q", 3), "takes 80"),
    ],
)
def test_a_damaged_record_is_named(floats: Path, offset: int, data: bytes, message: str) -> None:
    with pytest.raises(BlobError, match=message) as caught:
        patched(floats, offset, data).read(FIRST, BY_NAME["fp32"], (20,))
    assert "weight.bin" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("offset", [0, 63, 65, 10**9])
def test_an_offset_that_can_hold_no_record_is_refused(floats: Path, offset: int) -> None:
    with pytest.raises(BlobError, match="no blob record"):
        BlobFile(floats).read(offset, BY_NAME["fp32"], (20,))


def test_the_program_must_ask_for_what_the_blob_is(floats: Path) -> None:
    file = BlobFile(floats)
    with pytest.raises(BlobError, match="takes 84"):
        file.read(FIRST, BY_NAME["fp32"], (21,))
    with pytest.raises(BlobError, match="wants fp16"):
        file.read(FIRST, BY_NAME["fp16"], (40,))


def test_a_truncated_file_is_refused(floats: Path) -> None:
    floats.write_bytes(floats.read_bytes()[:-9])
    with pytest.raises(BlobError, match="truncated"):
        BlobFile(floats).read(FIRST, BY_NAME["fp32"], (20,))


@pytest.mark.parametrize(("content", "message"), [(b"", "empty"), (b"\0" * 10, "too few"), (b"\1" * 64, "version")])
def test_a_file_that_is_no_weight_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "w.bin").write_bytes(content)
    with pytest.raises(BlobError, match=message):
        BlobFile(tmp_path / "w.bin")


def test_bools_are_bytes_of_zero_and_one() -> None:
    assert decode(b"\0\1\1", BOOL, (3,)).tolist() == [False, True, True]
    with pytest.raises(BlobError, match="stored as 2"):
        decode(b"\0\2", BOOL, (2,))


@given(st.sampled_from(NARROW), st.integers(0, 200))
def test_packed_size_is_whole_bytes(name: str, count: int) -> None:
    dtype = BY_NAME[name]
    assert packed_bytes(count, dtype) == -(-count * dtype.bits // 8)
    assert decode(bytes(packed_bytes(count, dtype)), dtype, (count,)).tolist() == [0] * count


def test_wide_unsigned_values_survive() -> None:
    assert decode(struct.pack("<2I", 2**32 - 1, 1), BY_NAME["uint32"], (2,)).tolist() == [2**32 - 1, 1]
    assert decode(struct.pack("<2H", 65535, 1), BY_NAME["uint16"], (2,)).dtype is torch.int32


def resident(path: Path) -> int:
    """Kilobytes of a mapped file that this process has in memory."""
    inside, total = False, 0
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        if "-" in line.split()[0]:
            inside = line.endswith(str(path))
        elif inside and line.startswith("Rss:"):
            total += int(line.split()[1])
    return total


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux says which pages are in memory")
def test_digests_and_payloads_that_are_given_back_take_no_memory(mil: SimpleNamespace, tmp_path: Path) -> None:
    path = tmp_path / "w.bin"
    array = np.random.default_rng(0).integers(-128, 127, 4_000_000, endpoint=True).astype(np.int8)
    offset = write(mil, path, "int8", array)
    file = BlobFile(path)
    digest = file.digest(offset)
    assert resident(path) < 200
    values = file.read(offset, BY_NAME["int8"], (4_000_000,))
    assert int(values.long().sum()) == int(array.astype(np.int64).sum()) and resident(path) > 3000
    file.give_back(offset)
    assert resident(path) < 200
    assert torch.equal(values, torch.from_numpy(array)) and file.digest(offset) == digest
