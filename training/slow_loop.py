"""A checkpoint whose loop has not converged at T=8, as a test fixture.

    python -m training.slow_loop --model tests/data/tiny-trained --corpus CORPUS --out tests/data/slow-loop --minutes 9

A trained model's loop converges within about four loops, which flatters everything that skips or shares loops. Here
the injection's decays are set to 0.80 to 0.98, kept there, and everything else is trained on. This is a stress model,
not a regime that training finds.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from parcae_mobile.injection import DiagonalInjection
from parcae_mobile.model import Parcae
from parcae_mobile.text import SEPARATOR

from .batches import even_windows
from .checkpoints import save_model, trainable
from .corpus import Document, encode
from .shape import inverse_softplus
from .train import Recipe, Run, quiet_norms, train

LEAST_DECAY, MOST_DECAY = 0.80, 0.98


def slow_down(model: Parcae, seed: int) -> None:
    """Set the decays evenly over the range, in a seeded order, by the step sizes; freeze them."""
    injection = model.transformer["adapter"]
    assert isinstance(injection, DiagonalInjection)
    width = injection.dt_bias.shape[0]
    order = torch.randperm(width, generator=torch.Generator().manual_seed(seed))
    decay = torch.linspace(LEAST_DECAY, MOST_DECAY, width)[order]
    steps = -decay.log() / injection.A_log.detach().exp()
    with torch.no_grad():
        injection.dt_bias.copy_(torch.tensor([inverse_softplus(float(step)) for step in steps]))
    injection.dt_bias.requires_grad_(False)
    injection.A_log.requires_grad_(False)


def read_texts(corpus: Path, split: str) -> list[Document]:
    """The documents of a split of a prepared corpus, for another tokenizer than the corpus's."""
    text = (corpus / f"{split}.txt").read_bytes().decode("utf-8")
    return [Document(f"{split}/{index}", part) for index, part in enumerate(text.split(SEPARATOR))]


def main() -> None:
    parser = argparse.ArgumentParser(description="Fine-tune a checkpoint whose decays are set near 1.")
    parser.add_argument("--model", type=Path, required=True, help="trained checkpoint with a diagonal injection")
    parser.add_argument("--corpus", type=Path, required=True, help="folder that python -m training.corpus wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    quiet_norms()
    if not (options.corpus / "train.txt").exists():
        raise SystemExit(f"no text in {options.corpus}: python -m training.corpus --out {options.corpus}")
    tokenizer = Tokenizer.from_file(str(options.model / "tokenizer.json"))
    tokens: dict[str, np.ndarray] = {
        split: encode(tokenizer, read_texts(options.corpus, split)) for split in ("train", "calibration")
    }
    model = trainable(options.model)
    model.config = replace(model.config, name="slow-loop")
    slow_down(model, options.seed)
    recipe = Recipe(
        minutes=options.minutes, batch=8, micro_batch=8, muon_rate=0.008, embedding_rate=0.003, seed=options.seed
    )
    with tempfile.TemporaryDirectory() as scratch:
        run = Run(model, recipe, tokens["train"], "cpu", Path(scratch))
        train(run, options.model / "tokenizer.json", even_windows(tokens["calibration"], 256, 16))
    save_model(run.model, options.out, torch.bfloat16)
    shutil.copyfile(options.model / "tokenizer.json", options.out / "tokenizer.json")


if __name__ == "__main__":
    main()
