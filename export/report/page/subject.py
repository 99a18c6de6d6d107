"""What a page says of one artifact: its manifest, and facts about the model that a manifest has no place for.

subject = Subject(manifest, facts)                     # facts: measured while exporting
subject = Subject(read_manifest(folder), read_facts(folder), speeds)   # a folder that is already there
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from parcae_mobile.loops import policy_slots
from parcae_mobile.manifest import Manifest

CACHE_LOOPS = (1, 2, 4, 8, 16)
FP32_BYTES = 4
# Files that an app leaves out: they check and describe the artifact.
NOT_FOR_APPS = ("golden.npz", "report.html", "README.md")


@dataclass(frozen=True)
class ModelFacts:
    """Measured on the model that was exported.

    `bytes_by_component` holds (fp32 bytes, bytes under the recipe); `state_changes` the mean relative change of the
    recurrent state at loop 2, 3, ...; `sensitivity` the mean KL in nats of one component alone at 4 bits.
    """

    bytes_by_component: Mapping[str, tuple[int, int]]
    decays: Sequence[float]
    state_changes: Sequence[float]
    sensitivity: Mapping[str, float]
    sensitivity_loops: int = 0


@dataclass(frozen=True)
class Speeds:
    """Medians of decoding one token, in milliseconds, by context in tokens and by T, all taken in one run."""

    machine: str
    decode_ms: Mapping[int, Mapping[int, float]]


@dataclass(frozen=True)
class Subject:
    """One artifact on a page."""

    manifest: Manifest
    facts: ModelFacts | None = None
    speeds: Speeds | None = None

    @property
    def loops(self) -> str:
        manifest = self.manifest
        if manifest.loops != "dynamic":
            return str(manifest.loops)
        return f"{manifest.min_loops} to {manifest.max_loops}, chosen at run time"

    @property
    def total_bytes(self) -> int:
        return sum(entry.bytes for entry in self.manifest.files.values())

    @property
    def app_bytes(self) -> int:
        """Bytes of the files that an app needs: model and tokenizer."""
        return sum(entry.bytes for name, entry in self.manifest.files.items() if name not in NOT_FOR_APPS)

    @property
    def cost(self) -> tuple[int, dict[str, Any]] | None:
        """T and figures of the compression gate at the judged T nearest to the trained one; None if not judged."""
        rows = self.manifest.compression.by_loops
        if not rows:
            return None
        loops = nearest([int(count) for count in rows], self.manifest.trained_loops)
        return loops, rows[str(loops)]

    def decode_ms(self, context: int) -> tuple[int, float] | None:
        """T and milliseconds per token at the measured T nearest to the trained one; None if not measured."""
        times = self.speeds.decode_ms.get(context) if self.speeds else None
        if not times:
            return None
        loops = nearest(list(times), self.manifest.trained_loops)
        return loops, times[loops]

    def cache_bytes(self) -> dict[int, int]:
        """Bytes of the artifact's cache at its whole context, by loop count."""
        per_token = self.manifest.kv.bytes_per_token
        return {int(count): per_token[count] * self.manifest.kv.context for count in sorted(per_token, key=int)}

    def naive_cache_bytes(self) -> dict[int, int]:
        """The same for an export that keeps one fp32 slot for each loop, as unrolling does. Computed, not measured."""
        geometry, context = self.manifest.geometry, self.manifest.kv.context
        sizes = {}
        for count in CACHE_LOOPS:
            slots = {"prelude": 1, "coda": 1, "core_block": policy_slots("full", count)}
            numbers = sum(
                2 * layers * geometry.heads[stage] * geometry.head_size[stage] * slots[stage]
                for stage, layers in geometry.layers.items()
            )
            sizes[count] = numbers * FP32_BYTES * context
        return sizes


def nearest(counts: Sequence[int], wanted: int) -> int:
    """The loop count next to `wanted`, the greater of two that are equally near."""
    return min(counts, key=lambda count: (abs(count - wanted), -count))


def letters(subjects: Sequence[Subject]) -> list[str]:
    """A short name for each: a letter and what tells it from the others; empty for a subject that is alone."""
    if len(subjects) == 1:
        return [""]
    names = [subject.manifest.artifact for subject in subjects]
    common = os.path.commonprefix(names)
    common = common[: common.rfind("-") + 1]
    return [f"{_letter(place)} {name.removeprefix(common)}" for place, name in enumerate(names)]


def _letter(place: int) -> str:
    return chr(ord("A") + place) if place < 26 else str(place + 1)
