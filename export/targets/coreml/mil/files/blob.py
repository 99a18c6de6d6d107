"""weight.bin: Core ML's weight storage, format version 2, read through a memory map.

Layout, all little endian, every record aligned to 64 bytes:

    file header   count of blobs (u32), version (u32), 56 reserved bytes
    per blob      sentinel 0xDEADBEEF (u32), data type (u32), payload bytes (u64), payload offset (u64),
                  unused bits at the payload's end (u64), 32 reserved bytes; the payload itself lies at the given offset

A program refers to a blob by the offset of its 64-byte record. Types narrower than a byte are packed from the least
significant bit upward without gaps, so a 3-bit value may cross a byte.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import struct
from pathlib import Path

import numpy as np
import torch

from export.targets.coreml.mil.dtypes import BOOL, DType
from export.targets.coreml.mil.errors import BlobError

SENTINEL = 0xDEADBEEF
VERSION = 2
RECORD_BYTES = 64
RECORD = struct.Struct("<IIQQQ")


class BlobFile:
    """One weight file. Payloads are views of a private mapping: nothing is copied until something is decoded."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                # ACCESS_COPY gives torch writable pages that never reach the file.
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "the file is empty"
            raise BlobError(f"{path.name}: cannot read the weight file ({reason})") from error
        if len(self._map) < RECORD_BYTES:
            raise BlobError(f"{path.name}: {len(self._map)} bytes are too few for a weight file header")
        _, version = struct.unpack_from("<II", self._map, 0)
        if version != VERSION:
            raise BlobError(f"{path.name}: weight file version {version}, this interpreter reads version {VERSION}")

    def rest(self) -> None:
        """Give back the pages that were read; they come from the file again."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)

    def give_back(self, offset: int) -> None:
        """The same for the pages of one payload, once it is decoded: a package's own size would stay in memory else."""
        if hasattr(mmap, "MADV_DONTNEED"):
            _, payload, start, _ = self._payload(offset)
            first = start - start % mmap.PAGESIZE
            self._map.madvise(mmap.MADV_DONTNEED, first, start + len(payload) - first)

    def digest(self, offset: int) -> bytes:
        """What tells the record at `offset` and its payload from others. Raises BlobError where there is none.

        With the data type and the unused bits: a copy that says something else of itself is to be refused, not shared.
        """
        code, payload, _, padding = self._payload(offset)
        content = hashlib.blake2b(struct.pack("<IQ", code, padding), digest_size=16)
        content.update(payload)
        self.give_back(offset)
        return content.digest()

    def _payload(self, offset: int) -> tuple[int, memoryview, int, int]:
        """Of the record at `offset`: its data type, its bytes, where they begin, and the unused bits at their end."""
        where = f"{self.path.name} at offset {offset}"
        if offset % RECORD_BYTES or not RECORD_BYTES <= offset <= len(self._map) - RECORD_BYTES:
            raise BlobError(f"{where}: no blob record can be there (the file has {len(self._map)} bytes)")
        sentinel, code, size, start, padding = RECORD.unpack_from(self._map, offset)
        if sentinel != SENTINEL:
            raise BlobError(f"{where}: no blob record (found 0x{sentinel:08X}, want 0x{SENTINEL:08X})")
        if start + size > len(self._map):
            raise BlobError(f"{where}: the payload ends at byte {start + size} of {len(self._map)}: truncated file")
        return code, memoryview(self._map)[start : start + size], start, padding

    def read(self, offset: int, dtype: DType, shape: tuple[int, ...]) -> torch.Tensor:
        """The blob whose record is at `offset`, in `dtype`'s carrier. Raises BlobError where it is no such tensor."""
        payload, start = self._checked(offset, dtype, shape)
        aligned = dtype.bits < 8 or start % (dtype.bits // 8) == 0
        return decode(payload if aligned else bytes(payload), dtype, shape)

    def rows(self, offset: int, dtype: DType, shape: tuple[int, ...], wanted: torch.Tensor) -> torch.Tensor:
        """Of the same tensor the rows `wanted` (n,), each of them in whole bytes. Nothing else of it is read."""
        payload, _ = self._checked(offset, dtype, shape)
        if math.prod(shape[1:]) * dtype.bits % 8:
            raise BlobError(f"{self.path.name} at offset {offset}: rows of {dtype} {list(shape)} end within a byte")
        stored = np.frombuffer(payload, dtype=np.uint8).reshape(shape[0], -1)
        return decode(stored[wanted.numpy()].tobytes(), dtype, (len(wanted), *shape[1:]))

    def _checked(self, offset: int, dtype: DType, shape: tuple[int, ...]) -> tuple[memoryview, int]:
        """The payload at `offset` and where it begins. Raises BlobError where it is no such tensor."""
        code, payload, start, padding = self._payload(offset)
        where, size = f"{self.path.name} at offset {offset}", len(payload)
        if code != dtype.blob_code:
            raise BlobError(f"{where}: the blob has data type {code}, the program wants {dtype} ({dtype.blob_code})")
        count = math.prod(shape)
        if size != packed_bytes(count, dtype) or padding not in (0, size * 8 - count * dtype.bits):
            raise BlobError(
                f"{where}: the blob has {size} bytes, {dtype} {list(shape)} takes {packed_bytes(count, dtype)}"
            )
        return payload, start


def packed_bytes(count: int, dtype: DType) -> int:
    """Bytes that `count` values of `dtype` take in storage."""
    return (count * dtype.bits + 7) // 8


def decode(data: bytes | memoryview, dtype: DType, shape: tuple[int, ...]) -> torch.Tensor:
    """Little-endian storage to a tensor of `shape` in `dtype`'s carrier; a view of `data` where the carrier allows it.

    Raises BlobError where `data` has the wrong length or a bool is neither 0 nor 1.
    """
    count = math.prod(shape)
    if len(data) != packed_bytes(count, dtype):
        raise BlobError(f"{len(data)} bytes of data, {dtype} {list(shape)} takes {packed_bytes(count, dtype)}")
    if count == 0:
        return torch.zeros(shape, dtype=dtype.carrier)
    if dtype.bits < 8:
        return _unpack(data, dtype, count).reshape(shape)
    if dtype.name in ("uint16", "uint32"):
        wide = np.frombuffer(data, dtype=f"<u{dtype.bits // 8}").astype(f"<i{dtype.bits // 4}")
        return torch.from_numpy(wide).reshape(shape)
    if isinstance(data, bytes):
        data = memoryview(bytearray(data))  # torch wants a writable buffer
    if dtype is BOOL:
        raw = torch.frombuffer(data, dtype=torch.uint8)
        if raw.amax().item() > 1:
            raise BlobError(f"a bool is stored as {raw.amax().item()}, it can only be 0 or 1")
        return raw.to(torch.bool).reshape(shape)
    return torch.frombuffer(data, dtype=dtype.carrier).reshape(shape)


def _unpack(data: bytes | memoryview, dtype: DType, count: int) -> torch.Tensor:
    """`count` packed values, least significant bit first."""
    raw = np.frombuffer(data, dtype=np.uint8)
    bits, mask = dtype.bits, (1 << dtype.bits) - 1
    if 8 % bits == 0:
        values = np.empty((raw.size, 8 // bits), dtype=np.uint8)
        for slot in range(8 // bits):
            np.bitwise_and(raw >> (slot * bits), mask, out=values[:, slot])
    else:
        # 3 and 6 bits: 24 bits are the shortest run of whole bytes with whole values.
        raw = np.concatenate([raw, np.zeros(-raw.size % 3, dtype=np.uint8)]).reshape(-1, 3).astype(np.uint32)
        word = raw[:, 0] | raw[:, 1] << 8 | raw[:, 2] << 16
        values = np.empty((word.size, 24 // bits), dtype=np.uint8)
        for slot in range(24 // bits):
            values[:, slot] = word >> (slot * bits) & mask
    flat = values.reshape(-1)[:count]
    if not dtype.signed:
        return torch.from_numpy(np.ascontiguousarray(flat))
    sign = 1 << (bits - 1)
    return torch.from_numpy((flat ^ sign).astype(np.int8) - np.int8(sign))
