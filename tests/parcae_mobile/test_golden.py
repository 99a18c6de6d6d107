"""The golden reference: written once with its provenance, refused when it is of something else."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from parcae_mobile import Parcae
from parcae_mobile.errors import CheckpointError, ParcaeError, ReferenceMismatchError, ToolMissingError
from parcae_mobile.golden import (
    Reference,
    check_same_subject,
    compare_references,
    distance_to_local,
    exact_arithmetic,
    load_reference,
    make_reference,
    save_reference,
    weights_sha256,
    within_noise_floor,
)
from parcae_mobile.parity import greedy
from parcae_mobile.text import seeded_ids

TEXT = seeded_ids(60, 128)


@pytest.fixture(scope="module")
def model(small: Callable[..., Parcae]) -> Parcae:
    return small()


@pytest.fixture(scope="module")
def reference(model: Parcae) -> Reference:
    return make_reference(model, TEXT, loops=(1, 2, 4))


def test_a_reference_holds_logits_tokens_and_provenance(reference: Reference, model: Parcae) -> None:
    assert sorted(reference.logits) == [1, 2, 4]
    assert reference.logits[2].shape == (96, 64)  # the context bounds the positions
    with torch.no_grad():
        expected = model(TEXT.ids[None, :96], 2)[0].numpy()
    np.testing.assert_allclose(reference.logits[2], expected, atol=1e-5)
    assert reference.greedy[4] == greedy(model, TEXT.ids[:16].tolist(), 64, 4)
    assert len(reference.state_norms) == 4
    assert reference.device == "cpu" and reference.provenance["initial_state"] == "zero"
    assert reference.provenance["weights_sha256"] == weights_sha256(model)
    assert reference.provenance["text_sha256"] == dataclasses.replace(TEXT, ids=TEXT.ids[:96]).sha256


def test_saving_and_loading_gives_an_equal_reference_and_equal_bytes(reference: Reference, tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        save_reference(reference, tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    loaded = load_reference(tmp_path / "a.npz")
    assert loaded.sha256 == reference.sha256
    assert loaded.provenance == reference.provenance and loaded.greedy == reference.greedy
    assert all(np.array_equal(loaded.logits[loops], reference.logits[loops]) for loops in reference.logits)


def altered(path: Path, **changes: np.ndarray) -> None:
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    np.savez_compressed(path, **(arrays | changes))


@pytest.mark.parametrize("name", ["logits_2", "input_ids", "greedy_1"])
def test_an_altered_reference_is_refused(reference: Reference, tmp_path: Path, name: str) -> None:
    path = tmp_path / "golden.npz"
    save_reference(reference, path)
    with np.load(path) as file:
        array = file[name].copy()
    array.flat[3] += 1
    altered(path, **{name: array})
    with pytest.raises(ReferenceMismatchError, match="altered"):
        load_reference(path)


def test_loop_counts_cannot_be_swapped(reference: Reference, tmp_path: Path) -> None:
    path = tmp_path / "golden.npz"
    save_reference(reference, path)
    altered(path, logits_1=reference.logits[2], logits_2=reference.logits[1])
    with pytest.raises(ReferenceMismatchError, match="altered"):
        load_reference(path)


def test_provenance_cannot_be_changed(reference: Reference, tmp_path: Path) -> None:
    path = tmp_path / "golden.npz"
    save_reference(reference, path)
    with np.load(path) as file:
        text = file["provenance"].tobytes().replace(b'"device": "cpu"', b'"device": "gpu"')
    altered(path, provenance=np.frombuffer(text, np.uint8))
    with pytest.raises(ReferenceMismatchError, match="altered"):
        load_reference(path)


def test_damaged_files_are_input_errors(reference: Reference, tmp_path: Path) -> None:
    path = tmp_path / "golden.npz"
    with pytest.raises(CheckpointError, match="golden.npz"):
        load_reference(path)
    save_reference(reference, path)
    content = path.read_bytes()
    pieces = [content[:cut] for cut in (0, 1, 30, len(content) // 2, len(content) - 1)] + [b"text", b"[]"]
    flipped = [content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :] for at in range(0, len(content), 977)]
    flipped += [content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :] for at in range(160)]
    for piece in pieces:
        path.write_bytes(piece)
        with pytest.raises(CheckpointError, match="golden.npz"):
            load_reference(path)
    for piece in flipped:
        path.write_bytes(piece)
        try:
            assert load_reference(path).sha256 == reference.sha256  # a byte that says nothing, such as a zip date
        except ParcaeError as error:
            assert error.exit_code == 3


def test_a_pickle_inside_of_a_reference_is_never_read(reference: Reference, tmp_path: Path) -> None:
    path = tmp_path / "golden.npz"
    save_reference(reference, path)
    altered(path, logits_1=np.array([{"code": 1}], dtype=object))
    with pytest.raises(CheckpointError):
        load_reference(path)


def test_a_reference_of_other_weights_or_text_is_refused(
    reference: Reference, model: Parcae, small: Callable[..., Parcae]
) -> None:
    check_same_subject(reference, model, TEXT)
    with pytest.raises(ReferenceMismatchError, match="other weights"):
        check_same_subject(reference, small(seed=1))
    with pytest.raises(ReferenceMismatchError, match="another text"):
        check_same_subject(reference, model, seeded_ids(60, 128, seed=1))
    with pytest.raises(ReferenceMismatchError, match="another text"):
        check_same_subject(reference, model, seeded_ids(60, 50))


@pytest.mark.parametrize(("key", "value", "words"), [("initial_state", "random", "initial state"), ("format", 0, "0")])
def test_a_stale_reference_is_refused(reference: Reference, model: Parcae, key: str, value: object, words: str) -> None:
    stale = dataclasses.replace(reference, provenance={**reference.provenance, key: value})
    with pytest.raises(ReferenceMismatchError, match=words):
        check_same_subject(stale, model)


def test_the_local_model_is_within_the_noise_floor_and_another_is_not(reference: Reference, model: Parcae) -> None:
    distances = distance_to_local(reference, model)
    assert sorted(distances) == [1, 2, 4] and within_noise_floor(distances)
    logits = {loops: array + 2e-4 * (np.arange(64) == 5) for loops, array in reference.logits.items()}
    off = dataclasses.replace(reference, logits={k: v.astype(np.float32) for k, v in logits.items()})
    assert not within_noise_floor(distance_to_local(off, model))
    broken = dataclasses.replace(reference, logits={1: np.full((96, 64), np.nan, np.float32)})
    assert not within_noise_floor(distance_to_local(broken, model))


def test_two_references_are_compared_by_loop_count(reference: Reference) -> None:
    assert {loops: d.max_abs for loops, d in compare_references(reference, reference).items()} == {1: 0, 2: 0, 4: 0}
    other = dataclasses.replace(reference, input_ids=reference.input_ids[::-1])
    with pytest.raises(ReferenceMismatchError, match="different texts"):
        compare_references(reference, other)


def test_flags_come_back_after_exact_arithmetic() -> None:
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = (matmul.allow_tf32, cudnn.allow_tf32, torch.are_deterministic_algorithms_enabled())
    try:
        matmul.allow_tf32 = cudnn.allow_tf32 = True
        with pytest.raises(RuntimeError, match="inside"), exact_arithmetic("cpu"):
            assert not matmul.allow_tf32 and not cudnn.allow_tf32
            assert torch.are_deterministic_algorithms_enabled()
            raise RuntimeError("inside")
        assert matmul.allow_tf32 and cudnn.allow_tf32
        assert torch.are_deterministic_algorithms_enabled() == before[2]
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before[:2]


def test_cuda_is_refused_where_there_is_none(model: Parcae, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ToolMissingError, match="--device cuda.*--device cpu") as caught:
        make_reference(model, TEXT, device="cuda")
    assert caught.value.exit_code == 5


def test_the_checksum_of_weights_sees_every_parameter_and_the_rope_table(small: Callable[..., Parcae]) -> None:
    model = small()
    first = weights_sha256(model)
    assert weights_sha256(small()) == first
    model.rope[3, 0, 0] += 1e-6
    assert weights_sha256(model) != first
    again = small()
    with torch.no_grad():
        again.transformer["adapter"].A_log[0] += 1e-6
    assert weights_sha256(again) != first


@pytest.mark.parametrize("context", [1, 8, 16, 17])
def test_a_model_with_a_very_short_context_has_a_reference(small: Callable[..., Parcae], context: int) -> None:
    model = small(block_size=context)
    made = make_reference(model, TEXT, loops=(1, 2))
    assert made.logits[1].shape == (context, 64)
    assert within_noise_floor(distance_to_local(made, model))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_gpu_reference_is_within_the_noise_floor_of_this_cpu(model: Parcae, tmp_path: Path) -> None:
    made = make_reference(model, TEXT, device="cuda", loops=(1, 4))
    save_reference(made, tmp_path / "gpu.npz")
    assert within_noise_floor(distance_to_local(load_reference(tmp_path / "gpu.npz"), model))
