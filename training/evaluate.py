"""Measure a checkpoint against another on the same windows of held-out text, and sample from it.

    python -m training.evaluate --model parcae_mobile/tiny --against tests/data/tiny-trained --out docs/embedded-model

Windows are whole lines of one document, as many as fit 255 tokens in both tokenizers; each is read after an id that
begins a text, from the zero first state. All windows of all documents count. Writes `evaluation.json`; the tables and
plots are made of it by `python -m training.figures`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch import Tensor

from parcae_mobile.checkpoint import load_model
from parcae_mobile.kv_cache import KVCache
from parcae_mobile.model import Parcae
from parcae_mobile.text import SEPARATOR, read_text
from parcae_mobile.tokenizer import TextTokenizer

from .corpus import named_documents
from .measure import Score, cut, decay_range, score, state_changes

LOOPS = (1, 2, 3, 4, 6, 8, 12, 16)
SAMPLED_LOOPS = (1, 4, 8)
PROMPTS = ("def read_config(path):", "The argument parser", "class Stack:")
MOST_TOKENS = 255


def evaluate(model: Parcae, tokenizer: TextTokenizer, parts: dict[str, list[str]]) -> dict[str, Any]:
    """Likelihoods by part of the text and loop count."""
    result: dict[str, Any] = {"parameters": sum(p.numel() for p in model.parameters())}
    for part, windows in parts.items():
        totals: dict[int, list[Score]] = {loops: [] for loops in LOOPS}
        for start in track(range(0, len(windows), 16), description=f"{model.config.name}, {part}"):
            for loops, value in score(model, tokenizer, windows[start : start + 16], LOOPS).items():
                totals[loops].append(value)
        whole = {loops: _sum(values) for loops, values in totals.items()}
        result[part] = {
            "tokens": whole[1].tokens,
            "bits_per_byte": {str(loops): round(value.bits_per_byte, 4) for loops, value in whole.items()},
            "perplexity": {str(loops): round(value.perplexity, 3) for loops, value in whole.items()},
        }
    return result


def held_out_parts(documents: list[str]) -> dict[str, list[str]]:
    """The published held-out text begins with the standard library's documents; the rest is of packages."""
    library = sum(split == "heldout" for split in named_documents().values())
    return {"library": documents[:library], "packages": documents[library:]}


def windows_of(documents: list[str], tokenizers: Sequence[TextTokenizer]) -> list[str]:
    """All windows of the documents."""
    return [window for text in documents for window in cut(text, tokenizers, MOST_TOKENS)]


@torch.no_grad()
def sample(model: Parcae, tokenizer: TextTokenizer, prompt: str, loops: int, tokens: int, seed: int = 1) -> str:
    """A continuation, drawn at temperature 0.7 from the 40 most likely tokens, with the prompt before it."""
    generator = torch.Generator().manual_seed(seed)
    ids = [tokenizer.bos, *tokenizer.encode(prompt)]
    cache = KVCache(model.config, loops, context=len(ids) + tokens)
    chunk = torch.tensor([ids])
    for _ in range(tokens):
        logits = model(chunk, loops, cache=cache)[0, -1]
        values, choices = (logits / 0.7).topk(40)
        token = int(choices[torch.multinomial(values.softmax(-1), 1, generator=generator)])
        if token == tokenizer.eos:
            break
        ids.append(token)
        chunk = torch.tensor([[token]])
    return tokenizer.decode(ids[1:])


def first_ids(tokenizer: TextTokenizer, windows: Sequence[str], count: int, length: int) -> Tensor:
    """int64 (count, length) of the first windows that are long enough."""
    texts = [[tokenizer.bos, *tokenizer.encode(window)][:length] for window in windows]
    return torch.tensor([ids for ids in texts if len(ids) == length][:count])


def main() -> None:
    parser = argparse.ArgumentParser(description="Bits per byte, perplexity by loop count, state change and samples.")
    parser.add_argument("--model", type=Path, required=True, help="checkpoint folder")
    parser.add_argument("--against", type=Path, help="another checkpoint, on the same windows")
    parser.add_argument("--text", type=Path, help="held-out text (default: the package's)")
    parser.add_argument("--out", type=Path, required=True, help="folder for evaluation.json")
    options = parser.parse_args()
    folders = [options.model, *([options.against] if options.against else [])]
    tokenizers = []
    for folder in folders:
        tokenizer = TextTokenizer.load(folder)
        if tokenizer is None:
            raise SystemExit(f"{folder} has no tokenizer.json; give a checkpoint that was trained on text")
        tokenizers.append(tokenizer)
    text = read_text("heldout", options.text)
    documents = text.split(SEPARATOR)
    chosen = held_out_parts(documents) if options.text is None else {"text": documents}
    parts = {part: windows for part, texts in chosen.items() if (windows := windows_of(texts, tokenizers))}
    models = [load_model(folder) for folder in folders]
    ids = first_ids(tokenizers[0], next(iter(parts.values())), 8, 192)
    result = {
        "text": {
            "sha256": hashlib.sha256(text.encode("utf-8")).hexdigest(),
            "windows": {part: len(windows) for part, windows in parts.items()},
            "bytes": {part: sum(len(w.encode("utf-8")) for w in windows) for part, windows in parts.items()},
        },
        "models": [
            {"name": model.config.name, **evaluate(model, tokenizer, parts)}
            for model, tokenizer in zip(models, tokenizers, strict=True)
        ],
        "state_changes": [round(change, 4) for change in state_changes(models[0], ids, max(LOOPS))],
        "decay": [round(value, 4) for value in decay_range(models[0])],
        "samples": [
            {"prompt": prompt, "loops": loops, "text": sample(models[0], tokenizers[0], prompt, loops, 80)}
            for prompt in PROMPTS
            for loops in SAMPLED_LOOPS
        ],
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "evaluation.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _sum(scores: list[Score]) -> Score:
    return Score(sum(s.nats for s in scores), sum(s.tokens for s in scores), sum(s.bytes for s in scores))


if __name__ == "__main__":
    main()
