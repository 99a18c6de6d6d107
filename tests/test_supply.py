"""What is installed is pinned twice in agreement: requirements.lock, and the same pins with checksums."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
WITHOUT_CHECKSUMS = {"torch"}  # its CPU and CUDA builds are different files of one version


def pins(path: Path) -> dict[str, str]:
    """Versions by normalised name."""
    lines = re.findall(r"(?m)^([A-Za-z0-9._-]+)==([^\s;\\]+)", path.read_text(encoding="utf-8"))
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in lines}


def test_the_checksums_are_of_the_pinned_versions() -> None:
    plain, hashed = pins(ROOT / "requirements.lock"), pins(ROOT / "requirements.hashes.txt")
    assert {name: version for name, version in plain.items() if name not in WITHOUT_CHECKSUMS} == hashed
    assert len(plain) > 80 and set(plain) >= WITHOUT_CHECKSUMS


def test_every_pin_has_a_checksum() -> None:
    text = (ROOT / "requirements.hashes.txt").read_text(encoding="utf-8")
    blocks = re.split(r"(?m)^(?=[A-Za-z0-9])", text)[1:]
    assert blocks and all(re.search(r"--hash=sha256:[0-9a-f]{64}", block) for block in blocks)


def test_what_the_package_asks_for_is_what_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *(line for part in project["optional-dependencies"].values() for line in part)]
    exact = [re.match(r"([A-Za-z0-9._-]+)==([^\s;]+)", line) for line in asked]
    locked = pins(ROOT / "requirements.lock")
    wrong = [found.group(0) for found in exact if found and locked.get(found.group(1).lower()) != found.group(2)]
    assert not wrong and sum(found is not None for found in exact) > 20
