"""Each mutant of docs/mutants.md on ONNX and Core ML at the default preset: none of them would be published.

One artifact of a target serves them all: faults of tensors are the reference's (see tests/mutants/faults.py), but for
what only a writer can do. `make mutants` tries every form and precision. ExecuTorch's are in
tests/export/targets/executorch/test_executorch.py, beside the artifact that they share.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from export.gates.reference import check_reference
from export.source import open_source
from tests.mutants.columns import Column, Subject
from tests.mutants.faults import FAULTS
from tests.mutants.table import check_of

LOOPS = (2,)


# Core ML's are executed by an interpreter: those that another one of the suite stands for run in `make acceptance`.
SLOW = ("matrix of the prelude", "matrix of the coda", "zeroed", "one loop less", "earlier", "value table", "untied")
ON_COREML = [
    pytest.param(name, marks=[pytest.mark.acceptance] if any(part in name for part in SLOW) else []) for name in FAULTS
]


def right_artifact(target: str) -> Iterator[Subject]:
    source = open_source(None)
    reference = check_reference(source, source.text("heldout", None, 128))
    column = Column(target, "stages", "int4")
    made = Subject(column, source, reference, context=48, texts=2, length=40, once=True)
    assert made.failures(None, 0, LOOPS) == []
    yield made
    made.close()


@pytest.fixture(scope="module")
def onnx() -> Iterator[Subject]:
    yield from right_artifact("onnx")


@pytest.fixture(scope="module")
def coreml() -> Iterator[Subject]:
    yield from right_artifact("coreml")


@pytest.mark.parametrize("name", FAULTS)
def test_no_mutant_passes_on_onnx(onnx: Subject, name: str) -> None:
    check_caught(onnx, name)


@pytest.mark.parametrize("name", ON_COREML)
def test_no_mutant_passes_on_coreml(coreml: Subject, name: str) -> None:
    check_caught(coreml, name)


def check_caught(subject: Subject, name: str) -> None:
    fault = FAULTS[name]
    if why := fault.absent(subject.column.target, subject.column.form, subject.column.quant):
        assert fault.only and fault.only != subject.column.target, why
        return
    failures = subject.failures(fault, fault.size, LOOPS)
    assert failures and check_of(failures[0]) != failures[0], failures
    if fault.only:
        assert all("after coremltools' default passes" in line for line in failures), failures
