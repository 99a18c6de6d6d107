"""Before any gate the local fp32 model must be the golden reference's, up to rounding."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from export.gates.reference import check_reference, unlikely_text
from export.source import Source, open_source
from parcae_mobile import Parcae, load_model
from parcae_mobile.errors import GateError, ReferenceMismatchError, UsageError
from parcae_mobile.golden import Reference, make_reference, save_reference
from parcae_mobile.text import EMBEDDED_MODEL, TokenText, seeded_ids

TEXT = seeded_ids(60, 64)


@pytest.fixture(scope="module")
def source(small: Callable[..., Parcae]) -> Source:
    return Source("small", small(block_size=40), None, None)


@pytest.fixture(scope="module")
def reference(source: Source) -> Reference:
    return make_reference(source.model, TEXT, loops=(1, 2))


def test_without_a_file_one_is_made_here_and_said_so(source: Source) -> None:
    checked = check_reference(source, TEXT)
    assert checked.reference.device == "cpu" and "made on this CPU" in checked.note
    assert checked.entry({}).device == "cpu"


def test_a_given_file_is_used(source: Source, reference: Reference, tmp_path: Path) -> None:
    save_reference(reference, tmp_path / "r.npz")
    checked = check_reference(source, TEXT, tmp_path / "r.npz")
    assert checked.note == "" and checked.reference.sha256 == reference.sha256 and sorted(checked.distances) == [1, 2]


def test_a_given_file_of_another_model_or_text_is_refused(
    source: Source, reference: Reference, small: Callable[..., Parcae], tmp_path: Path
) -> None:
    save_reference(reference, tmp_path / "r.npz")
    with pytest.raises(ReferenceMismatchError, match="other weights"):
        check_reference(Source("other", small(seed=1, block_size=40), None, None), TEXT, tmp_path / "r.npz")
    with pytest.raises(ReferenceMismatchError, match="another text"):
        check_reference(source, seeded_ids(60, 64, seed=1), tmp_path / "r.npz")


def test_a_machine_that_computes_something_else_is_a_failed_gate(
    source: Source, reference: Reference, tmp_path: Path
) -> None:
    logits = {loops: array.copy() for loops, array in reference.logits.items()}
    logits[2][3, 4] += 1e-3
    save_reference(dataclasses.replace(reference, logits=logits), tmp_path / "r.npz")
    with pytest.raises(GateError, match="noise floor") as caught:
        check_reference(source, TEXT, tmp_path / "r.npz")
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("content", ["stale", "damaged"])
def test_a_stale_committed_reference_is_replaced_and_said_so(
    reference: Reference, source: Source, tmp_path: Path, content: str
) -> None:
    committed = tmp_path / "reference.npz"
    if content == "stale":
        provenance = {**reference.provenance, "weights_sha256": "0" * 64}
        save_reference(dataclasses.replace(reference, provenance=provenance), committed)
    else:
        committed.write_bytes(b"damaged")
    embedded = dataclasses.replace(source, folder=EMBEDDED_MODEL)
    checked = check_reference(embedded, TEXT, committed=committed)
    assert "was not used" in checked.note and checked.reference.device == "cpu"


def test_a_committed_reference_of_this_model_is_used(reference: Reference, source: Source, tmp_path: Path) -> None:
    save_reference(reference, tmp_path / "reference.npz")
    embedded = dataclasses.replace(source, folder=EMBEDDED_MODEL)
    checked = check_reference(embedded, TEXT, committed=tmp_path / "reference.npz")
    assert checked.reference.sha256 == reference.sha256 and "made on a CPU" in checked.note


def test_the_committed_reference_is_of_the_embedded_model() -> None:
    embedded = open_source(None)
    checked = check_reference(embedded, embedded.text("heldout", None, 128))
    assert "was not used" not in checked.note


def test_sources_are_named_safely(data: Path, tmp_path: Path, save_small: Callable[..., Path]) -> None:
    assert open_source(str(data / "linear-injection")).name == "linear-injection"
    odd = save_small(tmp_path / "näme with spaces; rm")
    assert open_source(str(odd)).name == "n-me-with-spaces-rm"
    assert open_source(None).name == "parcae-tiny" and open_source(None).embedded and open_source(None).real


def test_random_weights_have_no_text_of_their_own(source: Source, tmp_path: Path) -> None:
    drawn = source.text("heldout", least=30)
    assert isinstance(drawn, TokenText) and not drawn.real and len(drawn.ids) == 30
    with pytest.raises(UsageError, match="no tokenizer"):
        source.text("heldout", tmp_path / "text.txt")
    with pytest.raises(UsageError, match="--random-weights needs"):
        open_source(str(tmp_path), random_weights=True)


def test_a_text_that_the_model_finds_less_likely_than_chance_is_doubted(data: Path) -> None:
    model = load_model(data / "tiny-trained")
    held_out = torch.from_numpy(np.load(data / "tiny-trained" / "heldout_tokens.npy")[:96].astype(np.int64))
    own = make_reference(model, TokenText(held_out, "its own"), loops=(4,))
    assert unlikely_text(own, 2048) is None
    shuffled = torch.randperm(2048, generator=torch.Generator().manual_seed(1))[held_out]
    foreign = make_reference(model, TokenText(shuffled, "of another tokenizer"), loops=(4,))
    note = unlikely_text(foreign, 2048)
    assert note is not None and "is the tokenizer this model's?" in note
