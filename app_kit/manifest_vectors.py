"""Manifest vectors: one good manifest with its files, changes to it that have to be refused and some that have not.

A case lists changes of the base manifest (`set` a value at a path, or `remove` what is there) or gives a `text` in its
place, and changes of the files in the folder. With `bytes`, spaces follow the text until it has that many bytes in
UTF-8. `kind` is null where an app has to accept it.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json
from typing import Any

from parcae_mobile.app_manifest import MOST_APP_MANIFEST

from .files import Cases

CONTENTS = {
    "model_prelude.onnx": b"prelude graph",
    "model_recur.onnx": b"recur graph",
    "model_coda.onnx": b"coda graph",
    "weights.data": bytes(range(200)),
    "tokenizer.json": b"{}",
    "golden.npz": bytes(64) + bytes(2 * 2 * 8 * 4),
}
STAGE = {"layers": 1, "heads": 2, "head_size": 4, "slots": 1}


def entry(content: bytes) -> dict[str, Any]:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


BASE: dict[str, Any] = {
    "format": 1,
    "name": "tiny-onnx-dynamic-int4",
    "model": "tiny",
    "platform": "web",
    "target": "onnx",
    "runtime": {"name": "onnxruntime", "minimum": "1.23", "reason": "opset 23", "settings": {}},
    "loops": {"form": "stages", "min": 1, "max": 16, "trained": 6, "built": [], "early_exit": True},
    "graphs": {role: {"file": f"model_{role}.onnx", "function": None} for role in ("prelude", "recur", "coda")},
    "recipe": "int4",
    "compute": "fp32",
    "promise": "token parity",
    "token_parity": True,
    "verified": True,
    "portable": False,
    "last_logits": False,
    "state_width": 8,
    "vocab_size": 7,
    "padded_vocab_size": 8,
    "cache": {"policy": "shared", "dtype": "fp32", "context": 64, "prefill_chunk": 16}
    | {"prelude": STAGE, "recur": STAGE | {"layers": 2}, "coda": STAGE},
    "memory": {"weights": 200, "cache_per_token": 128, "cache_per_token_and_slot": 128, "slots": 1}
    | {"work_per_chunk_token": 128, "work": 32, "overhead_percent": 25},
    "tokenizer": {"file": "tokenizer.json", "kind": "BPE", "vocab_size": 7, "bos": 0, "add_bos": True, "stop": [0]},
    "self_test": {
        "file": "golden.npz",
        "input_ids": [0, 1, 2],
        "positions": [1, 2],
        "logits": {"1": {"offset": 64, "shape": [2, 8]}, "16": {"offset": 128, "shape": [2, 8]}},
        "max_abs": 1e-4,
        "kl_mean": None,
        "top1": None,
        "greedy": {"prompt": [0, 1], "tokens": {"1": [2, 3]}, "exact": True},
    },
    "weights_sha256": "0" * 64,
    "files": {name: entry(content) for name, content in CONTENTS.items()},
}
SWAPPED = ("model_prelude.onnx", "model_recur.onnx")
NONE = object()
Changes = list[tuple[str, Any]]  # a path with slashes , and the new value or NONE

FIELDS: list[tuple[str, Changes]] = [
    ("no name", [("name", NONE)]),
    ("a name that is a path", [("name", "../evil")]),
    ("an empty name", [("name", "")]),
    ("no files", [("files", NONE)]),
    ("files as a list", [("files", [])]),
    ("an unknown platform", [("platform", "symbian")]),
    ("an unknown target", [("target", "gguf")]),
    ("an unknown runtime", [("runtime/name", "tflite")]),
    ("a minimum that is no version", [("runtime/minimum", "new")]),
    ("no minimum", [("runtime/minimum", NONE)]),
    ("an unknown loop form", [("loops/form", "recursive")]),
    ("no loops at least", [("loops/min", 0)]),
    ("min above max", [("loops/min", 17)]),
    ("a built count above max", [("loops/built", [32])]),
    ("a token may leave at a closed count", [("loops/min", 2), ("loops/exit_from", 1)]),
    ("loops as a text", [("loops/max", "16")]),
    ("trained missing", [("loops/trained", NONE)]),
    ("a stage without a graph", [("graphs/coda", NONE)]),
    ("a graph that is not among the files", [("graphs/coda/file", "other.onnx")]),
    ("a graph too many", [("graphs/extra", {"file": "model_coda.onnx"})]),
    ("an unknown policy", [("cache/policy", "first3+shared")]),
    ("an unknown cache type", [("cache/dtype", "int4")]),
    ("no context", [("cache/context", 0)]),
    ("no chunk", [("cache/prefill_chunk", 0)]),
    ("negative weights", [("memory/weights", -1)]),
    ("memory missing", [("memory", NONE)]),
    ("a tokenizer that is not among the files", [("tokenizer/file", "vocab.json")]),
    ("a stop token beyond the vocabulary", [("tokenizer/stop", [7])]),
    ("a first token beyond the vocabulary", [("tokenizer/bos", 7)]),
    ("vocabulary above the padded one", [("vocab_size", 9)]),
    ("rows outside of the self-test's file", [("self_test/logits/16/offset", 129)]),
    ("rows of another width", [("self_test/logits/1/shape", [2, 7])]),
    ("rows for another count of positions", [("self_test/positions", [0, 1, 2])]),
    ("a self-test without its file", [("self_test/file", "golden.bin")]),
    ("a checksum that is none", [("files/weights.data/sha256", "abc")]),
    ("a checksum in capitals", [("files/weights.data/sha256", "A" * 64)]),
    ("a negative size", [("files/weights.data/bytes", -1)]),
    ("no size", [("files/weights.data/bytes", NONE)]),
    ("an unknown compute type", [("compute", "fp8")]),
    ("token_parity as a text", [("token_parity", "yes")]),
]
PATHS = ["../weights.data", "/etc/passwd", "a/../b", "C:\\weights.data", "a//b", "./a", ".hidden", ""]
PATHS += ["a\u0000b", "~/x"]
TEXTS = [("empty", ""), ("cut off", '{"format": 1'), ("a list", "[]"), ("a number", "5"), ("null", "null")]
FORMATS: list[tuple[str, Any]] = [("a later format", 2), ("no format", NONE), ("format as a text", "1"), ("true", True)]
GOOD: list[tuple[str, Changes]] = [
    ("as it is", []),
    ("an unknown field", [("colour", "red"), ("loops/note", "new")]),
    ("without a tokenizer", [("tokenizer", None)]),
    ("without a self-test", [("self_test", None)]),
    ("from two loops on", [("loops/min", 2), ("loops/exit_from", 2)]),
    ("from two loops on, no token leaves early", [("loops/min", 2), ("loops/early_exit", False)]),
]
VERSIONS = [
    ("1.23", "1.23", True), ("1.23.0", "1.23", True), ("1.23", "1.23.0", True), ("1.22.9", "1.23", False),
    ("1.9", "1.23", False), ("2", "1.23", True), ("1.30.0-dev.20261001", "1.30", True), ("1.27.0+cpu", "1.27.1", False),
    ("1.31.1", "1.31.0.1", True), ("", "1", False), ("unknown", "0.1", False), ("18.0", "18", True),
    ("1.10", "1.9", True),
]  # fmt: skip


def manifest_vectors() -> tuple[Cases, dict[str, Any]]:
    """Cases, and the base manifest with the contents of its files."""
    cases = [case(name, None, changes) for name, changes in GOOD]
    more = {"files": {"sub/more.bin": encoded(b"more")}}
    cases.append(case("a file in a folder", None, [("files/sub/more.bin", entry(b"more"))]) | more)
    cases += [{"case": f"text: {name}", "kind": "json", "text": text} for name, text in TEXTS]
    letters: Changes = [("promise", "\u00e9\u00e9\u00e9")]  # of two bytes each
    cases.append(case("as large as it may be", None, letters) | {"bytes": MOST_APP_MANIFEST})
    cases.append(case("a byte too large", "json", letters) | {"bytes": MOST_APP_MANIFEST + 1})
    cases += [case(f"format: {name}", "format", [("format", value)]) for name, value in FORMATS]
    cases += [case(name, "field", changes) for name, changes in FIELDS]
    for path in PATHS:
        cases.append(
            {"case": f"a file named {path!r}", "kind": "path", "where": path}
            | {"changes": [{"path": ["files", path], "set": entry(b"")}]}
        )
    cases.append(case("a graph with an unsafe name", "path", [("graphs/coda/file", "../model_coda.onnx")]))
    cases.append(case("a tokenizer with an unsafe name", "path", [("tokenizer/file", "/tokenizer.json")]))
    cases.append(case("another platform", "platform", [("platform", "android")]))
    cases.append(case("another runtime", "runtime", [("runtime/name", "executorch"), ("target", "executorch")]))
    cases.append(case("a later runtime", "runtime", [("runtime/minimum", "1.28")]))
    cases += [
        {"case": "a missing file", "kind": "missing", "where": "weights.data", "files": {"weights.data": None}},
        {"case": "a file cut off", "kind": "size", "where": "weights.data"}
        | {"files": {"weights.data": encoded(CONTENTS["weights.data"][:-1])}},
        {"case": "a file with one more byte", "kind": "size", "where": "model_coda.onnx"}
        | {"files": {"model_coda.onnx": encoded(CONTENTS["model_coda.onnx"] + b" ")}},
        {"case": "one changed byte", "kind": "checksum", "where": "weights.data"}
        | {"files": {"weights.data": encoded(b"\x01" + CONTENTS["weights.data"][1:])}},
        {"case": "swapped files", "kind": "size", "where": "model_prelude.onnx"}
        | {"files": {first: encoded(CONTENTS[second]) for first, second in (SWAPPED, SWAPPED[::-1])}},
        {"case": "another file of the same size", "kind": "checksum", "where": "model_coda.onnx"}
        | {"files": {"model_coda.onnx": encoded(CONTENTS["model_coda.onnx"][::-1])}},
        {"case": "one more file in the folder", "kind": None, "files": {"extra.bin": encoded(b"extra")}},
    ]
    versions = [{"version": have, "minimum": need, "enough": enough} for have, need, enough in VERSIONS]
    facts = {
        "app": {"platform": "web", "runtime": "onnxruntime", "version": "1.27.0"},
        "base": BASE,
        "contents": {name: encoded(content) for name, content in CONTENTS.items()},
    }
    return {"cases": cases, "versions": versions}, facts


def encoded(content: bytes) -> str:
    """Base 64."""
    return base64.b64encode(content).decode()


def case(name: str, kind: str | None, changes: Changes) -> dict[str, Any]:
    """A case of changes: `set` or `remove`, at a path of keys."""
    listed = []
    for path, value in changes:
        keys = path.split("/")
        if keys[0] == "files" and isinstance(value, dict):  # the name of a file may hold slashes
            keys = ["files", "/".join(keys[1:])]
        listed.append({"path": keys, "remove": True} if value is NONE else {"path": keys, "set": value})
    return {"case": name, "kind": kind, "changes": listed}


def text_of(base: dict[str, Any], case: dict[str, Any]) -> str:
    """The text of a case's manifest."""
    text: str = case["text"] if "text" in case else changed(base, case.get("changes", []))
    return text + " " * (case.get("bytes", 0) - len(text.encode()))


def changed(base: dict[str, Any], changes: list[dict[str, Any]]) -> str:
    """The text of the base manifest with a case's changes."""
    values = copy.deepcopy(base)
    for change in changes:
        place = values
        for key in change["path"][:-1]:
            place = place[key]
        if "set" in change:
            place[change["path"][-1]] = change["set"]
        else:
            del place[change["path"][-1]]
    return json.dumps(values, ensure_ascii=False)
