"""What a stored format costs in time at one token: onnxruntime's `MatMulNBits` over the matrices of the 140M block.

    python -m export.bench.costs.kernels                         # seconds; one thread

Two blocks' matrices in a chain, as a loop runs them, random integers, activations in int8. All formats are loaded and
take turns; printed is the median time over that of int4 in groups of 128. `quantize/study/front.py` holds such a run.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from parcae_mobile.errors import ParcaeError, ToolMissingError

if TYPE_CHECKING:
    from onnx import ModelProto

WIDTH, HIDDEN, BLOCKS = 768, 3072, 2
ROUNDS, RUNS = 40, 4
FORMATS = (
    *((4, group, zero_points) for group in (32, 64, 128) for zero_points in (False, True)),
    (8, 256, False),  # one scale for a row, repeated for each of the widest blocks that the kernel has
)


def chain(bits: int, group: int, zero_points: bool) -> ModelProto:
    """A graph from (1, width) to (1, width): four square matrices and the two of an MLP for each block."""
    from onnx import TensorProto, helper, numpy_helper

    random, nodes, initializers, value = np.random.default_rng(0), [], [], "x"
    for place, (columns, rows) in enumerate(_shapes()):
        blocks = columns // group
        tensors = {
            "b": random.integers(0, 256, (rows, blocks, group * bits // 8), np.uint8),
            "s": np.full((rows, blocks), 2.0**-bits / np.sqrt(columns), np.float32),
        }
        if zero_points:
            tensors["z"] = random.integers(0, 256, (rows, -(-blocks * bits // 8)), np.uint8)
        names = [f"{name}{place}" for name in tensors]
        initializers += [numpy_helper.from_array(t, n) for t, n in zip(tensors.values(), names, strict=True)]
        form: dict[str, Any] = {"K": columns, "N": rows, "bits": bits, "block_size": group, "accuracy_level": 4}
        nodes.append(helper.make_node("MatMulNBits", [value, *names], [f"y{place}"], domain="com.microsoft", **form))
        value = f"y{place}"
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, WIDTH]) for name in ("x", value)]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], initializers)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def _shapes() -> Iterator[tuple[int, int]]:
    """Columns and rows."""
    for _ in range(BLOCKS):
        yield from [(WIDTH, WIDTH)] * 4
        yield WIDTH, HIDDEN
        yield HIDDEN, WIDTH


def measure() -> dict[tuple[int, int, bool], float]:
    """Milliseconds of each format: bits, columns with one scale, zero points."""
    try:
        import onnxruntime
    except ImportError:
        raise ToolMissingError("kernels are onnxruntime's: pip install 'parcae-mobile[onnx]'") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    inputs = {"x": np.random.default_rng(1).standard_normal((1, WIDTH), np.float32)}
    sessions: dict[tuple[int, int, bool], Any] = {
        form: onnxruntime.InferenceSession(chain(*form).SerializeToString(), options) for form in FORMATS
    }
    times: dict[tuple[int, int, bool], list[float]] = {form: [] for form in FORMATS}
    for _ in range(ROUNDS):
        for form, session in sessions.items():
            session.run(None, inputs)  # brings the weights back into the processor's caches
            for _ in range(RUNS):
                started = time.perf_counter()
                session.run(None, inputs)
                times[form].append((time.perf_counter() - started) * 1e3)
    return {form: statistics.median(values) for form, values in times.items()}


def main() -> int:
    """Print the table; returns the exit code."""
    try:
        times = measure()
    except ParcaeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    base = times[4, 128, False]
    print("| bits | columns with one scale | zero points | ms | time |\n| --- | --- | --- | --- | --- |")
    for (bits, group, zero_points), ms in times.items():
        width = "row" if bits == 8 else str(group)
        print(f"| {bits} | {width} | {'yes' if zero_points else 'no'} | {ms:.3f} | {ms / base:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
