"""Before any gate: is this machine's fp32 model the golden reference's, up to rounding?

The embedded model has a committed reference; other models take `--reference FILE`, or one is made on this CPU, which
the manifest and the report then say. A reference of other weights or another text is refused when it was asked for by
name; a stale committed one is replaced by a CPU reference, and said so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from export.source import Source
from export.targets.host import Host
from parcae_mobile.errors import GateError, ParcaeError
from parcae_mobile.golden import (
    NOISE_FLOOR_MAX_ABS,
    Reference,
    check_same_subject,
    distance_to_local,
    load_reference,
    make_reference,
    within_noise_floor,
)
from parcae_mobile.manifest import ReferenceEntry
from parcae_mobile.parity import Distance, compare
from parcae_mobile.text import EMBEDDED_MODEL, TokenText

NO_FILE = "no golden file for this model: made on this CPU, which proves nothing about another device"
COMMITTED = EMBEDDED_MODEL / "reference.npz"


@dataclass
class CheckedReference:
    """A reference that the local fp32 model agrees with, and by how much."""

    reference: Reference
    distances: dict[int, Distance]
    note: str

    def entry(self, artifact: dict[int, Distance]) -> ReferenceEntry:
        """The manifest's record, with the artifact's own distance to the reference."""
        return ReferenceEntry(
            device=self.reference.device,
            sha256=self.reference.sha256,
            distance={str(loops): distance.to_dict() for loops, distance in self.distances.items()},
            artifact_distance={str(loops): distance.to_dict() for loops, distance in artifact.items()},
            note=self.note,
        )


def check_reference(
    source: Source, text: TokenText, file: Path | None = None, committed: Path = COMMITTED
) -> CheckedReference:
    """Find or make the reference and compare. Raises `GateError` if the local model is off by more than rounding."""
    reference, note = _find(source, text, file, committed)
    distances = distance_to_local(reference, source.model)
    if not within_noise_floor(distances):
        worst = max(distance.max_abs for distance in distances.values())
        raise GateError(
            f"this machine's fp32 logits differ from the reference ({reference.device}) by {worst:.2g}, above the "
            f"noise floor of {NOISE_FLOOR_MAX_ABS:g}; nothing can be judged against it"
        )
    return CheckedReference(reference, distances, note)


def unlikely_text(reference: Reference, vocabulary: int) -> str | None:
    """A note if the model finds its text clearly less likely than chance: a tokenizer of another model does that."""
    logits = torch.from_numpy(reference.logits[max(reference.logits)])[:-1, :vocabulary].float()
    targets = torch.from_numpy(reference.input_ids)[1 : len(logits) + 1]
    if not len(targets) or int(targets.max()) >= vocabulary:
        return None
    loss = float(torch.nn.functional.cross_entropy(logits, targets))
    if loss <= math.log(vocabulary) + 1:
        return None
    return (
        f"the model finds held-out text less likely than chance ({loss:.1f} nats a token, chance is "
        f"{math.log(vocabulary):.1f}): is the tokenizer this model's?"
    )


def artifact_distance(host: Host, reference: Reference, loops: list[int]) -> dict[int, Distance]:
    """The artifact's logits against the golden ones, compression included."""
    distances = {}
    for count in sorted(set(loops) & set(reference.logits)):
        host.reset()
        ids = reference.input_ids.tolist()[: host.geometry.context]
        golden = torch.from_numpy(reference.logits[count][: len(ids)])
        distances[count] = compare(golden, torch.from_numpy(host.run(ids, count)))
    return distances


def _find(source: Source, text: TokenText, file: Path | None, committed: Path) -> tuple[Reference, str]:
    if file is not None:
        reference = load_reference(file)
        check_same_subject(reference, source.model, text)
        return reference, ""
    if source.embedded and committed.exists():
        try:
            reference = load_reference(committed)
            check_same_subject(reference, source.model)
        except ParcaeError as error:
            note = f"the committed reference was not used ({error}); made on this CPU"
            return make_reference(source.model, text), note
        return reference, "" if reference.device == "cuda" else "the committed reference was made on a CPU"
    return make_reference(source.model, text), NO_FILE
