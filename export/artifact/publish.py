"""Artifact folders appear whole or not at all: a temporary folder beside the final one, then one rename.

with staging(final, force=False) as folder:
    ...                                                # write files; the manifest last
    publish(folder, final)                             # or publish(folder, failed_folder(final))
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from parcae_mobile.errors import InputError, OutputExistsError


def failed_folder(final: Path) -> Path:
    """Where an artifact goes that failed its gate."""
    return final.with_name(final.name + ".failed")


def check_output(final: Path, force: bool) -> None:
    """Raise `OutputExistsError` if `final` exists and may not be replaced."""
    if final.exists() and not force:
        raise OutputExistsError(f"{final} exists; add --force to replace it, or choose another --out")


@contextlib.contextmanager
def staging(final: Path) -> Iterator[Path]:
    """A temporary folder on the same file system; it is removed unless it was published."""
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{final.name}.", suffix=".partial", dir=final.parent))
    except OSError as error:
        raise InputError(f"cannot write to {final.parent} ({error.strerror}); choose another --out") from None
    try:
        folder.chmod(0o755)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(folder: Path, final: Path) -> None:
    """Rename a complete folder to its final name, replacing what is there; the old content goes away last."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    if not final.exists():
        folder.rename(final)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{final.name}.", suffix=".old", dir=final.parent))
    final.rename(old / final.name)
    folder.rename(final)
    shutil.rmtree(old, ignore_errors=True)
