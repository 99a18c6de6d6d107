"""Put a finished run and its text into the package: bf16 weights, tokenizer, held-out and calibration text.

    python -m training.publish --run RUN --corpus CORPUS --out parcae_mobile/tiny

The injection's `A_log` and `dt_bias` stay fp32. Held-out text begins with the documents that the floor model did not
see either (`splits.txt`); calibration text is in hash order, so that its beginning is already a mixture.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from parcae_mobile.checkpoint import load_model
from parcae_mobile.text import SEPARATOR

from .checkpoints import save_model
from .corpus import named_documents

MOST_BYTES = 400_000


def select(names: list[str], texts: list[str], first: list[str], most: int) -> list[str]:
    """Texts in their order but those named in `first` before the others, each taken while all fit `most` bytes."""
    place = {name: index for index, name in enumerate(first)}
    order = sorted(range(len(names)), key=lambda i: place.get(names[i], len(place)))
    chosen, size = [], 0
    for index in order:
        cost = len(texts[index].encode("utf-8")) + 1
        if size + cost <= most:
            chosen.append(texts[index])
            size += cost
    return chosen


def publish_text(corpus: Path, split: str, out: Path) -> None:
    """Write a split's choice of documents, separated by U+001E."""
    names = json.loads((corpus / "corpus.json").read_text(encoding="utf-8"))[split]["documents"]
    texts = (corpus / f"{split}.txt").read_bytes().decode("utf-8").split(SEPARATOR)
    first = list(named_documents()) if split == "heldout" else []
    chosen = select(names, texts, first, MOST_BYTES)
    (out / f"{split}.txt").write_bytes(SEPARATOR.join(chosen).encode("utf-8"))
    print(f"{split}.txt: {len(chosen)} of {len(texts)} documents")


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a run's model and text as the package's embedded files.")
    parser.add_argument("--run", type=Path, required=True, help="folder that python -m training.train wrote")
    parser.add_argument("--corpus", type=Path, required=True, help="folder that python -m training.corpus wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    options = parser.parse_args()
    save_model(load_model(options.run), options.out, torch.bfloat16, options.run / "tokenizer.json")
    for split in ("heldout", "calibration"):
        publish_text(options.corpus, split, options.out)


if __name__ == "__main__":
    main()
