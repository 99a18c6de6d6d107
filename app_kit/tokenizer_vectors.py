"""Tokenizer vectors, by the tokenizers library: encode, decode, and decoding in a stream."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from parcae_mobile.manifest import sha256_of
from parcae_mobile.text import EMBEDDED_MODEL
from parcae_mobile.tokenizer import TextTokenizer

from .files import Cases
from .texts import BYTES, LONE_SURROGATES, TEXTS
from .tiny_tokenizers import TOKENIZERS

EMBEDDED = "embedded"


def tokenizer_vectors(folder: Path) -> tuple[Cases, dict[str, Any]]:
    """Cases and the checksum of each tokenizer file; `folder` holds those of `tiny_tokenizers.py`."""
    paths = {EMBEDDED: EMBEDDED_MODEL / "tokenizer.json", **{name: folder / f"{name}.json" for name in TOKENIZERS}}
    cases: Cases = {"encode": [], "encode_utf16": [], "decode": [], "stream": []}
    for name, path in paths.items():
        tokenizer = TextTokenizer.read(path)
        for case, text in TEXTS.items():
            ids = tokenizer.encode(text)
            cases["encode"].append(
                {"tokenizer": name, "case": case, "text": text, "ids": ids, "decoded": tokenizer.decode(ids)}
            )
            if case in ("emoji joined", "many combining marks", "chinese", "mixed"):
                cases["stream"].append(stream_case(tokenizer, name, case, ids))
        for case, units in LONE_SURROGATES.items():
            cases["encode_utf16"].append(
                {"tokenizer": name, "case": case, "utf16": units, "ids": tokenizer.encode(well_formed(units))}
            )
        for case, spelled in BYTES.items():
            ids = [byte_id(tokenizer, byte) for byte in spelled]
            # A run of byte tokens that is no UTF-8 as a whole has no text that a stream could show in time.
            if name != "byte-fallback" or "\ufffd" not in tokenizer.decode(ids):
                cases["stream"].append(stream_case(tokenizer, name, case, ids))
        special = [tokenizer.bos, *tokenizer.encode("loop"), tokenizer.eos, *tokenizer.encode(" again")]
        cases["decode"].append(
            {"tokenizer": name, "case": "special tokens are left out", "ids": special}
            | {"decoded": tokenizer.decode(special)}
        )
        cases["decode"].append({"tokenizer": name, "case": "nothing", "ids": [], "decoded": ""})
    files = {
        name: {"file": "tokenizer.json of the embedded model" if name == EMBEDDED else f"tokenizers/{name}.json"}
        | {"sha256": sha256_of(path)}
        for name, path in paths.items()
    }
    return cases, {"tokenizers": files}


def well_formed(units: list[int]) -> str:
    """Text of UTF-16 code units, each lone half of a pair replaced by U+FFFD."""
    text, place = "", 0
    while place < len(units):
        unit = units[place]
        following = units[place + 1] if place + 1 < len(units) else 0
        if 0xD800 <= unit < 0xDC00 and 0xDC00 <= following < 0xE000:
            text += chr(0x10000 + (unit - 0xD800 << 10) + (following - 0xDC00))
            place += 2
            continue
        text += "\ufffd" if 0xD800 <= unit < 0xE000 else chr(unit)
        place += 1
    return text


def byte_id(tokenizer: TextTokenizer, byte: int) -> int:
    """The token of one byte."""
    for name in (f"<0x{byte:02X}>", _byte_level(byte)):
        row = tokenizer.id_of(name)
        if row is not None:
            return row
    raise ValueError(f"no token for byte {byte:#x}")


def _byte_level(byte: int) -> str:
    """GPT-2's character for a byte: itself where it is printable, otherwise the next one from U+0100."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    if byte in printable:
        return chr(byte)
    return chr(256 + [other for other in range(256) if other not in printable].index(byte))


def stream_case(tokenizer: TextTokenizer, name: str, case: str, ids: list[int]) -> dict[str, Any]:
    """Pieces by token, `null` in place of the list where bytes are no UTF-8 and only the whole text is fixed."""
    pieces, text = tokenizer.pieces(ids), tokenizer.decode(ids).rstrip("\ufffd")
    if "".join(pieces) != text:
        raise ValueError(f"{name}, {case}: the pieces are not the text")
    return {"tokenizer": name, "case": case, "ids": ids, "text": text, "pieces": None if "\ufffd" in text else pieces}
