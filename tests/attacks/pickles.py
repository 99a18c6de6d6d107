"""Attacks on pickled checkpoints: code, memory, records that lie, objects that are no tensors."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from parcae_mobile import load_model
from parcae_mobile.errors import (
    CheckpointError,
    MissingTensorError,
    TensorShapeError,
    TensorValueError,
    UnsafeCheckpointError,
)
from tests.attacks.base import HUGE, STRANGE, checkpoint, model, sparse, tensors
from tests.attacks.case import Case

NAME = "pytorch_model.bin"
LARGEST = "transformer.wte.weight"
# Functions that run code or touch the system when a pickle calls them.
CALLS = [
    ("os", "system", ("touch attacked",)),
    ("posix", "system", ("touch attacked",)),
    ("subprocess", "Popen", (["touch", "attacked"],)),
    ("builtins", "eval", ("open('attacked', 'w')",)),
    ("builtins", "exec", ("open('attacked', 'w')",)),
    ("builtins", "getattr", (1, "real")),
    ("builtins", "open", ("attacked", "w")),
    ("builtins", "__import__", ("os",)),
    ("importlib", "import_module", ("os",)),
    ("runpy", "run_path", ("attacked",)),
    ("shutil", "rmtree", ("attacked",)),
    ("socket", "create_connection", (("127.0.0.1", 9),)),
    ("torch", "load", ("attacked",)),
    ("torch.hub", "load", ("attacked", "x")),
    ("torch.nn.modules.linear", "Linear", (2, 2)),
    ("operator", "attrgetter", ("real",)),
    ("functools", "partial", (print,)),
    ("webbrowser", "open", ("file:///attacked",)),
]


def calling(module: str, name: str, arguments: tuple[Any, ...], protocol: int = 2) -> bytes:
    """A pickle that calls a function when it is loaded without care."""
    call = f"c{module}\n{name}\n".encode() + pickle.dumps(arguments, 0)[:-1] + b"R."
    return (b"\x80" + bytes([protocol]) if protocol > 1 else b"") + call


def archive(data: bytes, records: dict[str, bytes] | None = None, compression: int = zipfile.ZIP_STORED) -> bytes:
    """An archive as torch.save writes one, around any pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as made:
        made.writestr("archive/data.pkl", data)
        made.writestr("archive/byteorder", b"little")
        made.writestr("archive/version", b"3\n")
        for name, content in (records or {}).items():
            made.writestr(f"archive/{name}", content)
    return file.getvalue()


def saved(value: Any, legacy: bool = False) -> bytes:
    """What torch.save makes of a value."""
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


def with_tensor(value: torch.Tensor, name: str = LARGEST) -> bytes:
    return saved({**tensors(), name: value})


def swollen(protocol: bytes = b"\x80\x02") -> bytes:
    """Two gigabytes of zeros from a pickle of fifty bytes."""
    return protocol + b"cbuiltins\nbytearray\n(J" + struct.pack("<i", HUGE) + b"tR."


def laughs() -> dict[str, Any]:
    """A configuration that is small in a pickle and exponentially long in print."""
    value: list[Any] = ["ha"] * 10
    for _ in range(30):
        value = [value] * 10
    return {"n_embd": value}


