"""The `.pte` file: read what its methods consume, and store a table once that lookup and head both use.

    file = PteFile(path.read_bytes())
    for matrix in file.matrices("coda"): ...               # what XNNPACK multiplies with: integers, scales, floats
    file.writelines(store_once(data))                      # an open file; in pieces

A file is a flatbuffer followed by segments. Constants of portable operators share one segment; every constant of
XNNPACK is a segment of its own, found by name. The runtime loads a segment by its offset and size alone, so a named
segment may lie inside the constants' segment: the same bytes then serve the embedding and the head.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from executorch.exir._serialize._flatbuffer import _flatc_decompile
from executorch.exir._serialize._flatbuffer_program import _flatbuffer_to_program
from executorch.exir.schema import DelegateCall, ExecutionPlan, ScalarType, Tensor
from flatbuffers.table import Table

from export.targets.executorch.host import DAMAGED, HEADER, HEADER_AT, check_extent
from parcae_mobile.errors import InputError, reason_of

ALIGNMENT = 128
LEAST_SHARED = 4096  # bytes; what is smaller is not worth sharing
_SEGMENTS_SLOT, _OFFSET_SLOT = 12, 4  # vtable slots of Program.segments and DataSegment.offset
_XNN_HEADER = struct.Struct("<4s4sHIIIQ")
_TYPES = {
    ScalarType.BYTE: np.uint8,
    ScalarType.CHAR: np.int8,
    ScalarType.LONG: np.int64,
    ScalarType.HALF: np.float16,
    ScalarType.FLOAT: np.float32,
}


@dataclass(frozen=True)
class Matrix:
    """A weight of a fully connected node: (rows, columns) integers with scales (rows, groups), or floats without."""

    values: np.ndarray
    scales: np.ndarray | None
    bits: int


@contextlib.contextmanager
def _damaged() -> Iterator[None]:
    """What the decoder raises for bytes that are no program, as one line."""
    try:
        yield
    except (subprocess.SubprocessError, LookupError, ValueError, TypeError, AttributeError, struct.error, OSError) as e:
        raise InputError(f"{DAMAGED} ({reason_of(e)}); export it again") from None


class PteFile:
    """A program's methods, constants and delegates, as written. Raises `InputError` for anything else."""

    def __init__(self, data: bytes) -> None:
        check_extent(data, len(data))
        self.data = data
        _, _, self.program_size, self.base, self.segment_bytes = HEADER.unpack_from(data, HEADER_AT)
        with _damaged():
            self.program = _flatbuffer_to_program(data)
            self.segments = [(part.offset, part.size) for part in self.program.segments]
            self.named = {item.key: item.segment_index for item in self.program.named_data}
            self.home = self.program.constant_segment.segment_index
            self.constants = self.program.constant_segment.offsets
        for offset, size in self.segments:
            if offset < 0 or size < 0 or self.base + offset + size > len(data):
                raise InputError(f"{DAMAGED}: a segment of {size} bytes at {offset} lies outside of the file")
        if not self.segments or not all(0 <= index < len(self.segments) for index in (self.home, *self.named.values())):
            raise InputError(f"{DAMAGED}: it names a segment that is not there")

    @cached_property
    def methods(self) -> dict[str, ExecutionPlan]:
        """Execution plans by name, constant methods included."""
        return {plan.name: plan for plan in self.program.execution_plan}

    def segment(self, index: int) -> memoryview:
        """The bytes of a segment."""
        offset, size = self.segments[index]
        return memoryview(self.data)[self.base + offset : self.base + offset + size]

    def constant(self, tensor: Tensor) -> np.ndarray:
        """The values of a constant of a method's own operators."""
        raw = self.segment(self.home)[self.constants[tensor.data_buffer_idx] :]
        return np.frombuffer(raw, _TYPES[tensor.scalar_type], math.prod(tensor.sizes)).reshape(tensor.sizes)

    def graphs(self, method: str) -> Iterator[dict[str, Any]]:
        """The XNNPACK graphs of a method, decoded."""
        for delegate in self.methods[method].delegates:
            yield decode_graph(bytes(self.segment(delegate.processed.index)))

    def bytes_of(self, graph: dict[str, Any], buffer: int) -> memoryview:
        """The bytes of a graph's constant."""
        return self.segment(self.named[graph["constant_data"][buffer]["named_key"]])

    def vectors(self, method: str) -> Iterator[tuple[dict[str, Any], dict[int, np.ndarray]]]:
        """Each graph of a method with its float constants by value id: its own, and those that the program hands in."""
        plan = self.methods[method]
        calls = [step.instr_args for chain in plan.chains for step in chain.instructions]
        arguments = {call.delegate_index: call.args for call in calls if isinstance(call, DelegateCall)}
        for index, graph in enumerate(self.graphs(method)):
            constants = {}
            for key, value in values_by_id(graph).items():
                tensor, outside = value["tensor"], None
                if tensor["external_id"] < len(arguments[index]):
                    outside = plan.values[arguments[index][tensor["external_id"]]].val
                if tensor["constant_buffer_idx"] and value["quant_params"] is None:
                    constants[key] = np.frombuffer(self.bytes_of(graph, tensor["constant_buffer_idx"]), np.float32)
                elif isinstance(outside, Tensor) and outside.allocation_info is None and outside.data_buffer_idx > 0:
                    constants[key] = self.constant(outside)
            yield graph, constants

    def matrices(self, method: str) -> Iterator[Matrix]:
        """Weights of the fully connected nodes of a method, in the order of its delegates."""
        for graph in self.graphs(method):
            values = values_by_id(graph)
            for node in graph["xnodes"]:
                if node["xnode_union_type"] == "XNNFullyConnected":
                    yield self.matrix(graph, values[node["xnode_union"]["filter_id"]])

    def matrix(self, graph: dict[str, Any], value: dict[str, Any]) -> Matrix:
        """A static value of a graph as a matrix."""
        tensor, kind = value["tensor"], value["tensor"]["datatype"].removeprefix("xnn_datatype_")
        raw = self.bytes_of(graph, tensor["constant_buffer_idx"])
        rows, columns = tensor["dims"] if len(tensor["dims"]) == 2 else (1, int(np.prod(tensor["dims"])))
        if kind == "fp32":
            return Matrix(np.frombuffer(raw, np.float32).reshape(rows, columns), None, 32)
        scales = self.bytes_of(graph, value["quant_params"]["scale_buffer_idx"])
        if kind == "qcint8":
            return Matrix(np.frombuffer(raw, np.int8).reshape(rows, columns), _column(np.frombuffer(scales, "<f4")), 8)
        pairs = np.frombuffer(raw, np.uint8).reshape(rows, columns // 2)
        integers = np.stack([pairs & 15, pairs >> 4], -1).reshape(rows, columns).astype(np.int8) - 8
        bfloat = np.frombuffer(scales, "<u2").astype(np.uint32) << 16
        return Matrix(integers.astype(np.int8), bfloat.view(np.float32).reshape(rows, -1), 4)


def decode_graph(payload: bytes) -> dict[str, Any]:
    """An XNNPACK delegate's graph, by the schema and the compiler that the executorch package ships."""
    if len(payload) < _XNN_HEADER.size:
        raise InputError(f"{DAMAGED}: a delegate of {len(payload)} bytes; export it again")
    _, magic, _, offset, size, _, _ = _XNN_HEADER.unpack_from(payload)
    if magic != b"XH00":
        raise InputError("a delegate of the program is not XNNPACK's; export it again")
    schema = resources.files("executorch.backends.xnnpack.serialization").joinpath("schema.fbs").read_bytes()
    with _damaged(), tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "schema.fbs").write_bytes(schema)
        (folder / "graph.bin").write_bytes(payload[offset : offset + size])
        options = ["--raw-binary", "--defaults-json"]
        _flatc_decompile(str(folder), str(folder / "schema.fbs"), str(folder / "graph.bin"), options)
        text = (folder / "graph.json").read_text(encoding="utf-8")
        graph: dict[str, Any] = json.loads(re.sub(r": (-?)inf\b", r": \1Infinity", text))  # the compiler's spelling
    return graph


