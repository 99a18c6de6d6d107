"""Vectors of the embedded model in fp32: golden logits, greedy answers at each T, conversations that change T.

They hold for every artifact of `parcae-export --quant fp32`, whatever its target, within `tolerance`: an answer is cut
off before the first token whose logit leads by less than `LEAD`, so no device can choose another one by rounding.
"""

from __future__ import annotations

from typing import Any

import torch

from parcae_mobile import Parcae, load_model
from parcae_mobile.early_exit import decode_step
from parcae_mobile.golden import exact_arithmetic, weights_sha256
from parcae_mobile.kv_cache import KVCache
from parcae_mobile.loops import LOOPS
from parcae_mobile.text import EMBEDDED_MODEL, text_ids
from parcae_mobile.tokenizer import TextTokenizer

from .files import Cases

TOLERANCE = 1e-4
CLEAR = 2e-4  # share of the threshold
LEAD = 2e-3
EVERY = 16  # of a golden row this many ids apart are kept
POSITIONS = 32
TOKENS = 48
POLICIES = ("full", "shared")
PROMPTS = ["import os\n\n\ndef ", "class Stack:\n    def __init__(self):\n", "The loop runs until the state"]
Turn = tuple[str, int, float, int]  # text, loops, exit threshold, most tokens
CONVERSATIONS: dict[str, list[Turn]] = {
    "T goes up and down": [
        ("def area(", 2, 0, 12),
        ("\n\nclass", 8, 0, 12),
        ("\nimport", 1, 0, 12),
        ("\n\ndef main(", 4, 0, 12),
    ],
    "early exit": [("def total(values):\n", 8, 0.05, 24), ("\n\nfor", 8, 0.1, 16), ("\n    return", 4, 0, 8)],
    "a long prompt in chunks": [("    # one more line of a long comment\n" * 24, 4, 0, 8), ("def", 8, 0, 8)],
}
CHUNK = 128


class Talk:
    """A conversation with the eager model: messages go in in chunks, the token last shown goes in with the next one."""

    def __init__(self, model: Parcae, policy: str, nearly: float = 1.0) -> None:
        self.model, self.nearly = model, nearly
        self.cache = KVCache(model.config, max(LOOPS), policy=policy)
        self.pending: list[int] = []

    @torch.no_grad()
    def turn(self, ids: list[int], loops: int, threshold: float, most: int) -> dict[str, Any]:
        """Greedy tokens after `ids`, and the loops of each (the first one's are the message's)."""
        given = [*self.pending, *ids]
        logits = torch.empty(0)
        for start in range(0, len(given), CHUNK):
            piece = torch.tensor([given[start : start + CHUNK]])
            logits = self.model(piece, loops, cache=self.cache, positions=torch.tensor([piece.shape[1] - 1]))
        tokens: list[int] = []
        used = []
        count = loops
        while len(tokens) < most:
            best = logits[0, -1].topk(2).values
            if float(best[0] - best[1]) < LEAD:
                break
            tokens.append(int(logits[0, -1].argmax()))
            used.append(count)
            if len(tokens) == most:
                break
            step = decode_step(self.model, torch.tensor([tokens[-1:]]), loops, threshold * self.nearly, self.cache)
            logits, count = step[0], int(step[1])
        if len(tokens) < most:  # the next token is undecided, but the last one was given to find that out
            self.cache.length -= 1
        if not tokens:
            raise ValueError(f"no clear token after {ids}; choose another text")
        self.pending = tokens[-1:]
        return {"given": given, "loops": loops, "threshold": threshold, "tokens": tokens, "loops_used": used}


def model_vectors() -> tuple[Cases, dict[str, Any]]:
    """Golden logits, greedy answers and conversations, and what they were made from."""
    model, tokenizer = load_model(EMBEDDED_MODEL), TextTokenizer.load(EMBEDDED_MODEL)
    assert tokenizer is not None
    with exact_arithmetic("cpu"), torch.no_grad():
        ids = text_ids(EMBEDDED_MODEL, "heldout").ids[:POSITIONS]
        golden = []
        for loops in LOOPS:
            row = model(ids[None], loops)[0, -1]
            values = [round(float(value), 5) for value in row[::EVERY]]
            golden.append({"loops": loops, "argmax": int(row.argmax()), "logits": values})
        greedy = [
            {"prompt": prompt, "policy": policy, **answer(Talk(model, policy), tokenizer, prompt, loops)}
            for prompt in PROMPTS
            for policy in POLICIES
            for loops in LOOPS
        ]
        talks = [
            {"case": name, "policy": policy, "turns": conversation(model, tokenizer, policy, turns)}
            for name, turns in CONVERSATIONS.items()
            for policy in POLICIES
        ]
    facts: dict[str, Any] = {
        "artifact": {"arguments": ["--quant", "fp32"], "recipe": "fp32", "weights_sha256": weights_sha256(model)}
    }
    facts |= {"tolerance": TOLERANCE, "chunk": CHUNK, "every": EVERY, "input_ids": ids.tolist()}
    return {"golden": golden, "greedy": greedy, "conversations": talks}, facts


def answer(talk: Talk, tokenizer: TextTokenizer, prompt: str, loops: int) -> dict[str, Any]:
    """The greedy answer to a prompt from an empty cache."""
    turn = talk.turn([tokenizer.bos, *tokenizer.encode(prompt)], loops, 0.0, TOKENS)
    return {"given": turn["given"], "loops": loops, "tokens": turn["tokens"]}


def conversation(model: Parcae, tokenizer: TextTokenizer, policy: str, turns: list[Turn]) -> list[dict[str, Any]]:
    """The turns of a conversation. Raises if a token leaves within `CLEAR` of the threshold."""
    told: list[list[dict[str, Any]]] = []
    for nearly in (1.0, 1 - CLEAR, 1 + CLEAR):
        talk = Talk(model, policy, nearly)
        first = [tokenizer.bos]
        told.append([])
        for text, loops, threshold, most in turns:
            told[-1].append(talk.turn([*first, *tokenizer.encode(text)], loops, threshold, most))
            first = []
    if not told[0] == told[1] == told[2]:
        raise ValueError(f"{turns[0][0]!r}: a token leaves the loop too near the threshold; choose another one")
    return told[0]
