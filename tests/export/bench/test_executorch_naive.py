"""The naive ExecuTorch baseline computes the eager model: otherwise a comparison of speeds would mean nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from export.bench.baselines.naive_executorch import NaiveModel, NaivePte, write_naive_pte
from parcae_mobile import Parcae, load_model
from parcae_mobile.errors import InputError, PromptTooLongError
from parcae_mobile.parity import greedy
from parcae_mobile.text import EMBEDDED_MODEL, text_ids


def test_the_module_that_is_exported_computes_the_eager_model(mini_model: Parcae, mini_ids: torch.Tensor) -> None:
    naive, prompt, made = NaiveModel(mini_model, 3, 48), mini_ids[0, :12].tolist(), []
    given, past = prompt, 0
    with torch.no_grad():
        for _ in range(24):
            logits = naive(torch.tensor([given]), torch.arange(past, past + len(given)))
            past += len(given)
            given = [int(logits[0, -1, : mini_model.config.vocab_size].argmax())]
            made += given
    assert logits.shape == (1, 1, mini_model.config.padded_vocab_size)
    assert made == greedy(mini_model, prompt, 24, 3)


def test_a_file_that_is_no_program_is_named(tmp_path: Path) -> None:
    (tmp_path / "no.pte").write_bytes(b"no program" * 9)
    with pytest.raises(InputError, match="no.pte: not an ExecuTorch program"):
        NaivePte(tmp_path / "no.pte")


@pytest.mark.acceptance
def test_greedy_tokens_of_the_file_are_the_trained_models(tmp_path: Path) -> None:
    model, path = load_model(EMBEDDED_MODEL), tmp_path / "naive.pte"
    write_naive_pte(model, 2, 128, path)
    naive, prompt, made = NaivePte(path, threads=1), text_ids(EMBEDDED_MODEL, "heldout").ids[:20].tolist(), []
    logits = naive.prefill(prompt)
    for _ in range(64):
        made.append(int(logits[: model.config.vocab_size].argmax()))
        logits = naive.step(made[-1])
    assert made == greedy(model, prompt, 64, 2)
    again = naive.step(5)
    naive.length -= 1
    assert (naive.step(5) == again).all(), "a position can be repeated"
    with pytest.raises(PromptTooLongError, match="does not take them"):
        naive.prefill([1] * 60)
