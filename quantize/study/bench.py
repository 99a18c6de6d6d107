"""What all measurements share: a model, its held-out windows with one reference run at T=8, its calibration text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from parcae_mobile.checkpoint import load_model
from parcae_mobile.model import Parcae
from parcae_mobile.parity import Distance
from parcae_mobile.text import TokenText, text_ids

from ..algorithms import draw_windows
from ..apply import Quantizer, quantize_model
from ..compression import HeldOut
from ..recipe import Recipe

WINDOWS, LENGTH, LOOPS = 32, 256, 8


@dataclass
class Bench:
    """Distances are at T=8 on 32 windows of 256 held-out tokens, against the fp32 model."""

    model: Parcae
    windows: Tensor
    text: TokenText
    held_out: HeldOut
    reported: Tensor

    @classmethod
    def open(cls, folder: Path) -> Bench:
        model = load_model(folder)
        vocabulary = model.config.vocab_size
        held_out, text = (_text(folder, split, vocabulary) for split in ("heldout", "calibration"))
        chosen = held_out.windows(WINDOWS, LENGTH)
        return cls(model, chosen, text, HeldOut(model, chosen, (LOOPS,)), reported_windows(held_out))

    def calibration(self, draw: int = 0, count: int = 32) -> Tensor:
        return draw_windows(self.text, count, LENGTH, seed=draw)

    def distance(self, model: Parcae) -> Distance:
        return self.held_out.measure(model)[0][LOOPS]

    def quantize(self, recipe: Recipe, quantizer: Quantizer) -> Distance:
        return self.distance(quantize_model(self.model, recipe, quantizer).model)

    def weights(self) -> dict[str, Tensor]:
        return dict(self.model.named_parameters())


def _text(folder: Path, split: str, vocabulary: int) -> TokenText:
    """The split that a reference checkpoint was trained with, if it is beside it; else the package's text."""
    own = folder / f"{split}_tokens.npy"
    if own.exists():
        return TokenText(torch.from_numpy(np.load(own).astype(np.int64)), str(own))
    return text_ids(folder, split, vocab_size=vocabulary, least=2**16)


def reported_windows(text: TokenText, most: int = 64) -> Tensor:
    """(n, length + 1) ids that no choice looked at: of what follows the windows of all other tables, every second one.

    At most `most`, spread over the text; for a text without so much behind those windows, what there is.
    """
    count = len(text.ids) // (LENGTH + 1)
    rest = text.windows(count, LENGTH)[WINDOWS:][1::2]
    return rest if len(rest) <= most else rest[torch.linspace(0, len(rest) - 1, most).long()]


def asymmetric(recipe: Recipe) -> Recipe:
    """The recipe with zero points wherever it has fewer than 8 bits."""
    rules = tuple(replace(rule, symmetric=False) if rule.bits < 8 else rule for rule in recipe.rules)
    return replace(recipe, name=f"{recipe.name} asymmetric", rules=rules)


def spread(distances: Sequence[Distance]) -> list[str]:
    """Cells for several draws: each KL, their mean, half their range as a share of it, mean top-1."""
    kls = [distance.kl_mean for distance in distances]
    mean = sum(kls) / len(kls)
    top1 = sum(distance.top1 for distance in distances) / len(distances)
    return [*(f"{kl:.5f}" for kl in kls), f"{mean:.5f}", f"{(max(kls) - min(kls)) / 2 / mean:.1%}", f"{top1:.2%}"]
