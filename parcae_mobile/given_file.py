"""Files that others made, read whole: regular files only, and none larger than its kind can be.

    text = read_text(folder / "config.json", ConfigError)

A link is followed, because the hub's cache consists of them; a pipe would block for ever and a device never ends, so
what is no regular file is refused before it is opened. The size is checked before memory is taken.
"""

from __future__ import annotations

import stat
from pathlib import Path

from .errors import InputError

MEGABYTE = 1_000_000
MOST_BYTES = 64 * MEGABYTE  # of JSON, TOML and other files that are read whole; a vocabulary of a million takes 40


def check_regular(path: Path, error: type[InputError], most: int | None = None) -> int:
    """Bytes of a regular file. Raises `error` for anything else, and for more than `most` bytes."""
    try:
        entry = path.stat()
    except (OSError, ValueError) as problem:  # ValueError: a name with a zero byte in it
        reason = (problem.strerror if isinstance(problem, OSError) else None) or str(problem)
        raise error(f"{path}: not readable ({reason}); copy it again") from None
    if not stat.S_ISREG(entry.st_mode):
        raise error(f"{path}: no regular file; copy or save it again")
    if most is not None and entry.st_size > most:
        sizes = (entry.st_size, most)
        size, limit = (f"{n / MEGABYTE:.0f} MB" if most > 10 * MEGABYTE else f"{n} bytes" for n in sizes)
        raise error(f"{path}: {size} where {limit} are the most; is it the right file?")
    return entry.st_size


def read_bytes(path: Path, error: type[InputError], most: int = MOST_BYTES) -> bytes:
    """The content of a regular file of at most `most` bytes. Raises `error`."""
    check_regular(path, error, most)
    try:
        with path.open("rb") as file:
            return file.read(most)
    except OSError as problem:
        raise error(f"{path}: not readable ({problem.strerror or problem}); copy it again") from None


def read_text(path: Path, error: type[InputError], most: int = MOST_BYTES) -> str:
    """The UTF-8 text of such a file, without its byte-order mark. Raises `error`."""
    try:
        return read_bytes(path, error, most).decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise error(f"{path}: no UTF-8 text ({problem}); save it in that encoding") from None