def values_by_id(graph: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """Values of a decoded graph by id: `tensor` (type, dims, constant_buffer_idx) and, if quantized, `quant_params`."""
    values = {}
    for value in graph["xvalues"]:
        union = value["xvalue_union"]
        if value["xvalue_union_type"] == "XNNQuantizedTensorValue":
            values[union["tensor_value"]["id_out"]] = {
                "tensor": union["tensor_value"],
                "quant_params": union["quant_params"],
            }
        else:
            values[union["id_out"]] = {"tensor": union, "quant_params": None}
    return values


def store_once(data: bytes) -> list[bytes | memoryview]:
    """Drop named segments whose bytes a constant has too, and let their names point into the constants' segment.

    Returns the smaller file in pieces, most of which are views of `data`.
    """
    file = PteFile(data)
    constants = file.segment(file.home)
    inside: dict[int, int] = {}
    for index in file.named.values():
        blob = file.segment(index)
        if len(blob) < LEAST_SHARED or index in inside:
            continue
        same = (start for start in file.constants[1:] if constants[start : start + len(blob)] == blob)
        start = next(same, None)
        if start is not None:
            inside[index] = start
    if not inside:
        return [data]
    header = bytearray(data[: file.base])
    pieces: list[bytes | memoryview] = []
    length, offsets = 0, {}
    for index in range(len(file.segments)):
        if index not in inside:
            padding = bytes(-length % ALIGNMENT)
            offsets[index] = length + len(padding)
            pieces += [padding, file.segment(index)]
            length = offsets[index] + len(file.segment(index))
    offsets |= {index: offsets[file.home] + start for index, start in inside.items()}
    root = Table(data, int.from_bytes(data[:4], "little"))
    vector = root.Vector(root.Offset(_SEGMENTS_SLOT))
    for index, offset in offsets.items():
        table = Table(data, root.Indirect(vector + 4 * index))
        slot = table.Offset(_OFFSET_SLOT)
        if slot:
            struct.pack_into("<Q", header, table.Pos + slot, offset)
        elif offset:
            raise InputError("a segment of the program has no offset to change; export with executorch 1.4.1")
    magic, program_bytes, program_size, base, _ = HEADER.unpack_from(header, HEADER_AT)
    HEADER.pack_into(header, HEADER_AT, magic, program_bytes, program_size, base, length)
    return [bytes(header), *pieces]


def _column(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1, 1)
