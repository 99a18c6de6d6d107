"""The columns: a right artifact of each target, form and precision, and what the gates of an export say of its mutants.

    column = Column("onnx", "stages", "int4")
    subject = Subject(column, source)                      # the right artifact, written and judged
    failures = subject.failures(FAULTS["one loop more"], 0, (8,))

`failures` calls what `parcae-export` calls: the certificate and the lowering gate of `export/pipeline.py`.
"""

from __future__ import annotations

import contextlib
import copy
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

from torch import Tensor

from export import pipeline
from export.gates import directions, lowering, probes
from export.gates.function import own_noise
from export.gates.lowering import TEXT_TOKENS, _Gate
from export.gates.probes import Measured, Probe, answered
from export.gates.reference import CheckedReference
from export.job import Job, resolve
from export.request import ExportRequest
from export.source import Source
from export.targets.host import Host
from export.targets.registry import WriteOptions, find_target, load_target
from export.texts import windows_for
from parcae_mobile.errors import ParcaeError
from parcae_mobile.kv_cache import CacheSpec
from parcae_mobile.model import Parcae
from quantize import QuantizedModel, load_recipe, quantize_with
from tests.mutants.faults import Fault

CONTEXT = 96
SINGLE = 8
SLOW_WRITERS = ("executorch",)
FEW_TEXTS = {"coreml": 2}  # an interpreter executes it
FORMS = (
    *(("onnx", form) for form in ("stages", "scan", "unrolled", "portable stages")),
    *(("executorch", form) for form in ("stages", "unrolled")),
    *(("coreml", form) for form in ("stages", "while", "unrolled")),
)
QUANTS = ("int4", "int8", "fp32")


@dataclass(frozen=True)
class Column:
    """A target, a loop form, weights by a preset."""

    target: str
    form: str
    quant: str

    @property
    def name(self) -> str:
        return f"{self.target} {self.form} {self.quant}"

    @property
    def static(self) -> bool:
        return self.form == "unrolled"

    def job(self, source: Source, out: Path, context: int) -> Job:
        """What an export of it would be."""
        request = ExportRequest(
            target=[self.target],
            loop_form=self.form.removeprefix("portable "),
            portable=self.form.startswith("portable"),
            quant=self.quant,
            compute="fp32" if (self.target, self.quant) == ("coreml", "fp32") else None,
            kv="full",
            context=context,
            out=out,
            threads=1,
        )
        target = find_target(self.target)
        counts: tuple[int | str, ...] = (2, SINGLE) if target.shares_static else (SINGLE,)
        return resolve(request, source, load_recipe(self.quant), target, counts if self.static else ("dynamic",))


COLUMNS = [Column(target, form, quant) for quant in QUANTS for target, form in FORMS]


class Subject:
    """The right artifact of a column in a temporary folder; `close` removes it.

    `made` is an artifact that is there already, with what was written; `once` says that no mutant is written, so that
    faults of tensors are the reference's.
    """

    def __init__(
        self,
        column: Column,
        source: Source,
        reference: CheckedReference,
        *,
        context: int = CONTEXT,
        texts: int | None = None,
        length: int = TEXT_TOKENS,
        made: tuple[Path, QuantizedModel] | None = None,
        once: bool = False,
    ) -> None:
        self.column, self.source, self.reference = column, source, reference
        self.once = once or column.target in SLOW_WRITERS
        self.folder = Path(tempfile.mkdtemp(prefix="parcae-mutants-"))
        self.job = column.job(source, self.folder, context)
        if made is None:
            self.quantized = quantize_with(source.model, load_recipe(column.quant), "rtn")
            self.artifact = self._write(self.quantized, "right")
        else:
            self.artifact, self.quantized = made
        self.texts = windows_for(source, "heldout", None, texts or FEW_TEXTS.get(column.target, 8), length)
        self._noise: dict[tuple[str, int], Measured] = {}
        self._answers: dict[tuple[Any, ...], tuple[Tensor, dict[int, Tensor]]] = {}
        self.frequent = [token for token, _ in Counter(self.texts[:2, :60].flatten().tolist()).most_common()]

    def close(self) -> None:
        shutil.rmtree(self.folder)

    @property
    def all_loops(self) -> list[int]:
        """Every loop count at which an export of it is judged."""
        return self.job.options.verified_loops(self.source.model.config.mean_recurrence)

    def failures(self, fault: Fault | None, size: float, loops: Sequence[int]) -> list[str]:
        """What certificate and gate have against it, a line each; none if it would be published."""
        artifact, quantized, job = self.artifact, self.quantized, self.job
        asked: Any = contextlib.nullcontext()
        if fault is not None and fault.change is not None:
            wrong = fault.change(quantized, size, self.frequent)
            if fault.of_reference or self.once:
                quantized = wrong
                job = job if fault.of_reference else replace(job, source=self._injected(wrong))
            else:
                artifact = self._write(wrong, "mutant")
        elif fault is not None and fault.written is not None:
            with fault.written():
                artifact = self._write(quantized, "mutant")
        elif fault is not None and fault.asked is not None:
            asked = fault.asked()
        texts = self.texts
        skips = {name: _unless_wrong(getattr(_Gate, name)) for name in ("continued", "published", "after")}
        answers = self._answered if artifact == self.artifact else answered
        try:
            with (
                asked,
                mock.patch.multiple(_Gate, **skips),
                mock.patch.object(lowering, "own_noise", self._own_noise),
                mock.patch.object(probes, "answered", answers),
                mock.patch.object(directions, "answered", answers),
                mock.patch.object(WriteOptions, "verified_loops", lambda options, trained=1: list(loops)),
                mock.patch.object(pipeline, "windows_for", lambda *given: texts),
                mock.patch.object(pipeline, "artifact_distance", lambda *given: {}),
            ):
                _, draft, problems = pipeline.certified(job, quantized, artifact)
                gate, _ = pipeline.verify(job, quantized, self.reference, artifact, draft, lambda line: None)
        except ParcaeError as error:
            return [f"refused: {error}"]
        return problems + gate.failures

    def _write(self, quantized: QuantizedModel, name: str) -> Path:
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        load_target(self.job.target).write(quantized, folder, self.job.options)
        return folder

    def _own_noise(self, model: Parcae, probe: Probe, loops: int, spec: CacheSpec) -> Measured:
        """The model's own noise, measured once and not for each mutant of it."""
        key = probe.name, loops
        if key not in self._noise:
            self._noise[key] = own_noise(model, probe, loops, spec)
        return self._noise[key]

    def _answered(self, host: Host, probe: Probe, loops: int) -> tuple[Tensor, dict[int, Tensor]]:
        """What the right artifact answers: the same under every fault of the reference, so it is asked once."""
        state = None if probe.state is None else probe.state.numpy().tobytes()
        key = type(host), probe.name, probe.ids.numpy().tobytes(), probe.pieces, state, loops
        if key not in self._answers:
            self._answers[key] = answered(host, probe, loops)
        return self._answers[key]

    def _injected(self, wrong: QuantizedModel) -> Source:
        """The fp32 checkpoint with a mutant's injection, which the certificate compares with."""
        model = copy.deepcopy(self.source.model)
        model.transformer["adapter"].load_state_dict(wrong.model.transformer["adapter"].state_dict())
        return replace(self.source, model=model)


def _unless_wrong(question: Any) -> Any:
    """What a gate asks next is not asked of a function that is wrong already: it costs time and changes nothing."""

    def ask(gate: _Gate, *given: Any) -> None:
        if not gate.wrong:
            question(gate, *given)

    return ask
