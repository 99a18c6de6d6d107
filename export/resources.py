"""What an export needs of the machine, estimated before it begins: memory, disk and minutes, against what there is.

    needs = estimate(config, recipe, {"onnx"}, artifacts=1)
    check(needs, Path("dist"))                         # raises ResourceError before a weight is read

The estimate is so many times the model in fp32, by the target's row, as measured on a released shape (docs/trust.md);
what is measured there lies below it. An export that cannot fit would be killed after minutes, with nothing to show.
Seconds are those of one core for rounding to nearest, writing and judging, at the rate of the machine that measured
them: a rough figure. Calibration by GPTQ and learned rounding come on top.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from export.request import ExportRequest
from export.source import config_of
from export.targets.registry import find_target
from parcae_mobile.config import ParcaeConfig
from parcae_mobile.errors import ResourceError
from parcae_mobile.model import Parcae
from quantize.planning import plan_table, total_bytes
from quantize.recipe import Recipe, RecipeError

GIGABYTE, MINUTE = 1e9, 60
COMPARED = 2.25  # copies in fp32 that the compression gate holds: the model, its integers, and what they stand for
JUDGED = 500_000_000  # bytes that gates take whatever the model's size: logits of their texts
BESIDE = 20_000_000  # bytes of an artifact that are no weights: graphs, report, tokenizer, self-test
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Needs:
    """Bytes of memory at the peak, of disk for the artifacts, of disk for temporary files; seconds of one core."""

    memory: int
    disk: int
    temporary: int
    seconds: int = 0

    def to_dict(self) -> dict[str, int]:
        return asdict(self)

    def said(self, available: int) -> str:
        """In words, beside the bytes of memory that are free."""
        minutes = f"{self.seconds / MINUTE:.0f} minutes" if self.seconds > MINUTE else "under a minute"
        memory = f"about {_gb(self.memory)} of memory ({_gb(available)} free)"
        return f"{memory}, {_gb(self.disk)} of disk, {minutes} of one core, roughly"


def check_resources(request: ExportRequest, recipe: Recipe, artifacts: dict[str, int]) -> Needs | None:
    """What an export needs of the machine; `artifacts` by target. Raises `ResourceError` if it cannot fit."""
    config = config_of(request.model, request.revision, request.random_weights)
    if config is None:
        return None
    try:
        compared = request.verify and not request.random_weights
        needs = estimate(config, recipe, artifacts, sum(artifacts.values()), request.verify, compared)
    except RecipeError:  # it does not fit the model, which is said once the model is open
        return None
    if request.resource_check:
        check(needs, request.out)
    return needs


def estimate(
    config: ParcaeConfig,
    recipe: Recipe,
    targets: Collection[str],
    artifacts: int = 1,
    gates: bool = True,
    compared: bool = True,
) -> Needs:
    """What exports of a model to these targets need; `artifacts` is how many folders they make.

    `compared` says that gates compare the quantized model with the fp32 one, which random weights spare. Targets are
    written one after the other, so the one that needs the most memory counts. Reads shapes alone.
    """
    with torch.device("meta"):
        model = Parcae(config)
    floats = 4 * sum(parameter.numel() for parameter in model.parameters())
    rows = [find_target(name).footprint for name in targets]
    least = COMPARED if gates and compared else 0
    copies = [max(least, row.copies if gates else row.copies_written) for row in rows]
    memory = max(row.library_bytes + count * floats for row, count in zip(rows, copies, strict=True))
    memory += JUDGED * gates
    stored = total_bytes(plan_table(recipe, model)) + BESIDE
    rates = [row.seconds_written + row.seconds_judged * gates for row in rows]
    seconds = sum(row.seconds + rate * floats / GIGABYTE for row, rate in zip(rows, rates, strict=True))
    twice = any(row.writes_twice for row in rows)
    return Needs(int(memory), stored * artifacts, stored * twice, int(seconds))


def check(needs: Needs, out: Path) -> None:
    """Raise `ResourceError` if memory or disk cannot hold what is needed."""
    available = available_memory()
    if needs.memory > available:
        raise ResourceError(
            f"this export needs about {_gb(needs.memory)} of memory, {_gb(available)} are free; close other programs, "
            "or export on a larger machine (--no-resource-check tries all the same)"
        )
    place = _existing(out)
    free = shutil.disk_usage(place).free
    temporary = Path(tempfile.gettempdir())
    together = needs.disk
    if temporary.stat().st_dev == place.stat().st_dev:
        together += needs.temporary
    elif needs.temporary > shutil.disk_usage(temporary).free:
        raise ResourceError(
            f"converters need about {_gb(needs.temporary)} in {temporary}; free some, or set TMPDIR to another place"
        )
    if together > free:
        raise ResourceError(
            f"this export needs about {_gb(together)} of disk, {_gb(free)} are free in {place}; "
            "free some or choose another --out"
        )


def available_memory() -> int:
    """Bytes that a process may still take: of the machine, or of its container where that has less."""
    available = int(psutil.virtual_memory().available)
    try:
        most = (_CGROUP / "memory.max").read_text(encoding="ascii").strip()
        used = int((_CGROUP / "memory.current").read_text(encoding="ascii"))
        cached = dict(line.split() for line in (_CGROUP / "memory.stat").read_text(encoding="ascii").splitlines())
    except (OSError, ValueError):
        return available
    if most == "max":
        return available
    return min(available, max(0, int(most) - used + int(cached.get("inactive_file", 0))))


def _existing(out: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    place = out.absolute()
    while not place.is_dir() and place != place.parent:
        place = place.parent
    return place


def _gb(count: Any) -> str:
    return f"{count / GIGABYTE:.1f} GB"
