"""Greedy answers of this repository's own hosts, which the engines of the app have to repeat.

    python android_demo/tools/answers.py dist/parcae-tiny-onnx-dynamic-int4 > android_demo/build/answers.json

The folder is an artifact. Each case is a list of turns from an empty cache: ids that are given, loops, exit threshold,
and the tokens that follow; `rewind` forgets what comes after so many tokens first.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from export.targets.host import Host
from export.targets.registry import find_target, load_host
from parcae_mobile.manifest import read_manifest
from parcae_mobile.tokenizer import TextTokenizer

PROMPTS = ["import os\n\n\ndef ", "class Stack:\n    def __init__(self):\n", "The loop runs until the state"]
LOOPS = (1, 4, 8)
TOKENS = 64


def answer(host: Host, given: Sequence[int], loops: int, threshold: float, count: int) -> dict[str, Any]:
    """`count` greedy tokens after `given`, and the loops that each of them took."""
    start = host.length
    row, tokens, used = host.prefill(list(given), loops), list[int](), list[int]()
    for place in range(count):
        tokens.append(int(row.argmax()))
        used.append(host.loops_used)
        if place + 1 < count:
            row = host.run(tokens[-1:], loops, exit_threshold=threshold)[-1]
    turn = {"held": start, "given": list(given), "loops": loops, "threshold": threshold}
    return turn | {"tokens": tokens, "loops_used": used}


def cases(host: Host, tokenizer: TextTokenizer, early_exit: bool) -> list[dict[str, Any]]:
    """Prompts at each T; one that leaves the loop early; the same question again at another T; a long one; the end."""
    texts = {prompt: [tokenizer.bos, *tokenizer.encode(prompt)] for prompt in PROMPTS}
    told = []
    for prompt, ids in texts.items():
        for loops in LOOPS:
            host.reset()
            told.append({"case": f"{prompt!r} at T={loops}", "turns": [answer(host, ids, loops, 0.0, TOKENS)]})
    ids = texts[PROMPTS[0]]
    for threshold in (0.05, 0.2) if early_exit else ():
        host.reset()
        turns = [answer(host, ids, 8, threshold, TOKENS), answer(host, tokenizer.encode("\n\nclass"), 4, 0.0, 16)]
        told.append({"case": f"early exit at {threshold}", "turns": turns})
    host.reset()
    turns = [answer(host, ids, 4, 0.0, 24)]
    for loops in (1, 4, 2):
        host.rewind(len(ids) - 1)
        turns.append(answer(host, ids[-1:], loops, 0.0, 24))
    told.append({"case": "the same answer at another T", "turns": turns})
    host.reset()
    long = [tokenizer.bos, *tokenizer.encode("    # one more line of a long comment\n" * 40)]
    told.append({"case": "a prompt of several chunks", "turns": [answer(host, long, 4, 0.0, 16)]})
    host.reset()
    most = host.geometry.context
    full = ([tokenizer.bos, *tokenizer.encode("x = 1\n" * most)])[: most - 7]
    told.append({"case": "up to the end of the context", "turns": [answer(host, full, 2, 0.0, 8)]})
    return told


def main(folder: Path) -> None:
    manifest, tokenizer = read_manifest(folder), TextTokenizer.load(folder)
    if tokenizer is None:
        raise SystemExit(f"{folder}: has no tokenizer.json")
    host = load_host(find_target(manifest.target))(folder, manifest, 1)
    early_exit = manifest.target == "onnx" or manifest.kv.policy != "full"
    print(json.dumps({"context": host.geometry.context, "cases": cases(host, tokenizer, early_exit)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
