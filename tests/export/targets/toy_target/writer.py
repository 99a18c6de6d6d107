"""Writes the eager model with the quantized values, and reads it back."""

from __future__ import annotations

from pathlib import Path

import torch

from export.targets.registry import StoredInjection, WriteOptions
from parcae_mobile import Parcae
from parcae_mobile.injection import DiagonalInjection
from parcae_mobile.manifest import Port, Signature
from quantize.apply import QuantizedModel

MODEL = "model.toy"


def write(quantized: QuantizedModel, folder: Path, options: WriteOptions) -> None:
    torch.save(quantized.model, folder / MODEL)


def read(folder: Path) -> Parcae:
    model: Parcae = torch.load(folder / MODEL, weights_only=False)
    return model


def signatures(folder: Path) -> dict[str, Signature]:
    logits = [1, "positions", read(folder).config.padded_vocab_size]
    return {
        MODEL: Signature(
            inputs=[Port(name="input_ids", dtype="int64", shape=[1, "sequence"])],
            outputs=[Port(name="logits", dtype="float32", shape=logits)],
        )
    }


def read_injection(folder: Path) -> StoredInjection | None:
    injection = read(folder).transformer["adapter"]
    if not isinstance(injection, DiagonalInjection):
        return None
    with torch.no_grad():
        return StoredInjection(injection.decay(), injection.dt(), injection.B)
