"""Attacks on the manifests: of an artifact folder, and of an app's model."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from app_kit.manifest_vectors import BASE, CONTENTS
from export.bundle.place import read_all
from parcae_mobile.app_checks import check_files, read_app_manifest
from parcae_mobile.app_manifest import APP_MANIFEST, APP_SIGNATURE, MOST_APP_MANIFEST
from parcae_mobile.errors import AppManifestError, ChecksumError, InputError, ManifestError, SignatureError
from parcae_mobile.manifest import MANIFEST, hash_files, verify_files
from parcae_mobile.signature import check_signature, sign
from tests.attacks.base import HUGE, NOT_JSON, STRANGE, sparse
from tests.attacks.case import Case
from tests.manifest_values import STAGES, manifest_values

FILES = {"model.onnx": b"graph", "weights.data": bytes(range(256)), "inner/part.bin": b"part"}


def artifact(folder: Path, change: Callable[[dict[str, Any]], Any] = lambda values: None) -> Path:
    """An artifact folder whose manifest is right but for the change."""
    for name, content in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    files = {name: entry.model_dump() for name, entry in hash_files(folder).items()}
    values = manifest_values(files=files)
    change(values)
    (folder / MANIFEST).write_text(json.dumps(values), encoding="utf-8")
    return folder


def setting(path: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    """A change of one value, at a path of keys with slashes."""
    *keys, last = path.split("/")

    def change(values: dict[str, Any]) -> None:
        for key in keys:
            values = values[key]
        values[last] = value

    return change


def listing(name: str) -> Callable[[dict[str, Any]], Any]:
    """One more file in the list."""
    return lambda values: values["files"].update({name: {"bytes": 0, "sha256": "0" * 64}})


PATHS = [
    "../evil",
    "/etc/passwd",
    "a/../../evil",
    "C:\\evil",
    "a\\b",
    "a//b",
    "./a",
    ".hidden",
    "",
    ".",
    "..",
    "a/",
    "a\0b",
    "~/evil",
    "a\nb",
    "x" * 5000,
    "manifest.json",
    "\u202eevil",
    "a/./b",
    "con:",
    "-rf",
    "$(evil)",
]
FIELDS: list[tuple[str, Any]] = [
    ("format", 2),
    ("format", "1"),
    ("artifact", None),
    ("model", 5),
    ("loops", 0),
    ("loops", -1),
    ("loops", "many"),
    ("loops", 10**9),
    ("max_loops", 0),
    ("max_loops", 2**31),
    ("max_loops", 1e400),
    ("trained_loops", 10**12),
    ("loop_form", "spiral"),
    ("compute", "fp8"),
    ("geometry", None),
    ("geometry/layers", {}),
    ("geometry/layers", {**STAGES, "core_block": 10**9}),
    ("geometry/layers", {**STAGES, "coda": -1}),
    ("geometry/heads", {**STAGES, "prelude": 2**40}),
    ("geometry/head_size", {**STAGES, "prelude": 2**40}),
    ("geometry/context", 0),
    ("geometry/context", 2**40),
    ("geometry/state_width", 10**12),
    ("geometry/vocab_size", 2**62),
    ("geometry/padded_vocab_size", 2**62),
    ("kv/context", 2**40),
    ("kv/context", 97),
    ("kv/dtype", "int3"),
    ("kv/policy", "ring"),
    ("kv/bytes_per_token", []),
    ("quantization", []),
    ("quantization/tensors", {"a": 1}),
    ("certificate/max_decay", "half"),
    ("lowering", True),
    ("memory_bytes", -1),
    ("memory_bytes", "many"),
    ("tools", []),
    ("files", []),
    ("files", {"a": 1}),
    ("files/model.onnx/bytes", -1),
    ("files/model.onnx/bytes", 1.5),
    ("files/model.onnx/sha256", "A" * 64),
    ("files/model.onnx/sha256", "0" * 63),
    ("graphs", {"4": "../evil.onnx"}),
    ("graphs", {"4": "/etc/passwd"}),
    ("graphs", {"many": "model.onnx"}),
    ("graphs", {"0": "model.onnx"}),
    ("graphs", {"9" * 5000: "model.onnx"}),
    ("signature", {"a": {"inputs": [{}], "outputs": []}}),
    ("evil", 1), ("digest", "0" * 64), ("digest", 5),
    ("initial_state", "random"),
    ("stops", ["a"]),
    ("bos", "a"),
    ("delegation", {"a": {"delegates": -1}}),
    ("reference", {"device": 1}),
]


def large_cache(values: dict[str, Any]) -> None:
    """Every number is possible, and together they make a cache of terabytes."""
    big = {"prelude": 60_000, "core_block": 60_000, "coda": 60_000}
    values["geometry"] |= {"layers": big, "heads": big, "head_size": big}


def folder_cases() -> list[Case]:
    """Folders that are not what an honest manifest says."""

    def changed(change: Callable[[Path], Any]) -> Callable[[Path], Path]:
        def make(folder: Path) -> Path:
            change(artifact(folder))
            return folder

        return make

    def instead(name: str, put: Callable[[Path], Any]) -> Callable[[Path], Path]:
        def change(folder: Path) -> None:
            (folder / name).unlink()
            put(folder / name)

        return changed(change)

    inside: list[tuple[str, Callable[[Path], Any], type[InputError]]] = [
        ("a missing file", lambda f: (f / "model.onnx").unlink(), ChecksumError),
        ("one more file", lambda f: (f / "evil").write_bytes(b"x"), ChecksumError),
        ("one more file in a folder of a folder", lambda f: _deep(f / "a/b/c/evil"), ChecksumError),
        ("a hidden file", lambda f: (f / ".evil").write_bytes(b"x"), ChecksumError),
        ("a file cut off", lambda f: (f / "model.onnx").write_bytes(b"grap"), ChecksumError),
        ("another file of the same size", lambda f: (f / "model.onnx").write_bytes(b"hparg"), ChecksumError),
        ("a link to a file", lambda f: (f / "evil").symlink_to("/etc/passwd"), ManifestError),
        ("a link to nothing", lambda f: (f / "evil").symlink_to("nowhere"), ManifestError),
        ("a link to a folder", lambda f: (f / "evil").symlink_to("/etc"), ManifestError),
        ("a link in a circle", lambda f: (f / "evil").symlink_to("evil"), ManifestError),
        ("one more pipe", lambda f: os.mkfifo(f / "evil"), ManifestError),
        ("a sparse file of a terabyte", lambda f: sparse(f / "weights.data", 2**40), ChecksumError),
    ]
    cases = [Case(f"an artifact with {name}", changed(c), verify_files, error) for name, c, error in inside]
    for name, put in STRANGE.items():
        cases.append(Case(f"an artifact's file is {name}", instead("model.onnx", put), verify_files, InputError))
        cases.append(Case(f"an artifact's manifest is {name}", instead(MANIFEST, put), verify_files, ManifestError))
    return cases


def _deep(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x")


def manifest_cases() -> list[Case]:
    """Manifests that lie."""

    def raw(data: bytes) -> Callable[[Path], Path]:
        def make(folder: Path) -> Path:
            (artifact(folder) / MANIFEST).write_bytes(data)
            return folder

        return make

    cases = [
        Case(
            f"a manifest with {p} = {str(v)[:30]} #{n}",
            partial(artifact, change=setting(p, v)),
            verify_files,
            ManifestError,
        )
        for n, (p, v) in enumerate(FIELDS)
    ]
    cases += [
        Case(
            f"a manifest that lists {path[:30]!r}", partial(artifact, change=listing(path)), verify_files, ManifestError
        )
        for path in PATHS
    ]
    cases += [Case(f"a manifest is {n}", raw(data), verify_files, ManifestError) for n, data in NOT_JSON.items()]
    cases.append(Case("a manifest with a large cache", lambda f: artifact(f, large_cache), verify_files, ManifestError))
    cases.append(Case("a manifest with a name twice inside", raw(_twice()), verify_files, ManifestError, "twice"))
    return cases


def _twice() -> bytes:
    return json.dumps(manifest_values()).replace('"bos": 0', '"bos": 0, "bos": 1').encode()


# an app's manifest

APP_FIELDS: list[tuple[str, Any]] = [
    ("format", 2),
    ("format", True),
    ("format", None),
    ("name", "../evil"),
    ("name", ""),
    ("platform", "symbian"),
    ("target", "gguf"),
    ("runtime/name", "evil"),
    ("runtime/minimum", "new"),
    ("runtime/minimum", "9" * 10**6 + "x"),
    ("loops/min", 0),
    ("loops/min", 17),
    ("loops/max", "16"),
    ("loops/trained", 1.5),
    ("loops/built", [10**9]),
    ("loops/form", "spiral"),
    ("graphs", {}),
    ("graphs/coda/file", "../evil"),
    ("graphs/coda/file", "other"),
    ("cache/policy", "ring"),
    ("cache/dtype", "int3"),
    ("cache/context", 0),
    ("cache/context", -(10**30)),
    ("cache/recur/slots", 0),
    ("memory/weights", -1),
    ("memory", None),
    ("memory/overhead_percent", 1.5),
    ("tokenizer/file", "/tokenizer.json"),
    ("tokenizer/stop", [7]),
    ("tokenizer/bos", -1),
    ("vocab_size", 9),
    ("self_test/logits/1/offset", -1),
    ("self_test/logits/1/shape", [2**40, 8]),
    ("self_test/logits/1/shape", [2]),
    ("self_test/max_abs", "small"),
    ("files/weights.data/sha256", "abc"),
    ("files/weights.data/bytes", -1),
    ("files/weights.data/bytes", 1e400),
    ("files", None),
    ("weights_sha256", "0"),
]


def app_cases() -> list[Case]:
    """Texts of `app.json`, and folders that are not what one says."""

    def text(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], str]:
        def make(folder: Path) -> str:
            values = copy.deepcopy(BASE)
            change(values)
            return json.dumps(values)

        return make

    def folder(change: Callable[[Path], Any]) -> Callable[[Path], Path]:
        def make(place: Path) -> Path:
            for name, content in CONTENTS.items():
                (place / name).write_bytes(content)
            change(place)
            return place

        return make

    def check(place: Path) -> None:
        check_files(read_app_manifest(json.dumps(BASE)), place)

    def replaced(name: str, put: Callable[[Path], Any]) -> Callable[[Path], Any]:
        return lambda place: ((place / name).unlink(), put(place / name))

    def linked(place: Path) -> None:
        """The right content, in a place that is not the model's."""
        (place.parent / "outside.data").write_bytes(CONTENTS["weights.data"])
        (place / "weights.data").unlink()
        (place / "weights.data").symlink_to("../outside.data")

    cases = [
        Case(f"app.json with {p} = {str(v)[:30]} #{n}", text(setting(p, v)), read_app_manifest, AppManifestError)
        for n, (p, v) in enumerate(APP_FIELDS)
    ]
    cases += [
        Case(f"app.json that lists {path[:30]!r}", text(listing(path)), read_app_manifest, AppManifestError)
        for path in PATHS
        if path not in ("con:", "manifest.json")
    ]
    cases += [
        Case(f"app.json is {name}", lambda f, d=data: d.decode(errors="replace"), read_app_manifest, AppManifestError)
        for name, data in NOT_JSON.items()
    ]
    changes = {name: replaced("weights.data", put) for name, put in STRANGE.items() if put is not sparse}
    changes["a sparse file of two gigabytes"] = lambda place: sparse(place / "weights.data", HUGE)
    changes["a link to another place"] = linked
    cases += [Case(f"an app's file is {n}", folder(c), check, AppManifestError) for n, c in changes.items()]
    return cases


def large_app_cases() -> list[Case]:
    """What is read whole before anything can be known of it: `app.json` and its signature, of sizes that neither has."""
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))

    def model(name: str, size: int) -> Callable[[Path], Path]:
        def make(app: Path) -> Path:
            (app / "model").mkdir()
            (app / "model" / APP_MANIFEST).write_text(json.dumps(BASE), encoding="utf-8")
            sign(app / "model", key)
            sparse(app / "model" / name, size)
            return app

        return make

    def check(app: Path) -> None:
        check_signature(app / "model", key.public_key())

    words, json_sizes = "are the most", {"a byte too large": MOST_APP_MANIFEST + 1, "two gigabytes": HUGE}
    cases = [Case(f"app.json, {n}", model(APP_MANIFEST, s), read_all, InputError, words) for n, s in json_sizes.items()]
    cases += [
        Case(f"signed app.json, {n}", model(APP_MANIFEST, s), check, SignatureError, words)
        for n, s in json_sizes.items()
    ]
    cases += [
        Case(f"app.sig of {size} bytes", model(APP_SIGNATURE, size), check, SignatureError, words)
        for size in (66, HUGE)
    ]
    return cases


CASES = [*folder_cases(), *manifest_cases(), *app_cases(), *large_app_cases()]
