"""Attacks on single files: recipes, golden references, bench tables, states of learned rounding, quantized tensors."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from export.bench.rows import read_table
from parcae_mobile.errors import CheckpointError, InputError, TextError
from parcae_mobile.golden import load_reference
from parcae_mobile.text import read_text
from quantize import load_recipe, quantize_with
from quantize.learning_state import FORMAT, State
from quantize.recipe import RecipeError
from quantize.storage import load_quantized, save_quantized
from tests.attacks.base import NOT_JSON, STRANGE, model, sparse
from tests.attacks.case import Case

Make = Callable[[Path], Path]


def written(name: str, content: Callable[[], bytes]) -> Make:
    """A file of that name."""

    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content())
        return folder / name

    return make


def strange(name: str, put: Callable[[Path], Any]) -> Make:
    def make(folder: Path) -> Path:
        put(folder / name)
        return folder / name

    return make


# recipes

BUDGET = "budget = { kl = 0.1, top1 = 0.5 }\n"
RULE = '[[rules]]\nmatch = "*"\nbits = 8\n'
RECIPES: list[tuple[str, str]] = [
    ("nothing", ""),
    ("no TOML", "[rules"),
    ("deep lists", "a = " + "[" * 50_000),
    ("deep tables", ".".join("a" * 20_000) + " = 1"),
    ("a number of ten thousand digits", f"name = {'9' * 10_000}"),
    ("a name above", 'name = "../evil"\n' + BUDGET),
    ("an absolute name", 'name = "/tmp/evil"\n' + BUDGET),
    ("a name with a zero byte", 'name = "a\\u0000b"\n' + BUDGET),
    ("a name with a line break", 'name = "a\\nb"\n' + BUDGET),
    ("a name that begins with a dot", 'name = ".hidden"\n' + BUDGET),
    ("a name of a kilobyte", f'name = "{"x" * 1000}"\n' + BUDGET),
    ("an unknown key of a megabyte", f"{'x' * 900_000} = 1\n" + BUDGET),
    ("a budget of NaN", "budget = { kl = nan, top1 = 0.5 }"),
    ("an infinite budget", "budget = { kl = inf, top1 = 0.5 }"),
    ("a negative budget", "budget = { kl = -1, top1 = 0.5 }"),
    ("a budget beyond floats", f"budget = {{ kl = {'9' * 400}, top1 = 0.5 }}"),
    ("no budget", RULE),
    ("a budget in words", 'budget = "none"'),
    ("rules that are a number", "rules = 3\n" + BUDGET),
    ("rules that are texts", 'rules = ["a"]\n' + BUDGET),
    ("two thousand rules", BUDGET + RULE * 2000),
    ("a rule without a pattern", BUDGET + "[[rules]]\nbits = 8\n"),
    ("a pattern of a kilobyte", BUDGET + f'[[rules]]\nmatch = "{"*a" * 600}"\nbits = 8\n'),
    ("five bits", BUDGET + '[[rules]]\nmatch = "*"\nbits = 5\n'),
    ("a billion bits", BUDGET + '[[rules]]\nmatch = "*"\nbits = 1000000000\n'),
    ("true bits", BUDGET + '[[rules]]\nmatch = "*"\nbits = true\n'),
    ("a negative group", BUDGET + RULE + "group_size = -1\n"),
    ("a fractional group", BUDGET + RULE + "group_size = 0.5\n"),
    ("an unknown key in a rule", BUDGET + RULE + "evil = 1\n"),
    ("symmetry in words", BUDGET + RULE + 'symmetric = "yes"\n'),
    ("palettes of no rows", BUDGET + RULE + "palette_rows = -1\n"),
    ("a flag that is a number", "quantize_injection_matrix = 1\n" + BUDGET),
    ("poles to be quantized", BUDGET + '[[rules]]\nmatch = "*A_log"\nbits = 8\n'),
    ("an injection matrix to be quantized", BUDGET + '[[rules]]\nmatch = "*adapter*"\nbits = 8\n'),
    ("groups that divide nothing", BUDGET + '[[rules]]\nmatch = "*wte*"\nbits = 4\ngroup_size = 31\n'),
]


def quantized_by(path: Path) -> Any:
    return quantize_with(model(), load_recipe(path), "rtn")


# golden references


def archive(arrays: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as made:
        for name, content in arrays.items():
            made.writestr(f"{name}.npy", content)
    return file.getvalue()


def array(value: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, value, allow_pickle=True)
    return file.getvalue()


def header(shape: str, kind: str = "'<f4'", data: bytes = b"") -> bytes:
    """An array file whose header says what it likes."""
    text = f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}".encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


REFERENCE: dict[str, Any] = {
    "input_ids": np.arange(4),
    "state_norms": np.ones(2, np.float32),
    "provenance": np.frombuffer(b'{"device": "cpu", "arithmetic": "fp32"}', np.uint8),
    "sha256": np.frombuffer(b"0" * 64, np.uint8),
    "logits_1": np.zeros((4, 8), np.float32),
    "greedy_1": np.arange(3),
}


def reference(**changes: bytes | None) -> bytes:
    """A reference with some of its arrays replaced or left out."""
    parts = {name: array(value) for name, value in REFERENCE.items()} | changes
    return archive({name: content for name, content in parts.items() if content is not None})


REFERENCES: list[tuple[str, Callable[[], bytes]]] = [
    ("nothing", lambda: b""),
    ("no archive", lambda: b"x" * 1000),
    ("half an archive", lambda: reference()[:400]),
    ("a single array", lambda: array(np.zeros(3))),
    ("a hundred megabytes in a kilobyte", lambda: archive({"input_ids": b"\0" * 10**8}, zipfile.ZIP_DEFLATED)),
    ("a shape of 2^50", lambda: reference(logits_1=header(f"({2**50}, 8)"))),
    ("a shape whose product overflows", lambda: reference(logits_1=header(f"({2**62}, {2**62})"))),
    ("a negative shape", lambda: reference(logits_1=header("(-4, -8)", data=b"\0" * 128))),
    ("a shape in words", lambda: reference(logits_1=header("'large'"))),
    ("a shape that is code", lambda: reference(logits_1=header("(__import__('os').getpid(),)"))),
    ("a header of brackets", lambda: reference(logits_1=header("(" * 9000))),
    ("objects for numbers", lambda: reference(logits_1=array(np.array([{"a": 1}], object)))),
    ("an unknown type", lambda: reference(logits_1=header("(4, 8)", "'<q9'", b"\0" * 128))),
    ("a later array format", lambda: reference(logits_1=b"\x93NUMPY\x09\x00" + b"\0" * 64)),
    ("data cut off", lambda: reference(logits_1=header("(4, 8)", data=b"\0" * 100))),
    ("data too long", lambda: reference(logits_1=header("(4, 8)", data=b"\0" * 20_000))),
    ("no ids", lambda: reference(input_ids=None)),
    ("no logits", lambda: reference(logits_1=None)),
    ("no greedy tokens", lambda: reference(greedy_1=None)),
    ("fractional ids", lambda: reference(input_ids=array(np.ones(4)))),
    ("ids in a square", lambda: reference(input_ids=array(np.ones((2, 2), np.int64)))),
    ("whole-number logits", lambda: reference(logits_1=array(np.zeros((4, 8), np.int64)))),
    ("fewer logits than ids", lambda: reference(logits_1=array(np.zeros((3, 8), np.float32)))),
    ("provenance of no JSON", lambda: reference(provenance=array(np.frombuffer(b"{", np.uint8)))),
    ("provenance that is a list", lambda: reference(provenance=array(np.frombuffer(b"[]", np.uint8)))),
    ("deep provenance", lambda: reference(provenance=array(np.frombuffer(b"[" * 100_000, np.uint8)))),
    ("another checksum", reference),
    ("a loop count in words", lambda: reference(logits_many=array(np.zeros((4, 8), np.float32)))),
    ("a negative loop count", lambda: reference(**{"logits_-1": array(np.zeros((4, 8), np.float32))})),
]

# bench tables

VARIANT = {
    "kind": "artifact",
    "model": "m",
    "target": "onnx",
    "loop_form": "scan",
    "quant": "int4",
    "compute": "int8",
    "kv_policy": "full",
    "kv_dtype": "int8",
    "loops": 8,
}
SPEED = {"run": 1, "first_token_ms": 9.0, "decode_ms": 4.0, "decode_quartiles_ms": [3.0, 5.0], "steps": 9}
ROW = {"variant": VARIANT, "context": 128, "threads": 1, "weight_bytes": 9, "model_bytes": 9, "cache_bytes": 9}
RUN = {"processor": "x", "cores": 2, "bandwidth": 2e10, "rounds": 3, "tools": {}}
TABLES: list[tuple[str, Any]] = [
    ("a later format", {"format": 2}),
    ("an unknown field", {"evil": 1}),
    ("rows that are an object", {"rows": {}}),
    ("a row that is a text", {"rows": ["x"]}),
    ("an unknown kind", {"rows": [{**ROW, "variant": {**VARIANT, "kind": "evil"}}]}),
    ("no loops", {"rows": [{**ROW, "variant": {**VARIANT, "loops": 0}}]}),
    ("a negative context", {"rows": [{**ROW, "context": -1}]}),
    ("negative bytes", {"rows": [{**ROW, "weight_bytes": -1}]}),
    ("bytes in words", {"rows": [{**ROW, "model_bytes": "many"}]}),
    ("bytes beyond numbers", {"rows": [{**ROW, "cache_bytes": 1e400}]}),
    ("times of no run", {"rows": [{**ROW, "speeds": [SPEED]}]}),
    ("a time of zero", {"runs": {"1": RUN}, "rows": [{**ROW, "speeds": [{**SPEED, "decode_ms": 0}]}]}),
    ("a time of NaN", {"runs": {"1": RUN}, "rows": [{**ROW, "speeds": [{**SPEED, "decode_ms": float("nan")}]}]}),
    ("one quartile", {"runs": {"1": RUN}, "rows": [{**ROW, "speeds": [{**SPEED, "decode_quartiles_ms": [1.0]}]}]}),
    ("a run whose number is a word", {"runs": {"x": RUN}}),
    ("no bandwidth", {"runs": {"1": {**RUN, "bandwidth": 0}}}),
    ("two rows of one kind", {"rows": [ROW, ROW]}),
]

# states of learned rounding

TRAINED = {"latent.a": torch.zeros(4, 4)}
COUNTERS = {"step": 1, "seconds": 1.0, "taken": 0, "best_kl": 0.1, "best_step": 1, "first_kl": 0.2, "done": False}
STATE = {"format": FORMAT, "key": "k", "counters": COUNTERS, "curve": [[1, 0.1, 0.1]]}


def state(tensors: dict[str, torch.Tensor] | None = None, text: str | None = None, **changes: Any) -> bytes:
    held = {**TRAINED, "generator": torch.Generator().get_state()} if tensors is None else tensors
    return save(held, {"state": json.dumps({**STATE, **changes}) if text is None else text})


GENERATOR = {"generator": torch.Generator().get_state()}
STATES: list[tuple[str, Callable[[], bytes]]] = [
    ("nothing", lambda: b""),
    ("no metadata", lambda: save(TRAINED)),
    ("metadata of no JSON", lambda: state(text="{")),
    ("metadata that is a list", lambda: state(text="[]")),
    ("deep metadata", lambda: state(text="[" * 100_000)),
    ("another format", lambda: state(format="other")),
    ("another run's key", lambda: state(key="other")),
    ("counters that are a list", lambda: state(counters=[1])),
    ("an unknown counter", lambda: state(counters={**COUNTERS, "evil": 1})),
    ("a step in words", lambda: state(counters={**COUNTERS, "step": "one"})),
    ("a fractional step", lambda: state(counters={**COUNTERS, "step": 1.5})),
    ("a negative step", lambda: state(counters={**COUNTERS, "step": -5})),
    ("done in words", lambda: state(counters={**COUNTERS, "done": "no"})),
    ("a curve of numbers", lambda: state(curve=[1, 2])),
    ("a curve of words", lambda: state(curve=[["a", "b", "c"]])),
    ("no generator", lambda: state(TRAINED)),
    ("a generator of four bytes", lambda: state({**TRAINED, "generator": torch.zeros(4, dtype=torch.uint8)})),
    ("a generator of floats", lambda: state({**TRAINED, "generator": torch.zeros(5056)})),
    ("a large generator", lambda: state({**TRAINED, "generator": torch.zeros(200_000, dtype=torch.uint8)})),
    ("a missing tensor", lambda: state(GENERATOR)),
    ("a tensor of another shape", lambda: state({"latent.a": torch.zeros(4, 5), **GENERATOR})),
    ("a large tensor", lambda: state({"latent.a": torch.zeros(1000, 1000), **GENERATOR})),
    ("an unknown tensor", lambda: state({**TRAINED, **GENERATOR, "evil": torch.zeros(1)})),
    ("moments of another shape", lambda: state({**TRAINED, **GENERATOR, "latent.a.mean": torch.zeros(1)})),
]


# quantized tensors


def stored(change: Callable[[dict[str, torch.Tensor], dict[str, Any]], Any]) -> Make:
    """A file of quantized tensors, damaged."""

    def make(folder: Path) -> Path:
        from safetensors import safe_open

        path = folder / "tensors.safetensors"
        save_quantized(quantize_with(model(), load_recipe("int8"), "rtn"), path)
        with safe_open(path, "pt") as file:
            held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            said = json.loads(file.metadata()["quantized"])
        change(held, said)
        path.write_bytes(save(held, {"quantized": json.dumps(said)}))
        return path

    return make


def read_stored(path: Path) -> Any:
    return load_quantized(model(), path, load_recipe("int8"))


TABLE = "transformer.wte.weight"
STORED: list[tuple[str, Callable[[dict[str, torch.Tensor], dict[str, Any]], Any]]] = [
    ("another format", lambda held, said: said.update(format="other")),
    ("no names", lambda held, said: said.pop("names")),
    ("names of no JSON", lambda held, said: said.update(names="[")),
    ("a name that is not there", lambda held, said: said.update(names='["evil"]')),
    ("names that are numbers", lambda held, said: said.update(names="[1]")),
    ("no scales", lambda held, said: held.pop(f"{TABLE}.scales")),
    ("no integers", lambda held, said: held.pop(f"{TABLE}.integers")),
    ("integers in a row", lambda held, said: held.update({f"{TABLE}.integers": torch.zeros(8, dtype=torch.int8)})),
    ("integers of another type", lambda held, said: held.update({f"{TABLE}.integers": torch.zeros(64, 32)})),
    ("scales of zero", lambda held, said: held[f"{TABLE}.scales"].zero_()),
    ("scales of NaN", lambda held, said: held[f"{TABLE}.scales"].fill_(torch.nan)),
    ("five bits", lambda held, said: held[f"{TABLE}.format"].copy_(torch.tensor([5, 32]))),
    ("no groups", lambda held, said: held[f"{TABLE}.format"].copy_(torch.tensor([8, 0]))),
    ("a short format", lambda held, said: held.update({f"{TABLE}.format": torch.tensor([8])})),
    (
        "another model's shape",
        lambda held, said: held.update(
            {f"{TABLE}.integers": torch.zeros(2, 32, dtype=torch.int8), f"{TABLE}.scales": torch.ones(2, 1)}
        ),
    ),
    ("a tensor that is too large", lambda held, said: held.update(evil=torch.zeros(1000, 1000))),
    ("poles of an unknown name", lambda held, said: said.update(floats='["evil"]')),
]

CASES = [
    *(
        Case(f"a recipe with {name}", written("r.toml", text.encode), quantized_by, RecipeError)
        for name, text in RECIPES
    ),
    *(
        Case(f"a recipe of {name}", written("r.toml", lambda d=data: d), load_recipe, RecipeError)
        for name, data in {"no UTF-8": b"\xff\xfe", "two megabytes": b"#" * 2_000_000}.items()
    ),
    *(
        Case(f"a reference with {name}", written("r.npz", data), load_reference, InputError)
        for name, data in REFERENCES
    ),
    *(
        Case(f"a reference is {name}", strange("r.npz", put), load_reference, CheckpointError)
        for name, put in STRANGE.items()
    ),
    *(
        Case(
            f"a bench table with {name}",
            written("b.json", lambda v=value: json.dumps(v).encode()),
            read_table,
            InputError,
        )
        for name, value in TABLES
    ),
    *(
        Case(f"a bench table is {name}", written("b.json", lambda d=data: d), read_table, InputError)
        for name, data in NOT_JSON.items()
    ),
    *(
        Case(f"a bench table is {name}", strange("b.json", put), read_table, InputError)
        for name, put in STRANGE.items()
        if name != "a link in a circle"
    ),
    *(
        Case(f"a state with {name}", written("s", data), lambda path: State.load(path, "k", TRAINED), InputError)
        for name, data in STATES
    ),
    *(Case(f"quantized tensors with {name}", stored(change), read_stored, InputError) for name, change in STORED),
    Case("quantized tensors in two sparse gigabytes", lambda f: sparse(f / "t"), read_stored, CheckpointError),
    Case("a text of two sparse gigabytes", lambda f: sparse(f / "t"), lambda p: read_text("heldout", p), TextError),
    Case("a text that is a pipe", strange("t", STRANGE["a pipe"]), lambda p: read_text("heldout", p), TextError),
    Case(
        "a text that never ends",
        strange("t", STRANGE["an endless device"]),
        lambda p: read_text("heldout", p),
        TextError,
    ),
    Case("a text of no UTF-8", written("t", lambda: b"\xff\xfe"), lambda p: read_text("heldout", p), TextError),
    Case("a text of nothing", written("t", lambda: b" \n"), lambda p: read_text("heldout", p), TextError),
]
