"""Specifications with one random field changed: the interpreter runs them or refuses them, and never anything else."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from export.targets.coreml.mil.errors import MilError
from export.targets.coreml.mil.interpreter import MilProgram

NUMBERS = [0, 1, 7, 10, 11, 23, 25, 64, 2**31 - 1, -1]


@pytest.fixture(scope="module")
def subject(mil: Any, save: Any, narrow: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bit of everything: int4 weights, a state, a loop, gathers, slices, reductions."""
    mb, types = mil.mb, mil.types
    integers, scale = narrow("int4", np.arange(64).reshape(4, 16) % 16 - 8), np.ones((4, 2), np.float16)

    @mb.program(
        input_specs=[
            mb.TensorSpec((2, 16), types.fp16),
            mb.TensorSpec((3,), types.int32),
            mb.StateTensorSpec((2, 4), types.fp16),
        ],
        opset_version=mil.ct.target.iOS18,
    )
    def program(x: Any, ids: Any, memory: Any) -> Any:
        table = mb.constexpr_blockwise_shift_scale(data=integers, scale=scale)
        y = mb.softmax(x=mb.linear(x=x, weight=table), axis=-1)
        past = mb.read_state(input=memory)
        mb.coreml_update_state(state=memory, value=mb.slice_update(x=past, update=y, begin=[0, 0], end=[2, 4]))

        def condition(i: Any, v: Any) -> Any:
            return mb.squeeze(x=mb.less(x=i, y=np.array([2], np.int32)), axes=[0])

        def body(i: Any, v: Any) -> Any:
            return mb.add(x=i, y=np.array([1], np.int32)), mb.add(x=v, y=y)

        _, total = mb.while_loop(_cond=condition, _body=body, loop_vars=(mb.fill(shape=[1], value=np.int32(0)), y))
        rows = mb.reduce_mean(x=mb.gather(x=table, indices=ids, axis=0), axes=[-1], keep_dims=True)
        part = mb.slice_by_index(x=total, begin=[0, 1], end=[2, 4])
        return mb.concat(values=(mb.reshape(x=part, shape=[-1, 1]), rows), axis=0, name="out")

    return Path(save(program, tmp_path_factory.mktemp("mutations") / "subject.mlpackage"))


def fields(message: Any) -> list[tuple[Any, Any]]:
    """Every set field of a message and of the messages inside, as (owner, descriptor)."""
    found = []
    for descriptor, value in message.ListFields():
        if descriptor.message_type is None:
            found.append((message, descriptor))
        elif descriptor.message_type.GetOptions().map_entry:
            for key in value:
                found += fields(value[key]) if hasattr(value[key], "ListFields") else []
        else:
            found += [(message, descriptor)] if descriptor.is_repeated else []
            for item in value if descriptor.is_repeated else [value]:
                found += fields(item)
    return found


def mutate(spec: Any, names: list[str], rng: random.Random) -> None:
    """Changes one number or name, or drops or doubles one item of a list."""
    owner, descriptor = rng.choice(fields(spec))
    value = getattr(owner, descriptor.name)
    place = rng.randrange(len(value)) if descriptor.is_repeated else None
    if descriptor.message_type is not None:
        if rng.random() < 0.5:
            del value[place]
        else:
            value.add().CopyFrom(value[place])
        return
    old = value if place is None else value[place]
    new: Any
    if isinstance(old, bool):
        new = not old
    elif isinstance(old, (int, float)):
        new = rng.choice([*NUMBERS, old + 1])
    elif isinstance(old, bytes):
        new = rng.choice([b"", old[:-1], old + b"\0", bytes(rng.randrange(256) for _ in old)])
    else:
        new = rng.choice([*names, "", "fp16", "no\nsuch name"])
    try:
        if place is None:
            setattr(owner, descriptor.name, new)
        else:
            value[place] = new
    except (ValueError, TypeError):
        pass  # a number that this field's type cannot hold: the mutation is void


@pytest.mark.parametrize("seed", range(12))
def test_a_mutated_specification_runs_or_is_refused(subject: Path, edit: Any, tmp_path: Path, seed: int) -> None:
    inputs = {"x": torch.full((2, 16), 0.1).half(), "ids": torch.tensor([0, 3, 1], dtype=torch.int32)}
    original = MilProgram.open(subject)
    names = sorted({part for item in original.function().block.walk() for part in (item.type, item.name)})
    rng, refused = random.Random(seed), 0
    package = shutil.copytree(subject, tmp_path / "subject.mlpackage")
    model = original.package.model_path
    for _ in range(25):
        shutil.copy(model, package / model.relative_to(subject.resolve()))
        edit(package, lambda spec: mutate(spec, names, rng))
        try:
            program = MilProgram.open(package)
            program.predict(inputs, program.make_state(), loop_limit=20)
        except MilError as error:
            refused += 1
            assert str(error).startswith("subject.mlpackage") and len(str(error).splitlines()) == 1
    assert refused > 5
