"""Attacks on ONNX graphs: of an adapter, which the reader of the injection meets, and what the runtime meets."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from onnx import TensorProto, helper

from export.targets.host import CacheGeometry
from export.targets.onnx.runtime.host import OnnxHost
from export.targets.onnx.writer import read_injection
from parcae_mobile.errors import InputError
from tests.attacks.base import model, sparse
from tests.attacks.case import Case


@functools.cache
def geometry() -> CacheGeometry:
    return CacheGeometry.of(model().config, 4)


def tensor(name: str, **external: str) -> TensorProto:
    proto = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4])
    proto.data_location = TensorProto.EXTERNAL
    for key, value in external.items():
        proto.external_data.add(key=key, value=value)
    return proto


def graph(initializer: TensorProto, kind: str = "Mul", name: str = "transformer.adapter.decay") -> bytes:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])
    initializer.name = name
    node = helper.make_node(kind, ["x", name], ["y"])
    made = helper.make_model(
        helper.make_graph([node], "g", [x], [y], [initializer]),
        ir_version=10,
        opset_imports=[helper.make_opsetid("", 21)],
    )
    return made.SerializeToString()


def folder_of(data: bytes, weights: bytes = b"\0" * 16) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder.parent / f"{folder.name}.secret").write_bytes(b"\0" * 16)
        (folder / "model.onnx").write_bytes(data)
        (folder / "weights.data").write_bytes(weights)
        return folder

    return make


def opened(folder: Path) -> Any:
    host = OnnxHost(folder, "scan", geometry(), threads=1)
    return host.run([1, 2], 2)


PLACE = {"location": "weights.data", "offset": "0", "length": "16"}
EXTERNAL: list[tuple[str, dict[str, str]]] = [
    ("above", {**PLACE, "location": "../secret"}),
    ("at an absolute place", {**PLACE, "location": "/etc/passwd"}),
    ("in a folder", {**PLACE, "location": "a/weights.data"}),
    ("behind a back slash", {**PLACE, "location": "..\\secret"}),
    ("in no file", {"offset": "0"}),
    ("in the folder itself", {**PLACE, "location": "."}),
    ("in a file that is not there", {**PLACE, "location": "none.data"}),
    ("beyond the file", {**PLACE, "offset": "4096"}),
    ("beyond all numbers", {**PLACE, "offset": "9" * 30}),
    ("at a negative place", {**PLACE, "offset": "-16"}),
    ("at a place in words", {**PLACE, "offset": "start"}),
    ("of two gigabytes", {**PLACE, "length": str(2**31)}),
    ("of too few bytes", {**PLACE, "length": "8"}),
]
GRAPHS: list[tuple[str, bytes]] = [
    ("nothing", b""),
    ("no protobuf", b"\xff" * 500),
    ("half a graph", graph(tensor("w", **PLACE))[:60]),
    ("an unknown operator", graph(tensor("w", **PLACE), "Evil", "w")),
    ("ports that nobody knows", graph(tensor("w", **PLACE), "Mul", "w")),
    ("weights above", graph(tensor("w", **{**PLACE, "location": "../secret"}), "Mul", "w")),
    ("weights at an absolute place", graph(tensor("w", **{**PLACE, "location": "/etc/passwd"}), "Mul", "w")),
    ("weights beyond the file", graph(tensor("w", **{**PLACE, "offset": "65536"}), "Mul", "w")),
]
CASES = [
    *(
        Case(f"an ONNX graph with weights {name}", folder_of(graph(tensor("w", **place))), read_injection, InputError)
        for name, place in EXTERNAL
    ),
    *(Case(f"onnxruntime with {name}", folder_of(data), opened, InputError) for name, data in GRAPHS),
    Case("an ONNX graph of no protobuf", folder_of(b"\xff" * 500), read_injection, InputError),
    Case(
        "a decay that another operator reads", folder_of(graph(tensor("w", **PLACE), "Add")), read_injection, InputError
    ),
    Case("an ONNX graph of sparse gigabytes", lambda f: (sparse(f / "model.onnx"), f)[1], read_injection, InputError),
]
