"""Saved packages, built with the MIL builder: serialization, control flow, states, functions, compressed weights."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from export.targets.coreml.mil.errors import ExecutionError, FeatureError, UnknownFunctionError
from export.targets.coreml.mil.files.blob import RECORD, RECORD_BYTES, BlobFile
from export.targets.coreml.mil.interpreter import MilProgram, run_mlpackage
from export.targets.coreml.mil.program import Blob

torch.manual_seed(0)
IDS = torch.tensor([2, 0, 1], dtype=torch.int32)


@pytest.fixture(scope="module")
def counter(mil: Any, save: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A loop of n steps: acc <- acc + v (a state, written in the body), v <- v + w * acc."""
    mb, types = mil.mb, mil.types

    @mb.program(
        input_specs=[
            mb.TensorSpec((2, 12), types.fp16),
            mb.TensorSpec((1,), types.int32),
            mb.StateTensorSpec((2, 12), types.fp16),
        ],
        opset_version=mil.ct.target.iOS18,
    )
    def program(x: Any, n: Any, acc: Any) -> Any:
        w = mb.const(val=np.full((12,), 0.5, np.float16), name="w")  # captured by the body, and in weight.bin

        def condition(i: Any, v: Any) -> Any:
            return mb.squeeze(x=mb.less(x=i, y=n), axes=[0])

        def body(i: Any, v: Any) -> Any:
            a = mb.coreml_update_state(state=acc, value=mb.add(x=mb.read_state(input=acc), y=v))
            return mb.add(x=i, y=np.array([1], np.int32)), mb.add(x=v, y=mb.mul(x=w, y=a))

        zero = mb.fill(shape=[1], value=np.int32(0))
        _, v = mb.while_loop(_cond=condition, _body=body, loop_vars=(zero, x))
        return mb.identity(x=v, name="v")

    return Path(save(program, tmp_path_factory.mktemp("loop") / "counter.mlpackage"))


def eager_counter(x: Tensor, n: int, acc: Tensor) -> tuple[Tensor, Tensor]:
    for _ in range(n):
        acc = acc + x
        x = x + (acc * 0.5)
    return x, acc


@pytest.mark.parametrize("n", [0, 1, 3, 6])
def test_while_loop_with_a_state_written_in_its_body(counter: Path, n: int) -> None:
    program = MilProgram.open(counter)
    state, x = program.make_state(), torch.randn(2, 12).half()
    first = program.predict({"x": x, "n": [n]}, state)["v"]
    want, acc = eager_counter(x, n, torch.zeros(2, 12).half())
    assert torch.equal(first, want) and torch.equal(state["acc"], acc)
    program.predict({"x": x, "n": [1]}, state)
    assert torch.equal(state["acc"], acc + x)


def test_a_failed_prediction_leaves_the_state_alone(counter: Path) -> None:
    program = MilProgram.open(counter)
    state = program.make_state()
    program.predict({"x": torch.ones(2, 12).half(), "n": [2]}, state)
    before = state.clone()
    with pytest.raises(ExecutionError, match="still running after 5 iterations"):
        program.predict({"x": torch.ones(2, 12).half(), "n": [9]}, state, loop_limit=5)
    assert torch.equal(state["acc"], before["acc"])


def test_states_are_independent_and_zero_at_first(counter: Path) -> None:
    program = MilProgram.open(counter)
    one, two = program.make_state(), program.make_state()
    assert set(one) == {"acc"} and len(one) == 1
    program.predict({"x": torch.ones(2, 12).half(), "n": [1]}, one)
    assert one["acc"].eq(1).all() and two["acc"].eq(0).all()
    assert run_mlpackage(counter, {"x": torch.ones(2, 12).half(), "n": [0]})["v"].eq(1).all()


def test_a_changed_input_does_not_reach_a_state_that_was_set_from_it(counter: Path) -> None:
    program = MilProgram.open(counter)
    state, x = program.make_state(), torch.ones(2, 12).half()
    program.predict({"x": x, "n": [1]}, state)
    x.fill_(9)
    assert state["acc"].eq(1).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.tensors.clear(), "state 'acc' is missing"),
        (lambda s: s.tensors.update(acc=torch.zeros(2, 12)), "want fp16"),
        (lambda s: s.tensors.update(acc=torch.zeros(1, 12).half()), r"\[1, 12\], want fp16 \[2, 12\]"),
    ],
)
def test_states_are_checked(counter: Path, change: Any, message: str) -> None:
    program = MilProgram.open(counter)
    state = program.make_state()
    change(state)
    with pytest.raises(FeatureError, match=message):
        program.predict({"x": torch.ones(2, 12).half(), "n": [1]}, state)
    with pytest.raises(FeatureError, match=r"pass state=make_state\(\)"):
        program.predict({"x": torch.ones(2, 12).half(), "n": [1]})


