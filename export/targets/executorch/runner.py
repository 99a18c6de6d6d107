"""The stock text runner of the executorch package on a static artifact, in a process of its own:

    python -m export.targets.executorch.runner model.pte tokenizer.json "<|bos|>Once upon a time" --tokens 64

It is the code that Android's LlmModule and iOS's TextRunner wrap. Prints one JSON object with the greedy text and its
pieces, one for each token. The runner adds no first token to a tokenizer that does not ask for one, so a prompt begins
with it.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import sys
from importlib import resources

from export.targets.executorch.host import KERNELS, silent_stderr


def generate(model: str, tokenizer: str, prompt: str, tokens: int) -> list[str]:
    """The greedy continuation of `prompt`, a piece of text for each of `tokens` tokens unless the text ends before."""
    for package, library in KERNELS:  # the runner is a library of its own and finds only what is global
        ctypes.CDLL(str(resources.files(package).joinpath(library)), mode=ctypes.RTLD_GLOBAL)
    from executorch.extension.llm.runner import GenerationConfig, TextLLMRunner

    pieces: list[str] = []
    config = GenerationConfig(max_new_tokens=tokens, temperature=0.0, echo=False)
    TextLLMRunner(model, tokenizer).generate(prompt, config, pieces.append, lambda stats: None)
    return pieces


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("tokenizer")
    parser.add_argument("prompt")
    parser.add_argument("--tokens", type=int, default=64)
    arguments = parser.parse_args()
    stdout = os.dup(1)
    os.dup2(2, 1)  # the runner prints the text as it comes
    with silent_stderr():
        pieces = generate(arguments.model, arguments.tokenizer, arguments.prompt, arguments.tokens)
    sys.stdout.flush()
    os.dup2(stdout, 1)
    print(json.dumps({"text": "".join(pieces), "pieces": pieces}))


if __name__ == "__main__":
    main()
