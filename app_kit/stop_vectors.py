"""Stop vectors: texts that end an answer wherever pieces are cut, and token ids that end it."""

from __future__ import annotations

from typing import Any

from parcae_mobile.stopping import StopTexts
from parcae_mobile.text import EMBEDDED_MODEL
from parcae_mobile.tokenizer import TextTokenizer

from .files import Cases

TEXTS: list[tuple[str, list[str], list[str]]] = [
    ("no stops", [], ["Hello", " world"]),
    ("not in the text", ["###"], ["Hello", " world", "##", "!"]),
    ("in one piece", ["###"], ["Hello### world"]),
    ("over two pieces", ["User:"], ["Fine.\nUs", "er: and"]),
    ("over many pieces", ["User:"], ["a", "U", "s", "e", "r", ":", "b"]),
    ("at the very beginning", ["\n\n"], ["\n", "\n", "x"]),
    ("at the very end", ["\n\n"], ["x\n", "\n"]),
    ("held back, then let go", ["User:"], ["Us", "ed cars"]),
    ("held back at the end", ["User:"], ["Good. Use"]),
    ("several: the one that ends first", ["END", "\n\n"], ["a\n", "\nEND"]),
    ("several: overlapping, the one that ends first", ["abcd", "bc"], ["xab", "cd"]),
    ("one begins another: the shorter ends first", ["ab", "abc"], ["xab", "c"]),
    ("two end together: the longer counts", ["lo", "hello"], ["oh hel", "lo!"]),
    ("falls back to a shorter beginning", ["aab"], ["a", "a", "a", "b", "c"]),
    ("restarts inside of itself", ["abab"], ["abac", "abab"]),
    ("self-overlap", ["aa"], ["baaa"]),
    ("case matters", ["stop"], ["Stop STOP st", "op"]),
    ("composed is not decomposed", ["\u00e9"], ["e\u0301 caf", "\u00e9!"]),
    ("a letter of a decomposed character", ["e"], ["caf", "e\u0301"]),
    ("outside of the basic plane", ["\U0001f600"], ["hi \U0001f601", "\U0001f600 bye"]),
    ("a part of a joined emoji", ["\U0001f469"], ["\U0001f468\u200d", "\U0001f469\u200d\U0001f467"]),
    ("CR LF is two characters", ["\n"], ["a\r", "\nb"]),
    ("only white space", ["   "], ["a ", " b  ", " c"]),
    ("NUL", ["\u0000"], ["a", "\u0000b"]),
    ("empty pieces", ["ab"], ["", "a", "", "b", ""]),
    ("right to left", ["\u05d1\u05d2"], ["\u05d0\u05d1", "\u05d2\u05d3"]),
]


def stop_vectors() -> Cases:
    """Text cases, and cases of token ids through the embedded model's tokenizer."""
    tokenizer = TextTokenizer.load(EMBEDDED_MODEL)
    assert tokenizer is not None
    tokens = []
    for name, text, stops, stop_ids in [
        ("a text over token borders", "def f(x):\n    return x\n\n\nclass A:\n", ["\n\nclass"], [0]),
        ("a text inside of a token", "return self.value", ["tur"], [0]),
        ("an emoji of several tokens", "ok \U0001f600 done", ["\U0001f600"], [0]),
    ]:
        tokens.append(token_case(tokenizer, name, tokenizer.encode(text), stops, stop_ids))
    ids = tokenizer.encode("import os\nimport sys\n")
    colon = tokenizer.encode("\n")[0]
    tokens += [
        token_case(tokenizer, "one stop id", [*ids, 0, *ids], [], [0]),
        token_case(tokenizer, "several stop ids, the first that comes", [*ids, 0, *ids], [], [colon, 0]),
        token_case(tokenizer, "a stop id at once", [0, *ids], [], [0]),
        token_case(tokenizer, "a stop id lets held text go", [*tokenizer.encode("a Us"), 0], ["User:"], [0]),
        token_case(tokenizer, "no stop id in sight", ids, [], [0]),
    ]
    return {"texts": [text_case(*case) for case in TEXTS], "tokens": tokens, "bad": [{"case": "empty", "stops": [""]}]}


def text_case(name: str, stops: list[str], pieces: list[str]) -> dict[str, Any]:
    """What is shown after each piece, after the last, and which stop ended it (null: none)."""
    stop = StopTexts(stops)
    shown = [stop.feed(piece) for piece in pieces]
    return {"case": name, "stops": stops, "pieces": pieces, "shown": shown, "rest": stop.finish(), "found": stop.found}


def token_case(
    tokenizer: TextTokenizer, name: str, ids: list[int], stops: list[str], stop_ids: list[int]
) -> dict[str, Any]:
    """What an answer of these tokens shows, and how many of them were used (the one that ended it included)."""
    stop, shown, used = StopTexts(stops), "", 0
    ended = next((place for place, token in enumerate(ids) if token in stop_ids), len(ids))
    pieces = tokenizer.pieces(ids[:ended])
    for piece in pieces[:-1]:
        shown, used = shown + stop.feed(piece), used + 1
        if stop.found is not None:
            break
    by_id = stop.found is None and ended < len(ids)
    if stop.found is None:
        shown += stop.feed(pieces[-1]) + stop.finish()
    return {"case": name, "ids": ids, "stops": stops, "stop_ids": stop_ids, "text": shown, "used": used + by_id} | {
        "ended_by": "text" if stop.found is not None else "id" if by_id else None
    }