def overlapping() -> bytes:
    """Records whose directory says that they are as long as the file, all of them."""
    whole = bytearray(saved(tensors()))
    at = 0
    while (at := whole.find(b"PK\x01\x02", at)) >= 0:
        struct.pack_into("<II", whole, at + 20, len(whole) // 2, len(whole) // 2)
        at += 4
    return bytes(whole)


def without(record: str) -> bytes:
    """The archive of the model without one of its records."""
    source, target = zipfile.ZipFile(io.BytesIO(saved(tensors()))), io.BytesIO()
    with zipfile.ZipFile(target, "w") as made:
        for item in source.infolist():
            if not item.filename.endswith(record):
                made.writestr(item.filename, source.read(item))
    return target.getvalue()


def shorter(record: str, length: int) -> bytes:
    """The archive with one record cut, its checksum right."""
    source, target = zipfile.ZipFile(io.BytesIO(saved(tensors()))), io.BytesIO()
    with zipfile.ZipFile(target, "w") as made:
        for item in source.infolist():
            data = source.read(item)
            made.writestr(item.filename, data[:length] if item.filename.endswith(record) else data)
    return target.getvalue()


FILES: list[tuple[str, Callable[[], bytes], type[CheckpointError]]] = [
    ("nothing in it", lambda: b"", CheckpointError),
    ("a text in it", lambda: b"hello " * 100, CheckpointError),
    ("a stop and nothing else", lambda: b"\x80\x02.", CheckpointError),
    ("an unknown opcode", lambda: b"\x80\x02\xf9.", CheckpointError),
    ("protocol 255", lambda: b"\x80\xff.", CheckpointError),
    ("a memo that was never set", lambda: b"\x80\x02h\x07.", CheckpointError),
    ("an extension code", lambda: b"\x80\x02\x82\x01.", CheckpointError),
    ("a hundred thousand marks", lambda: b"\x80\x02" + b"(" * 100_000 + b".", CheckpointError),
    ("nested tuples", lambda: b"\x80\x02)" + b"\x85" * 100_000 + b".", CheckpointError),
    ("two gigabytes asked for", swollen, UnsafeCheckpointError),
    ("two gigabytes asked for in an archive", lambda: archive(swollen()), UnsafeCheckpointError),
    ("a number of two gigabytes", lambda: archive(b"\x80\x02\x8b" + struct.pack("<i", HUGE) + b"."), CheckpointError),
    ("a text of two gigabytes", lambda: archive(b"\x80\x02X" + struct.pack("<I", HUGE) + b"."), CheckpointError),
    ("an archive of no records", lambda: b"PK\x05\x06" + b"\0" * 18, CheckpointError),
    ("a compressed pickle", lambda: archive(b"\0" * 30_000_000, compression=zipfile.ZIP_DEFLATED), CheckpointError),
    ("a compressed record", lambda: archive(b"\x80\x02}.", {"data/0": b"\0" * 30_000_000}, 8), CheckpointError),
    ("records that overlap", overlapping, CheckpointError),
    ("an archive without its pickle", lambda: without("data.pkl"), CheckpointError),
    ("an archive without a tensor", lambda: without("data/0"), CheckpointError),
    ("a pickle cut off in its archive", lambda: shorter("data.pkl", 200), CheckpointError),
    ("a tensor cut off in its archive", lambda: shorter("data/0", 16), CheckpointError),
    ("half of an archive", lambda: saved(tensors())[:3000], CheckpointError),
    ("half of an old file", lambda: saved(tensors(), legacy=True)[:3000], CheckpointError),
    ("an old file without its values", lambda: saved(tensors(), legacy=True)[:-8000], CheckpointError),
    ("a list", lambda: saved([1, 2]), CheckpointError),
    ("one tensor", lambda: saved(torch.zeros(3)), CheckpointError),
    ("an empty dict", lambda: saved({}), CheckpointError),
    ("numbers for tensors", lambda: saved(dict.fromkeys(tensors(), 1.0)), CheckpointError),
    ("a text among tensors", lambda: saved({**tensors(), "note": "x"}), CheckpointError),
    ("tensors of another model", lambda: saved({"weight": torch.zeros(3)}), MissingTensorError),
    ("a whole module", lambda: saved(model()), UnsafeCheckpointError),
    ("one value for a large shape", lambda: with_tensor(torch.zeros(1).expand(2**34, 64)), TensorShapeError),
    ("one value for the right shape", lambda: with_tensor(torch.zeros(1).expand(64, 32)), TensorShapeError),
    (
        "a large storage below a small tensor",
        lambda: with_tensor(torch.zeros(4_000_000)[:2048].view(64, 32)),
        TensorShapeError,
    ),
    ("a sparse tensor", lambda: with_tensor(torch.zeros(64, 32).to_sparse()), TensorValueError),
    ("a tensor on no device", lambda: with_tensor(torch.zeros(64, 32, device="meta")), TensorValueError),
    (
        "a quantized tensor",
        lambda: with_tensor(torch.quantize_per_tensor(torch.zeros(64, 32), 1.0, 0, torch.qint8)),
        CheckpointError,
    ),
    ("a complex tensor", lambda: with_tensor(torch.zeros(64, 32, dtype=torch.complex64)), TensorValueError),
    ("a tensor of NaN", lambda: with_tensor(torch.full((64, 32), torch.nan)), TensorValueError),
    ("names that are numbers", lambda: saved(dict(enumerate(tensors().values()))), MissingTensorError),
    ("a dict inside of itself", lambda: archive(b"\x80\x02}q\0X\x05\0\0\0modelh\0s."), CheckpointError),
]


def training(config: Any) -> Callable[[Path], Path]:
    """A training run's folder whose checkpoint has a configuration of its own."""

    def make(folder: Path) -> Path:
        checkpoint(folder, name="unused.bin")
        (folder / "config.json").rename(folder / "model_config.json")
        (folder / "unused.bin").unlink()
        torch.save({"model": tensors(), "model_config": config}, folder / "step-00000001.pth")
        return folder

    return make


def safely(folder: Path) -> Any:
    """Load, and say so if code of the file ran."""
    place = os.getcwd()
    os.chdir(folder)
    try:
        return load_model(folder)
    finally:
        os.chdir(place)
        assert not (folder / "attacked").exists(), "code of the pickle ran"


def strange(put: Callable[[Path], Any]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        checkpoint(folder, name=NAME)
        (folder / NAME).unlink()
        put(folder / NAME)
        return folder

    return make


def sparse_archive(folder: Path) -> Path:
    """An archive before which there are two gigabytes of nothing."""
    checkpoint(folder, name=NAME, data=b"")
    sparse(folder / NAME)
    with (folder / NAME).open("ab") as file:
        file.write(saved(tensors()))
    return folder


CASES = [
    *(
        Case(
            f"a pickle that calls {module}.{name}, protocol {protocol}",
            partial(checkpoint, data=calling(module, name, arguments, protocol), name=NAME),
            safely,
            UnsafeCheckpointError,
            "not executed",
        )
        for module, name, arguments in CALLS
        for protocol in (0, 2)
    ),
    *(
        Case(
            f"an archive that calls {module}.{name}",
            partial(checkpoint, data=archive(calling(module, name, arguments)), name=NAME),
            safely,
            UnsafeCheckpointError,
            "not executed",
        )
        for module, name, arguments in CALLS
    ),
    *(
        Case(f"a pickle with {name}", lambda f, d=data: checkpoint(f, data=d(), name=NAME), safely, error)
        for name, data, error in FILES
    ),
    *(Case(f"a pickle is {name}", strange(put), load_model, CheckpointError) for name, put in STRANGE.items()),
    Case("a pickle with two gigabytes before its archive", sparse_archive, load_model, CheckpointError),
    Case("a training run whose configuration laughs", training(laughs()), load_model, CheckpointError, "model_config"),
    Case("a training run with numbers for keys", training({1: 2}), load_model, CheckpointError, "model_config"),
    Case("a training run with a long text", training({"name": "x" * 10**6}), load_model, CheckpointError),
]
