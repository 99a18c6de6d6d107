"""Three small tokenizers of the kinds that released models have, written as `tokenizer.json`.

byte-level     GPT-2's regular expression; added tokens that are special, strip white space, or are single words
split-regex    NFC, then Llama 3's regular expression, then bytes; whole words are looked up before merging
byte-fallback  SentencePiece's: U+2581 for a space, unknown characters as <0xNN>
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from .texts import TEXTS

LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
MERGES = 160


def _trained(tokenizer: Tokenizer, alphabet: list[str], special: list[str]) -> Tokenizer:
    size = len(alphabet) + len(special) + MERGES
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, initial_alphabet=alphabet, limit_alphabet=len(alphabet)
    )
    tokenizer.train_from_iterator(list(TEXTS.values()) * 2, trainer)
    return tokenizer


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer = _trained(tokenizer, sorted(pre_tokenizers.ByteLevel.alphabet()), ["<|bos|>", "<|eos|>"])
    tokenizer.add_tokens(
        [
            AddedToken("<think>", normalized=False),
            AddedToken("</think>", normalized=False),
            AddedToken("<mask>", lstrip=True, normalized=False),
            AddedToken("<pad>", rstrip=True, normalized=False),
            AddedToken("cat", single_word=True, normalized=False),
        ]
    )
    return tokenizer


def split_regex() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA_3), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return _trained(tokenizer, sorted(pre_tokenizers.ByteLevel.alphabet()), ["<|bos|>", "<|eos|>"])


def byte_fallback() -> Tokenizer:
    letters = sorted({*"abcdefghijklmnopqrstuvwxyzTI.,'\u2581\u00e9"})
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    pieces = ["\u2581a", "\u2581t", "\u2581the", "th", "the", "in", "er", "re", "on", "\u2581\u2581", "\u2581" * 4]
    pieces += ["lo", "loo", "loop", "\u2581loop", "ag", "ai", "agai", "\u2581agai", "again", "\u2581again", "ca"]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(["<unk>", "<s>", "</s>", *bytes_, *letters]))}
    merges = []
    for piece in ["th", "the", "\u2581t", "\u2581the", "\u2581a", "in", "er", "re", "on", "lo", "loo", "loop"]:
        merges.append(_merge(piece, vocabulary))
    for piece in pieces:
        if piece not in vocabulary:
            merges.append(_merge(piece, vocabulary))
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return tokenizer


def _merge(piece: str, vocabulary: dict[str, int]) -> tuple[str, str]:
    """The pair that makes `piece`, both of which are in the vocabulary; `piece` joins it."""
    for cut in range(len(piece) - 1, 0, -1):
        left, right = piece[:cut], piece[cut:]
        if left in vocabulary and right in vocabulary:
            vocabulary[piece] = len(vocabulary)
            return left, right
    raise ValueError(f"no pair of known pieces makes {piece!r}")


TOKENIZERS: dict[str, Callable[[], Tokenizer]] = {
    "byte-level": byte_level,
    "split-regex": split_regex,
    "byte-fallback": byte_fallback,
}


def write_tokenizers(folder: Path) -> None:
    """`NAME.json` for each of them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in TOKENIZERS.items():
        (folder / f"{name}.json").write_text(make().to_str(pretty=False) + "\n", encoding="utf-8")