def test_cond_takes_one_branch_and_captures_outer_values(mil: Any, save: Any, tmp_path: Path) -> None:
    mb, types = mil.mb, mil.types

    @mb.program(
        input_specs=[mb.TensorSpec((3,), types.fp32), mb.TensorSpec((1,), types.int32)],
        opset_version=mil.ct.target.iOS18,
    )
    def program(x: Any, n: Any) -> Any:
        double = mb.mul(x=x, y=np.float32(2))
        positive = mb.squeeze(x=mb.greater(x=n, y=np.array([0], np.int32)))
        result = mb.cond(
            pred=positive,
            _true_fn=lambda: mb.add(x=double, y=x),
            # Out of range for n <= 0 would be an error: the branch that is not taken must not run.
            _false_fn=lambda: mb.sub(
                x=x, y=mb.gather(x=double, indices=mb.sub(x=np.array([0], np.int32), y=n), axis=0)
            ),
        )
        return mb.identity(x=result, name="out")

    program = MilProgram.open(save(program, tmp_path / "cond.mlpackage"))
    x = torch.tensor([1.0, 2.0, 3.0])
    assert program.predict({"x": x, "n": [5]})["out"].tolist() == [3.0, 6.0, 9.0]
    assert program.predict({"x": x, "n": [-1]})["out"].tolist() == [-3.0, -2.0, -1.0]
    assert program.operator_counts()["cond"] == 1


