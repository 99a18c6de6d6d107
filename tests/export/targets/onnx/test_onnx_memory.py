"""What the ONNX host holds: bindings that a decoding step reuses, copies that it hands out, pages that it returns."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from export.targets.onnx.runtime.host import OnnxHost
from export.targets.onnx.runtime.mapped_file import give_back_pages
from parcae_mobile import Parcae
from quantize import QuantizedModel

Write = Callable[..., OnnxHost]
Quantize = Callable[..., QuantizedModel]
FORMS = ("stages", "scan")


@pytest.fixture(scope="module")
def hosts(
    tmp_path_factory: pytest.TempPathFactory, mini_model: Parcae, quantized: Quantize, write_onnx: Write
) -> dict[str, OnnxHost]:
    return {form: write_onnx(quantized(mini_model, "int4"), tmp_path_factory.mktemp(form), form) for form in FORMS}


@pytest.mark.parametrize("form", FORMS)
def test_a_decoding_step_binds_nothing_anew_until_the_cache_moves(hosts: dict[str, OnnxHost], form: str) -> None:
    host = hosts[form]
    host.reset()
    host.run(list(range(40)), 3)
    assert host._step is None
    host.run([1], 3, [0])
    step = host._step
    assert step is not None
    bound = dict(step.bound)
    host.run([2], 3, [0])
    assert host._step is step and step.bound == bound
    host.run([3], 5, [0])  # two more loops, which have no cache yet
    assert host._step is not step


@pytest.mark.parametrize("form", FORMS)
def test_results_are_not_overwritten_by_the_next_step(hosts: dict[str, OnnxHost], form: str) -> None:
    host = hosts[form]
    host.reset()
    states: list[np.ndarray] = []
    first = host.run([5], 3, [0], on_state=lambda loop, state: states.append(state))
    kept = [array.copy() for array in (first, *states)]
    host.run([9], 3, [0])
    assert all(np.array_equal(array, copy) for array, copy in zip((first, *states), kept, strict=True))
    assert form == "scan" or not np.array_equal(states[0], states[2])


@pytest.mark.parametrize("form", FORMS)
def test_the_loop_count_may_change_with_every_token(
    hosts: dict[str, OnnxHost], mini_ids: torch.Tensor, form: str
) -> None:
    """An even and an odd number of loops end in different arrays, and a cache slot serves both."""
    host, ids = hosts[form], mini_ids[0, :12].tolist()
    counts = [4, 1, 3, 2, 4, 3]
    rows = []
    for fresh in (False, True):
        host.reset()
        host.run(ids[:6], 4)
        for token, loops in zip(ids[6:], counts, strict=True):
            if fresh:
                host._step = None
            rows.append(host.run([token], loops, [0]))
    assert all(np.array_equal(a, b) for a, b in zip(rows[:6], rows[6:], strict=True))


@pytest.mark.parametrize("form", FORMS)
def test_graphs_are_valid_by_onnx_own_checker(hosts: dict[str, OnnxHost], form: str) -> None:
    paths = sorted(hosts[form]._folder.glob("model*.onnx"))
    assert paths
    for path in paths:
        onnx.checker.check_model(str(path))


@pytest.mark.skipif(sys.platform != "linux", reason="pages are given back on Linux only")
def test_pages_of_a_mapped_file_are_given_back_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "weights.data"
    content = bytes(range(256)) * 4096
    path.write_bytes(content)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert mapped[:] == content and resident(path) == len(content) // 1024
        assert give_back_pages(path) == len(content)
        assert resident(path) == 0
        assert mapped[:] == content
    assert give_back_pages(path) == 0


def resident(path: Path) -> int:
    """KiB of a mapped file that this process holds."""
    found, inside = 0, False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        head = line.split()
        if "-" in head[0]:
            inside = line.endswith(str(path))
        elif inside and head[0] == "Rss:":
            found += int(head[1])
    return found
