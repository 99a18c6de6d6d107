"""The trainer: it learns, resumes to the same weights, loops each sequence its own way, saves what loads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from parcae_mobile import load_model
from parcae_mobile.config import ParcaeConfig
from training.batches import Batches, even_windows
from training.checkpoints import save_model, trainable
from training.corpus import Document, encode, train_tokenizer
from training.loops import Stages, draw_state, looped_loss
from training.measure import cut, decay_range, score, state_changes
from training.publish import select
from training.shape import new_model, small_config
from training.slow_loop import LEAST_DECAY, MOST_DECAY, slow_down
from training.train import Recipe, Run, train

TEXT = "".join(f"def add_{index}(left, right):\n    return left + right + {index}\n\n" for index in range(400))


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    train_tokenizer([TEXT], 300).save(str(path))
    return path


@pytest.fixture(scope="module")
def tokens(tokenizer_file: Path) -> np.ndarray:
    from tokenizers import Tokenizer

    return encode(Tokenizer.from_file(str(tokenizer_file)), [Document("text", TEXT)])


def small_run(tokens: np.ndarray, out: Path, steps: int, seed: int = 3) -> Run:
    recipe = Recipe(steps=steps, sequence=32, batch=4, micro_batch=2, long_share=0.25, half=False, seed=seed)
    return Run(new_model(small_config(32, 300, mean_loops=3), seed), recipe, tokens, "cpu", out)


def test_twenty_steps_lower_the_loss_and_the_checkpoint_loads(
    tokens: np.ndarray, tokenizer_file: Path, tmp_path: Path
) -> None:
    run = small_run(tokens, tmp_path, 20)
    windows = even_windows(tokens, 32, 4)
    with torch.no_grad():
        before = run.model(windows[:, :-1], 3)
    train(run, tokenizer_file)
    loaded = load_model(tmp_path)
    loss = [
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].reshape(-1)).item()
        for logits in (before, loaded(windows[:, :-1], 3))
    ]
    assert loss[1] < loss[0] - 0.5
    assert torch.equal(loaded(windows[:, :-1], 2), run.model(windows[:, :-1], 2))
    curve = json.loads((tmp_path / "curve.json").read_text())
    assert [point["step"] for point in curve] == [20]


def test_a_resumed_run_ends_at_the_weights_of_an_uninterrupted_one(
    tokens: np.ndarray, tokenizer_file: Path, tmp_path: Path
) -> None:
    whole = small_run(tokens, tmp_path / "whole", 6)
    train(whole, tokenizer_file)
    first = small_run(tokens, tmp_path / "parts", 6)
    train(first, tokenizer_file, stop_after=3)
    second = Run(trainable(tmp_path / "parts"), first.recipe, tokens, "cpu", tmp_path / "parts")
    second.restore()
    assert second.step == 3
    train(second, tokenizer_file)
    for (name, expected), (_, actual) in zip(
        whole.model.named_parameters(), second.model.named_parameters(), strict=True
    ):
        assert torch.equal(expected, actual), name
    assert not torch.equal(whole.model.transformer["wte"].weight, first.model.transformer["wte"].weight)


def test_a_seed_decides_the_run(tokens: np.ndarray, tmp_path: Path) -> None:
    losses = [[small_run(tokens, tmp_path, 2, seed).advance() for _ in range(2)] for seed in (1, 2)]
    assert losses[0][0] == losses[0][1] and losses[0] != losses[1]


def test_each_sequence_loops_its_own_number_of_times() -> None:
    model = new_model(small_config(32, 64), seed=0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    generator = torch.Generator().manual_seed(2)
    text = torch.randint(0, 64, (3, 17), generator=generator)
    state = draw_state(model, 3, 16, generator)
    counts = torch.tensor([5, 3, 1])
    together = looped_loss(model, Stages.of(model), text, counts, state, depth=2, half=False)
    apart = [
        torch.nn.functional.cross_entropy(
            model(text[row : row + 1, :-1], int(counts[row]), state[row : row + 1])[0], text[row, 1:]
        )
        for row in range(3)
    ]
    assert together.item() == pytest.approx(sum(loss.item() for loss in apart) / 3, abs=1e-5)


def test_only_the_last_loops_carry_gradients() -> None:
    model = new_model(small_config(32, 64), seed=0)
    text = torch.randint(0, 64, (1, 9), generator=torch.Generator().manual_seed(2))
    first = torch.zeros(1, 8, 32, requires_grad=True)
    for loops, reached in ((2, True), (3, False)):
        first.grad = None
        looped_loss(model, Stages.of(model), text, torch.tensor([loops]), first, depth=2, half=False).backward()
        assert (first.grad is not None and bool(first.grad.abs().sum() > 0)) is reached


def test_every_window_is_seen_once_an_epoch() -> None:
    tokens = np.arange(1000, dtype=np.uint16)
    batches = Batches(tokens, sequence=10, batch=3, seed=0)
    starts = [int(row[0]) for step in range(32) for row in batches(step)]
    assert len(set(starts)) == len(starts) == 96 == batches.per_epoch - 2
    assert torch.equal(batches(5), Batches(tokens, 10, 3, 0)(5))


def test_bf16_halves_the_file_and_keeps_the_poles(tmp_path: Path) -> None:
    model = new_model(small_config(32, 64), seed=0)
    with torch.no_grad():
        model.transformer["adapter"].A_log.normal_(generator=torch.Generator().manual_seed(0))
    save_model(model, tmp_path, torch.bfloat16)
    loaded = load_model(tmp_path)
    assert loaded.config == ParcaeConfig.from_file(tmp_path / "config.json") == model.config
    assert torch.equal(loaded.transformer["adapter"].decay(), model.transformer["adapter"].decay())
    wte = model.transformer["wte"].weight
    assert torch.equal(loaded.transformer["wte"].weight, wte.detach().bfloat16().float())
    assert (tmp_path / "model.safetensors").stat().st_size < 2.5 * sum(p.numel() for p in model.parameters())


def test_slowing_down_sets_the_decays_and_freezes_them() -> None:
    model = new_model(small_config(32, 64), seed=0)
    slow_down(model, seed=1)
    least, _, most = decay_range(model)
    assert (least, most) == (pytest.approx(LEAST_DECAY, abs=1e-6), pytest.approx(MOST_DECAY, abs=1e-6))
    assert not model.transformer["adapter"].dt_bias.requires_grad
    assert len(state_changes(model, torch.arange(12).view(2, 6), 4)) == 3


def test_windows_cover_the_document_and_are_scored_over_all_their_bytes(tokenizer_file: Path) -> None:
    from parcae_mobile.tokenizer import TextTokenizer

    tokenizer = TextTokenizer.load(tokenizer_file.parent)
    assert tokenizer is not None
    windows = cut(TEXT[:2000], [tokenizer], 60)
    assert "".join(windows) == TEXT[:2000]
    assert max(len(tokenizer.encode(window)) for window in windows) <= 60
    model = new_model(small_config(32, 300), seed=0).eval()
    with torch.no_grad():
        model.lm_head.weight.zero_()  # every token is then equally likely, of the padded vocabulary
    scores = score(model, tokenizer, windows[:3], (1, 2))
    assert scores[1].perplexity == pytest.approx(320, rel=1e-4)
    assert scores[1].bytes == len("".join(windows[:3]).encode())
    assert scores[2].bits_per_byte == pytest.approx(scores[2].tokens * np.log2(320) / scores[2].bytes, rel=1e-4)


def test_published_text_begins_with_the_named_documents_and_fits() -> None:
    assert select(["a", "b", "c", "d"], ["xxxx", "yy", "zzzzzzzz", "ww"], ["d", "b"], 12) == ["ww", "yy", "xxxx"]
