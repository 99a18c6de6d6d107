"""Zip entries as Android maps them: stored files on 4 bytes, native libraries on 16 KB pages.

    write_aligned(Path("base.apk"), {"classes.dex": data}, Path("aligned.apk"))
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

PAGE, WORD = 16384, 4
PADDING = 0xD935  # the id of an extra field that apksigner knows as alignment
LOCAL_HEADER, NAME_SIZE = 30, 26  # bytes of a local header, and where in it the sizes of name and extra field are
DATE = (2008, 1, 1, 0, 0, 0)  # the same bytes at every build


def write_aligned(base: Path, more: Mapping[str, bytes], out: Path) -> None:
    """The entries of `base` and `more`; native libraries and what `base` stores are stored, the rest is deflated."""
    with zipfile.ZipFile(base) as source, zipfile.ZipFile(out, "w") as target:
        entries = {item.filename: (source.read(item), item.compress_type) for item in source.infolist()}
        for name, data in more.items():
            entries[name] = (data, zipfile.ZIP_STORED if name.endswith(".so") else zipfile.ZIP_DEFLATED)
        for name, (data, method) in sorted(entries.items()):
            info = zipfile.ZipInfo(name, DATE)
            info.compress_type = method
            if method == zipfile.ZIP_STORED:
                info.extra = _padding(target.start_dir + LOCAL_HEADER + len(name.encode()), alignment(name))
            target.writestr(info, data)


def stored_offsets(apk: Path) -> dict[str, int]:
    """Where the data of each stored entry begins in the file, by name."""
    offsets = {}
    with zipfile.ZipFile(apk) as package, apk.open("rb") as data:
        for item in package.infolist():
            if item.compress_type == zipfile.ZIP_STORED:
                data.seek(item.header_offset + NAME_SIZE)
                name, extra = struct.unpack("<HH", data.read(4))
                offsets[item.filename] = item.header_offset + LOCAL_HEADER + name + extra
    return offsets


def alignment(name: str) -> int:
    """What a stored entry's data has to start at a multiple of."""
    return PAGE if name.endswith(".so") else WORD


def _padding(start: int, unit: int) -> bytes:
    head = 6  # id, size, and the alignment itself
    fill = -(start + head) % unit
    return struct.pack("<HHH", PADDING, 2 + fill, unit) + bytes(fill)
