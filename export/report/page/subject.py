"""What a page says of one artifact: its manifest, and facts about the model that a manifest has no place for.

subject = Subject(manifest, facts)                     # facts: measured while exporting
subject = Subject(read_manifest(folder), None)         # a folder that is already there
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from parcae_mobile.loops import policy_slots
from parcae_mobile.manifest import Manifest

CACHE_LOOPS = (1, 2, 4, 8, 16)
FP32_BYTES = 4


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
class Subject:
    """One artifact on a page."""

    manifest: Manifest
    facts: ModelFacts | None = None

    @property
    def loops(self) -> str:
        manifest = self.manifest
        return f"1 to {manifest.max_loops}, chosen at run time" if manifest.loops == "dynamic" else str(manifest.loops)

    @property
    def total_bytes(self) -> int:
        return sum(entry.bytes for entry in self.manifest.files.values())

    def cache_bytes(self) -> dict[int, int]:
        """Bytes of the artifact's cache at its whole context, by loop count."""
        held = self.manifest.kv.bytes_per_token
        return {int(count): held[count] * self.manifest.kv.context for count in sorted(held, key=int)}

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
