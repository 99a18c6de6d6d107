"""Attacks on what a checkpoint folder holds: configuration, safetensors, index, tokenizer."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from parcae_mobile import load_model
from parcae_mobile.errors import (
    CheckpointError,
    ConfigError,
    MissingTensorError,
    TensorShapeError,
    TensorValueError,
    TextError,
    UnexpectedTensorError,
)
from parcae_mobile.tokenizer import TextTokenizer
from tests.attacks.base import NOT_JSON, STRANGE, checkpoint, sparse, tensors, weights
from tests.attacks.case import Case
from tests.conftest import SMALL

Header = dict[str, Any]
LARGEST = "transformer.wte.weight"


# configuration

ABSURD: list[tuple[str, Any]] = [
    *((key, value) for key in ("n_embd", "vocab_size", "block_size") for value in (0, -1, 2**31 + 1, 10**40, 1.5, "8")),
    *((key, value) for key in ("num_attention_heads", "intermediate_size") for value in (-4, 2**40, True, [8], {})),
    *((key, value) for key in ("n_layers_in_prelude", "n_layers_in_coda") for value in (-1, 257, 10**9, None)),
    *(("n_layers_in_recurrent_block", value) for value in (0, 257, 2**31)),
    *(("mean_recurrence", value) for value in (0, 1025, 2**31, "many")),
    *((key, 2**31) for key in ("mean_backprop_depth", "block_size", "randomize_positions_from")),
    *(("norm_eps", value) for value in (0, -1, float("nan"), float("inf"), "1e-5", 10**400)),
    *(("logit_softcap", value) for value in (0, float("nan"), "30")),
    *(("rope_settings", value) for value in ([], {"base": 1}, {"rope_base": 0}, {"rope_base": float("nan")}, "on")),
    *(
        (key, "../../evil")
        for key in ("norm_class_name", "mlp_class_name", "nonlin_name", "init_strategy", "state_init")
    ),
    *((key, 1) for key in ("bias", "qk_norm", "tie_embeddings")),
    ("num_key_value_heads", 5),
    ("padding_multiple", 0),
    ("injection_type", {"a": 1}),
    ("x" * 100_000, 1),
    ("name", ["a"] * 100_000),
]


def config_cases() -> list[Case]:
    """Values that no model has; files that are no JSON object; things that are no files."""

    def changed(key: str, value: Any) -> Callable[[Path], Path]:
        return lambda folder: checkpoint(folder, {**SMALL, key: value})

    def strange(put: Callable[[Path], Any]) -> Callable[[Path], Path]:
        def make(folder: Path) -> Path:
            checkpoint(folder)
            (folder / "config.json").unlink()
            put(folder / "config.json")
            return folder

        return make

    cases = [
        Case(f"config {key[:40]} = {str(value)[:40]}", changed(key, value), load_model, ConfigError, key[:20])
        for key, value in ABSURD
    ]
    cases += [
        Case(f"config is {name}", lambda folder, data=data: checkpoint(folder, data), load_model, ConfigError, "config")
        for name, data in NOT_JSON.items()
    ]
    cases += [Case(f"config is {name}", strange(put), load_model, ConfigError) for name, put in STRANGE.items()]
    return cases


# safetensors


def split() -> tuple[Header, bytes]:
    """The header and the data of the undamaged file."""
    data = weights()
    length = int.from_bytes(data[:8], "little")
    header: Header = json.loads(data[8 : 8 + length])
    return header, data[8 + length :]


def joined(header: Header | str | bytes, data: bytes, length: int | None = None) -> bytes:
    """A file of a header and data; `length` is what it says of the header."""
    text = json.dumps(header) if isinstance(header, dict) else header
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def entry(**changes: Any) -> bytes:
    """The file with one entry changed: that of the token table."""
    header, data = split()
    header[LARGEST] = {**header[LARGEST], **changes}
    return joined(header, data)


def with_names(change: Callable[[Header], Any]) -> bytes:
    header, data = split()
    change(header)
    return joined(header, data)


def with_tensors(change: Callable[[dict[str, torch.Tensor]], Any]) -> bytes:
    held = tensors()
    change(held)
    return save(held)


def twice() -> bytes:
    """Two entries of one name in the header."""
    header, data = split()
    text = json.dumps(header)
    return joined(text[:-1] + f', "{LARGEST}": {json.dumps(header[LARGEST])}}}', data)


def put(name: str, value: Callable[[torch.Tensor], torch.Tensor]) -> bytes:
    return with_tensors(lambda held: held.update({name: value(held[name])}))


def many(count: int) -> Callable[[dict[str, torch.Tensor]], Any]:
    return lambda held: held.update({f"extra.{index}": torch.zeros(64, 64) for index in range(count)})


HEADER, DATA = split()
WHOLE = len(weights())
SAFETENSORS: list[tuple[str, Callable[[], bytes], type[CheckpointError]]] = [
    ("no bytes", lambda: b"", CheckpointError),
    ("seven bytes", lambda: b"\0" * 7, CheckpointError),
    ("eight bytes", lambda: b"\0" * 8, CheckpointError),
    ("a header of no bytes", lambda: joined(HEADER, DATA, 0), CheckpointError),
    ("a header of one byte", lambda: joined(HEADER, DATA, 1), CheckpointError),
    ("a header of 2^63 bytes", lambda: joined(HEADER, DATA, 2**63), CheckpointError),
    ("a header of 2^64 - 1 bytes", lambda: joined(HEADER, DATA, 2**64 - 1), CheckpointError),
    ("a header of the whole file", lambda: joined(HEADER, DATA, WHOLE), CheckpointError),
    ("a header that is a byte short", lambda: joined(HEADER, DATA, len(json.dumps(HEADER)) - 1), CheckpointError),
    ("a header of no JSON", lambda: joined("x" * 200, DATA), CheckpointError),
    ("a header of no UTF-8", lambda: joined(b"\xff" * 200, DATA), CheckpointError),
    ("a header that is a list", lambda: joined("[1, 2]", DATA), CheckpointError),
    ("a header of brackets", lambda: joined("[" * 200_000, DATA), CheckpointError),
    ("an empty header", lambda: joined("{}", b""), MissingTensorError),
    ("a name twice", twice, CheckpointError),
    ("no shape", lambda: entry(shape=None), CheckpointError),
    ("a shape that is a number", lambda: entry(shape=64), CheckpointError),
    ("a negative size", lambda: entry(shape=[-64, -32]), CheckpointError),
    ("a fractional size", lambda: entry(shape=[64.0, 32.5]), CheckpointError),
    ("a size of true", lambda: entry(shape=[True, 2048]), CheckpointError),
    ("a size of 2^60", lambda: entry(shape=[2**60, 1]), CheckpointError),
    ("sizes whose product overflows", lambda: entry(shape=[2**40, 2**40]), CheckpointError),
    ("a hundred dimensions", lambda: entry(shape=[1] * 100), CheckpointError),
    ("a shape turned", lambda: entry(shape=[32, 64]), TensorShapeError),
    ("a shape in a row", lambda: entry(shape=[2048]), TensorShapeError),
    ("fewer values than the shape", lambda: entry(shape=[64, 33]), CheckpointError),
    ("offsets turned around", lambda: entry(data_offsets=[8192, 0]), CheckpointError),
    ("offsets beyond the file", lambda: entry(data_offsets=[2**40, 2**40 + 8192]), CheckpointError),
    ("negative offsets", lambda: entry(data_offsets=[-8192, 0]), CheckpointError),
    ("offsets of two tensors that overlap", lambda: entry(data_offsets=[4, 8196]), CheckpointError),
    ("one offset", lambda: entry(data_offsets=[0]), CheckpointError),
    ("no offsets", lambda: entry(data_offsets=None), CheckpointError),
    ("an unknown type", lambda: entry(dtype="F128"), CheckpointError),
    ("a type that is a number", lambda: entry(dtype=32), CheckpointError),
    ("a type of half the bytes", lambda: entry(dtype="F16"), CheckpointError),
    ("metadata that is no text", lambda: with_names(lambda h: h.update(__metadata__={"a": 1})), CheckpointError),
    ("an entry that is a number", lambda: with_names(lambda h: h.update(other=5)), CheckpointError),
    ("a name of a megabyte", lambda: with_names(lambda h: h.update({"x" * 10**6: h.pop(LARGEST)})), MissingTensorError),
    ("a missing tensor", lambda: with_tensors(lambda h: h.pop(LARGEST)), MissingTensorError),
    ("an unexpected tensor", lambda: with_tensors(lambda h: h.update(other=torch.zeros(2))), UnexpectedTensorError),
    ("a name of a path", lambda: with_tensors(lambda h: h.update({"../x": torch.zeros(2)})), UnexpectedTensorError),
    (
        "a name twice under wrappers",
        lambda: with_tensors(lambda h: h.update({f"module.{LARGEST}": h[LARGEST].clone()})),
        UnexpectedTensorError,
    ),
    ("a tensor that is too large", lambda: put(LARGEST, lambda t: torch.zeros(4096, 64)), TensorShapeError),
    ("a thousand tensors too many", lambda: with_tensors(many(1000)), TensorShapeError),
    ("NaN", lambda: put(LARGEST, lambda t: t * torch.nan), TensorValueError),
    ("an infinity", lambda: put(LARGEST, lambda t: t / 0), TensorValueError),
    ("integers", lambda: put(LARGEST, lambda t: t.to(torch.int32)), TensorValueError),
    ("truth values", lambda: put(LARGEST, lambda t: t > 0), TensorValueError),
    ("complex values", lambda: put(LARGEST, lambda t: t.to(torch.complex64)), TensorValueError),
    (
        "a head that is not the table",
        lambda: with_tensors(lambda h: h.update({"lm_head.weight": h[LARGEST] + 1})),
        TensorValueError,
    ),
    ("data cut off", lambda: weights()[:-4], CheckpointError),
    ("data after the end", lambda: weights() + b"\0" * 8, CheckpointError),
    ("a hole between tensors", lambda: with_names(lambda h: h.pop(LARGEST)), CheckpointError),
]


def sparse_tensor(folder: Path) -> Path:
    """A tensor of two gigabytes under the name of a small one, with none of them on the disk."""
    header, _ = split()
    raw = json.dumps({LARGEST: {**header[LARGEST], "shape": [2**29, 1], "data_offsets": [0, 2**31]}}).encode()
    checkpoint(folder)
    sparse(folder / "model.safetensors", 8 + len(raw) + 2**31, struct.pack("<Q", len(raw)) + raw)
    return folder


def safetensors_cases() -> list[Case]:
    """One for each way in which a header, a name, a shape or a value can lie."""
    cases = [
        Case(f"safetensors with {name}", lambda f, d=data: checkpoint(f, data=d()), load_model, error)
        for name, data, error in SAFETENSORS
    ]
    cases.append(Case("safetensors with two sparse gigabytes", sparse_tensor, load_model, TensorShapeError, LARGEST))
    cases += [
        Case(f"safetensors is {name}", _strange_file("model.safetensors", put_there), load_model, CheckpointError)
        for name, put_there in STRANGE.items()
    ]
    return cases


def _strange_file(name: str, put_there: Callable[[Path], Any]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        checkpoint(folder)
        (folder / name).unlink(missing_ok=True)
        put_there(folder / name)
        return folder

    return make


# the index of shards

INDEX, SHARD = "model.safetensors.index.json", "model-00001-of-00001.safetensors"
PLACES = dict.fromkeys(tensors(), SHARD)
INDEXES: list[tuple[str, Any]] = [
    ("no map", {}),
    ("a map that is a list", {"weight_map": [1]}),
    ("an empty map", {"weight_map": {}}),
    ("numbers for files", {"weight_map": dict.fromkeys(PLACES, 7)}),
    ("null for files", {"weight_map": dict.fromkeys(PLACES)}),
    ("a file above", {"weight_map": dict.fromkeys(PLACES, "../model.safetensors")}),
    ("an absolute file", {"weight_map": dict.fromkeys(PLACES, "/etc/passwd")}),
    ("the folder above", {"weight_map": dict.fromkeys(PLACES, "..")}),
    ("the folder itself", {"weight_map": dict.fromkeys(PLACES, ".")}),
    ("no name", {"weight_map": dict.fromkeys(PLACES, "")}),
    ("a zero byte", {"weight_map": dict.fromkeys(PLACES, "a\0b")}),
    ("a back slash", {"weight_map": dict.fromkeys(PLACES, "..\\model.safetensors")}),
    ("a name of ten thousand letters", {"weight_map": dict.fromkeys(PLACES, "x" * 10_000)}),
    ("a file that is not there", {"weight_map": dict.fromkeys(PLACES, "model-00002-of-00002.safetensors")}),
    ("a hundred thousand files", {"weight_map": {f"t{n}": f"model-{n}.safetensors" for n in range(100_000)}}),
    ("a tensor that its file lacks", {"weight_map": {**PLACES, "other": SHARD}}),
    ("half of the tensors", {"weight_map": dict(list(PLACES.items())[:3])}),
    ("the index as a shard", {"weight_map": dict.fromkeys(PLACES, INDEX)}),
    ("the configuration as a shard", {"weight_map": dict.fromkeys(PLACES, "config.json")}),
]


def index_cases() -> list[Case]:
    """An index that lies; shards that are not what it says."""

    def make(folder: Path, content: bytes) -> Path:
        checkpoint(folder, name=SHARD)
        (folder / INDEX).write_bytes(content)
        return folder

    def strange(put_there: Callable[[Path], Any]) -> Callable[[Path], Path]:
        def build(folder: Path) -> Path:
            make(folder, json.dumps({"weight_map": PLACES}).encode())
            (folder / SHARD).unlink()
            put_there(folder / SHARD)
            return folder

        return build

    cases = [
        Case(f"an index with {name}", lambda f, v=value: make(f, json.dumps(v).encode()), load_model, CheckpointError)
        for name, value in INDEXES
    ]
    cases += [
        Case(f"an index is {name}", lambda f, d=data: make(f, d), load_model, CheckpointError)
        for name, data in NOT_JSON.items()
    ]
    cases += [
        Case(f"a shard is {name}", strange(there), load_model, CheckpointError) for name, there in STRANGE.items()
    ]
    return cases


# tokenizer

VOCABULARY = {"<|endoftext|>": 0, "a": 1, "b": 2}
TOKENIZER: dict[str, Any] = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [],
    "normalizer": None,
    "pre_tokenizer": None,
    "post_processor": None,
    "decoder": None,
    "model": {"type": "BPE", "vocab": VOCABULARY, "merges": []},
}
TOKENIZERS: list[tuple[str, dict[str, Any]]] = [
    ("no model", {"model": None}),
    ("an unknown model", {"model": {"type": "GPT"}}),
    ("a vocabulary that is a list", {"model": {"type": "BPE", "vocab": ["a"], "merges": []}}),
    ("a negative id", {"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}),
    ("an id of 2^40", {"model": {"type": "BPE", "vocab": {"a": 2**40}, "merges": []}}),
    ("a fractional id", {"model": {"type": "BPE", "vocab": {"a": 0.5}, "merges": []}}),
    ("merges of unknown tokens", {"model": {"type": "BPE", "vocab": VOCABULARY, "merges": ["x y"]}}),
    ("merges of one token", {"model": {"type": "BPE", "vocab": VOCABULARY, "merges": ["a"]}}),
    ("merges that are numbers", {"model": {"type": "BPE", "vocab": VOCABULARY, "merges": [[1, 2]]}}),
    ("an added token without an id", {"added_tokens": [{"content": "x"}]}),
    ("a later version", {"version": "9.0"}),
    ("an unknown pre-tokenizer", {"pre_tokenizer": {"type": "Evil"}}),
    (
        "a pattern that is none",
        {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(["}, "behavior": "Isolated"}},
    ),
    ("an unknown decoder", {"decoder": {"type": "Evil"}}),
    ("a word-piece model without its unknown token", {"model": {"type": "WordPiece", "vocab": {}}}),
    ("unigram scores that are texts", {"model": {"type": "Unigram", "vocab": [["a", "b"]], "unk_id": 0}}),
    ("an unknown token beyond the vocabulary", {"model": {"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": 9}}),
]


def tokenizer_cases() -> list[Case]:
    """Files that the tokenizers library refuses, in whatever way, and those beside them."""

    def whole(folder: Path, changes: dict[str, Any] | bytes) -> Path:
        content = changes if isinstance(changes, bytes) else json.dumps({**TOKENIZER, **changes}).encode()
        (folder / "tokenizer.json").write_bytes(content)
        return folder

    def beside(name: str, content: bytes) -> Callable[[Path], Path]:
        def make(folder: Path) -> Path:
            whole(folder, {})
            (folder / name).write_bytes(content)
            return folder

        return make

    def strange(put_there: Callable[[Path], Any]) -> Callable[[Path], Path]:
        def make(folder: Path) -> Path:
            put_there(folder / "tokenizer.json")
            return folder / "tokenizer.json"

        return make

    load = TextTokenizer.load
    cases = [
        Case(f"a tokenizer with {name}", lambda f, c=changes: whole(f, c), load, TextError, "tokenizer")
        for name, changes in TOKENIZERS
    ]
    cases += [
        Case(f"a tokenizer is {name}", lambda f, d=data: whole(f, d), load, TextError)
        for name, data in NOT_JSON.items()
        if name not in ("a name twice", "a number of five thousand digits")
    ]
    cases += [Case(f"a tokenizer is {n}", strange(p), TextTokenizer.read, TextError) for n, p in STRANGE.items()]
    names = ("tokenizer_config.json", "special_tokens_map.json", "generation_config.json")
    contents = {"a list": b"[]", "a name twice": b'{"a": 1, "a": 2}', "a hundred thousand brackets": b"[" * 100_000}
    cases += [
        Case(f"{name} is {kind}", beside(name, data), load, TextError, name)
        for name in names
        for kind, data in contents.items()
    ]
    return cases


CASES = [*config_cases(), *safetensors_cases(), *index_cases(), *tokenizer_cases()]