@pytest.fixture(scope="module")
def functions(mil: Any, save: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Functions `up` (x W) and `down` (x W - 1) that share one weight; `up` is the default."""
    mb, folder = mil.mb, tmp_path_factory.mktemp("multi")
    weight = np.arange(64, dtype=np.float32).reshape(8, 8) / 64

    def program(offset: float) -> Any:
        @mb.program(input_specs=[mb.TensorSpec((2, 8), mil.types.fp32)], opset_version=mil.ct.target.iOS18)
        def function(x: Any) -> Any:
            return mb.sub(x=mb.linear(x=x, weight=weight), y=np.float32(offset), name="y")

        return function

    save(program(0.0), folder / "up.mlpackage")
    save(program(1.0), folder / "down.mlpackage")
    descriptor = mil.ct.utils.MultiFunctionDescriptor()
    for name in ("up", "down"):
        descriptor.add_function(str(folder / f"{name}.mlpackage"), src_function_name="main", target_function_name=name)
    descriptor.default_function_name = "up"
    mil.ct.utils.save_multifunction(descriptor, str(folder / "multi.mlpackage"))
    return Path(folder / "multi.mlpackage")


def test_multifunction_packages_run_each_function(functions: Path) -> None:
    program = MilProgram.open(functions)
    x = torch.randn(2, 8)
    up = program.predict({"x": x})["y"]
    assert sorted(program.functions) == ["down", "up"] and program.default_function == "up"
    assert torch.equal(up, program.predict({"x": x}, function="up")["y"])
    torch.testing.assert_close(program.predict({"x": x}, function="down")["y"], up - 1)
    assert torch.equal(run_mlpackage(functions, {"x": x}, function="up")["y"], up)


def test_functions_share_decoded_weights(functions: Path) -> None:
    program = MilProgram.open(functions)
    for name in program.functions:
        program.predict({"x": torch.randn(2, 8)}, function=name)
    blobs = [value for value in program._constants._literals.values() if value.data.numel() == 64]
    assert len(blobs) == 1


def test_an_unknown_function_is_named_with_those_there_are(functions: Path) -> None:
    with pytest.raises(UnknownFunctionError, match=r"no function 'sideways'; it has \['down', 'up'\]"):
        run_mlpackage(functions, {"x": torch.randn(2, 8)}, function="sideways")


@pytest.fixture(scope="module")
def quantized(mil: Any, save: Any, narrow: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A linear layer and an embedding on one int4 table with a scale per 32 columns."""
    mb, rng = mil.mb, np.random.default_rng(0)
    integers = narrow("int4", rng.integers(-8, 8, (16, 64)))
    scale = (rng.random((16, 2)) * 0.1).astype(np.float16)

    @mb.program(
        input_specs=[mb.TensorSpec((2, 64), mil.types.fp16), mb.TensorSpec((3,), mil.types.int32)],
        opset_version=mil.ct.target.iOS18,
    )
    def program(x: Any, i: Any) -> Any:
        table = mb.constexpr_blockwise_shift_scale(data=integers, scale=scale, name="table")
        return mb.linear(x=x, weight=table, name="y"), mb.gather(x=table, indices=i, axis=0, name="rows")

    return Path(save(program, tmp_path_factory.mktemp("int4") / "int4.mlpackage"))


def test_int4_weights_are_dequantized_once_and_exactly(quantized: Path) -> None:
    rng = np.random.default_rng(0)
    integers = torch.from_numpy(rng.integers(-8, 8, (16, 64)))
    scale = torch.from_numpy((rng.random((16, 2)) * 0.1).astype(np.float16))
    table = (integers.float().reshape(16, 2, 32) * scale.float()[..., None]).half().reshape(16, 64)
    program, x = MilProgram.open(quantized), torch.randn(2, 64).half()
    outputs = program.predict({"x": x, "i": IDS})
    assert torch.equal(outputs["rows"], table[IDS.long()])
    assert torch.equal(outputs["y"], F.linear(x.float(), table.float()).half())
    assert torch.equal(program.constant("table"), table)
    (operation,) = [item for item in program.constants() if item.type == "constexpr_blockwise_shift_scale"]
    assert torch.equal(program.stored(operation, "data"), integers.to(torch.int8))
    assert torch.equal(program.stored(operation, "scale"), scale)
    kept = list(program._constants._folded.values())
    program.predict({"x": x, "i": IDS})
    assert len(kept) == 1 and next(iter(program._constants._folded.values())) is kept[0]


def test_copies_of_a_weight_at_other_places_of_the_file_are_decoded_once(quantized: Path, tmp_path: Path) -> None:
    """As coremltools writes them: each function of a package that it saved again has its own."""
    package = tmp_path / "copies.mlpackage"
    shutil.copytree(quantized, package)
    program = MilProgram.open(package)
    (operation,) = [item for item in program.constants() if item.type == "constexpr_blockwise_shift_scale"]
    (blob,) = operation.inputs["data"]
    assert isinstance(blob, Blob)
    (path,) = package.rglob("weight.bin")
    content = path.read_bytes()
    at = len(content) + -len(content) % RECORD_BYTES
    sentinel, code, size, start, padding = RECORD.unpack_from(content, blob.offset)
    record = RECORD.pack(sentinel, code, size, at + RECORD_BYTES, padding).ljust(RECORD_BYTES, b"\0")
    path.write_bytes(content.ljust(at, b"\0") + record + content[start : start + size])
    program = MilProgram.open(package)
    program.predict({"x": torch.ones(2, 64).half(), "i": IDS})
    elsewhere = replace(operation, inputs={**operation.inputs, "data": (replace(blob, offset=at),)})
    values = program._constants.folded(program.function(), elsewhere, lambda: pytest.fail("it was decoded already"))
    assert values[0] is next(iter(program._constants._folded.values()))[0]
    other = RECORD.pack(sentinel, code + 1, size, at + RECORD_BYTES, padding).ljust(RECORD_BYTES, b"\0")
    path.write_bytes(path.read_bytes().replace(record, other))
    copies = BlobFile(path)
    assert copies.digest(at) != copies.digest(blob.offset), "a copy of another type is no copy"


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6])
def test_palettes_of_every_width(mil: Any, save: Any, narrow: Any, tmp_path: Path, bits: int) -> None:
    mb, rng = mil.mb, np.random.default_rng(bits)
    indices = rng.integers(0, 2**bits, (6, 10))
    lut = rng.standard_normal((2, 1, 2**bits, 1)).astype(np.float16)

    @mb.program(input_specs=[mb.TensorSpec((6, 10), mil.types.fp16)], opset_version=mil.ct.target.iOS18)
    def program(x: Any) -> Any:
        return mb.add(x=x, y=mb.constexpr_lut_to_dense(indices=narrow(f"uint{bits}", indices), lut=lut), name="y")

    out = run_mlpackage(save(program, tmp_path / "p.mlpackage"), {"x": torch.zeros(6, 10).half()})["y"]
    expected = np.stack([lut[row // 3, 0, indices[row], 0] for row in range(6)])
    assert np.array_equal(out.numpy(), expected)


def test_flexible_shapes_are_honoured_and_bounded(mil: Any, save: Any, tmp_path: Path) -> None:
    mb, size = mil.mb, mil.symbol()

    @mb.program(input_specs=[mb.TensorSpec((1, size), mil.types.int32)], opset_version=mil.ct.target.iOS18)
    def program(ids: Any) -> Any:
        table = np.arange(40, dtype=np.float32).reshape(10, 4)
        length = mb.gather(x=mb.shape(x=ids), indices=1, axis=0)
        steps = mb.cast(x=mb.range_1d(start=0, end=length, step=1), dtype="fp32")
        rows = mb.gather(x=table, indices=ids, axis=0)
        return mb.add(x=rows, y=mb.expand_dims(x=steps, axes=[0, 2]), name="rows")

    ranged = mil.ct.TensorType("ids", (1, mil.ct.RangeDim(1, 6, default=2)), dtype=np.int32)
    path = save(program, tmp_path / "flexible.mlpackage", inputs=[ranged])
    opened = MilProgram.open(path)
    table = torch.arange(40.0).reshape(10, 4)
    for length in (1, 2, 6):
        ids = torch.arange(length, dtype=torch.int32)[None]
        want = table[ids.long()] + torch.arange(length)[None, :, None]
        assert torch.equal(opened.predict({"ids": ids})["rows"], want)
    with pytest.raises(FeatureError, match=r"shape \[1, 7\], want \[1, 1..6\]"):
        opened.predict({"ids": torch.zeros(1, 7, dtype=torch.int32)})
    with pytest.raises(ExecutionError, match="has 10, out of range"):
        opened.predict({"ids": torch.full((1, 2), 10, dtype=torch.int32)})


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, r"missing \['x', 'i'\]; its inputs are \['x', 'i'\]"),
        ({"x": torch.zeros(2, 64).half()}, r"missing \['i'\]"),
        ({"x": torch.zeros(2, 64).half(), "i": IDS, "z": IDS}, r"unexpected \['z'\]"),
        ({"x": torch.zeros(2, 63).half(), "i": IDS}, r"'x' has shape \[2, 63\], want \[2, 64\]"),
        ({"x": torch.zeros(2, 64), "i": IDS}, "'x' is fp32, want fp16"),
        ({"x": torch.zeros(2, 64).half(), "i": IDS.long()}, "'i' is int64, want int32"),
        ({"x": torch.zeros(2, 64, dtype=torch.complex64), "i": IDS}, "want fp16"),
    ],
)
def test_inputs_are_checked(quantized: Path, inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(FeatureError, match=message) as caught:
        run_mlpackage(quantized, inputs)
    assert "int4.mlpackage, function 'main'" in str(caught.value)


def test_arrays_and_lists_are_inputs_too(quantized: Path) -> None:
    outputs = run_mlpackage(quantized, {"x": np.zeros((2, 64), np.float16), "i": [0, 1, 2]})
    assert outputs["y"].eq(0).all() and outputs["y"].dtype is torch.float16


def test_an_observer_sees_every_operation_in_order(quantized: Path) -> None:
    seen: list[tuple[str, list[torch.dtype]]] = []
    program = MilProgram.open(quantized)
    program.predict(
        {"x": torch.ones(2, 64).half(), "i": IDS},
        observer=lambda operation, results: seen.append((operation.name, [item.dtype for item in results])),
    )
    assert [name for name, _ in seen if name in ("table", "y", "rows")] == ["table", "y", "rows"]
    assert ("y", [torch.float16]) in seen


def test_converted_torch_models_run(mil: Any, tmp_path: Path) -> None:
    """A small network through the ordinary converter, with all its graph passes."""

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.up, self.down = (
                torch.nn.Embedding(32, 16),
                torch.nn.Linear(16, 48),
                torch.nn.Linear(48, 16),
            )
            self.norm = torch.nn.LayerNorm(16)

        def forward(self, ids: Tensor) -> Tensor:
            x = self.table(ids)
            heads = x.reshape(1, -1, 2, 8).transpose(1, 2)
            x = x + F.scaled_dot_product_attention(heads, heads, heads).transpose(1, 2).reshape(1, -1, 16)
            x = x + self.down(F.relu(self.up(self.norm(x))).square())
            return F.linear(x, self.table.weight)

    net, ids = Net().eval(), torch.randint(0, 32, (1, 6), dtype=torch.int32)
    model = mil.ct.convert(
        torch.jit.trace(net, ids),
        inputs=[mil.ct.TensorType("ids", (1, 6), dtype=np.int32)], outputs=[mil.ct.TensorType("logits")],
        minimum_deployment_target=mil.ct.target.iOS18, compute_precision=mil.ct.precision.FLOAT32, skip_model_load=True,
    )  # fmt: skip
    model.save(str(tmp_path / "net.mlpackage"))
    with torch.no_grad():
        expected = net(ids)
    torch.testing.assert_close(
        run_mlpackage(tmp_path / "net.mlpackage", {"ids": ids})["logits"], expected, atol=1e-5, rtol=1e-5
    )
