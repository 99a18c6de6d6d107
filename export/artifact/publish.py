"""Artifact folders appear whole or not at all: a temporary folder beside the final one, then one rename.

with staging(final) as folder:
    ...                                                # write files; the manifest last
    publish(folder, final)                             # or publish(folder, failed_folder(final))

A folder that is replaced changes places with the new one in one step where the system can do that (Linux, macOS), so a
process that is killed leaves the old artifact or the new one, never half of either. What a killed process left behind
is removed by the next export to the same place.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from parcae_mobile.app_manifest import APP_MANIFEST
from parcae_mobile.errors import InputError, OutputExistsError
from parcae_mobile.manifest import MANIFEST

_NOT_OURS = "{} is no artifact folder, so it is not replaced; move it or choose another --out"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_SPACE = 65536  # bytes
_AT_FDCWD, _RENAME_EXCHANGE, _RENAME_SWAP = -100, 2, 2


def failed_folder(final: Path) -> Path:
    """Where an artifact goes that failed its gate."""
    return final.with_name(final.name + ".failed")


def check_output(final: Path, force: bool) -> None:
    """Raise `OutputExistsError` if `final` exists and may not be replaced, or if a folder in the way is not ours."""
    if final.exists() and not force:
        raise OutputExistsError(f"{final} exists; add --force to replace it, or choose another --out")
    for place in (final, failed_folder(final)):
        if not _replaceable(place):
            raise OutputExistsError(_NOT_OURS.format(place))


@contextlib.contextmanager
def staging(final: Path) -> Iterator[Path]:
    """A temporary folder on the same file system; it is removed unless it was published."""
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(final)
        folder = Path(tempfile.mkdtemp(prefix=f".{final.name}.", suffix=".partial", dir=final.parent))
        mark = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"cannot write to {final.parent} ({error.strerror}); choose another --out") from None
    try:
        fcntl.flock(mark, fcntl.LOCK_EX)  # lost with the process: so the next export knows a leftover
        folder.chmod(0o777 & ~_umask())
        yield folder
    except Exception as error:
        if not _disk_is_full(final.parent, error):
            raise
        reason = "no space left on its disk, or a limit on file sizes"
        raise InputError(f"cannot write {final}: {reason}; free some or choose another --out") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(mark)


def publish(folder: Path, final: Path) -> None:
    """Give a complete folder its final name. What was there takes the temporary name, and goes away with it.

    Raises `OutputExistsError` for a folder there that is no artifact.
    """
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    if not _replaceable(final):
        raise OutputExistsError(_NOT_OURS.format(final))
    if not final.exists():
        folder.rename(final)
    elif not _exchange(folder, final):
        old = folder.with_suffix(".old")
        final.rename(old)
        folder.rename(final)
        shutil.rmtree(old, ignore_errors=True)


def _replaceable(place: Path) -> bool:
    """Whether nothing is there, or an empty folder, or an artifact of ours (or an app's copy of one)."""
    if place.is_symlink() or not place.is_dir():
        return not place.exists() and not place.is_symlink()
    return any((place / name).is_file() for name in (MANIFEST, APP_MANIFEST)) or not any(place.iterdir())


def _exchange(first: Path, second: Path) -> bool:
    """Let two folders change names in one step; False where the system or the file system cannot."""
    library = ctypes.CDLL(None, use_errno=True)
    one, two = os.fsencode(first), os.fsencode(second)
    if sys.platform == "linux" and hasattr(library, "renameat2"):
        return bool(library.renameat2(_AT_FDCWD, one, _AT_FDCWD, two, _RENAME_EXCHANGE) == 0)
    if sys.platform == "darwin" and hasattr(library, "renamex_np"):
        return bool(library.renamex_np(one, two, _RENAME_SWAP) == 0)
    return False


def _remove_leftovers(final: Path) -> None:
    """Remove temporary folders of processes that are gone; an old artifact among them comes back if none is there."""
    for suffix in (".old", ".partial"):
        for leftover in final.parent.glob(f".{final.name}.*{suffix}"):
            try:
                mark = os.open(leftover, os.O_RDONLY)
            except OSError:
                continue
            try:
                fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue  # its process is at work
            else:
                if suffix == ".old" and not final.exists():
                    leftover.rename(final)
                else:
                    shutil.rmtree(leftover, ignore_errors=True)
            finally:
                os.close(mark)


def _disk_is_full(folder: Path, error: Exception) -> bool:
    """Whether an error came of a full disk; converters written in C++ do not say so themselves."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    said = any(words in str(error) for words in (*map(os.strerror, _FULL), "while writing data to the file"))
    return said or shutil.disk_usage(folder).free < _NO_SPACE


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
