"""The contract of the host runtimes: what `run` refuses before anything changes, chunks of a prompt, going back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.targets.coreml.host import CoreMLHost
from export.targets.coreml.writer import write as write_coreml
from export.targets.executorch.host import MODEL, ExecutorchHost
from export.targets.executorch.writer import write as write_executorch
from export.targets.host import CacheGeometry, Chunk, Host
from export.targets.onnx.runtime.host import OnnxHost
from export.targets.onnx.runtime.last_position import LastPositionHost
from export.targets.onnx.runtime.portable import PortableHost
from export.targets.onnx.writer import write as write_onnx
from export.targets.registry import WriteOptions
from parcae_mobile import Parcae
from parcae_mobile.errors import ParcaeError, PromptTooLongError, UsageError

CONTEXT, LOOPS = 64, 2
STATIC = ("onnx", "onnx last", "coreml")
DYNAMIC = ("onnx stages", "onnx scan", "coreml stages", pytest.param("executorch stages", marks=pytest.mark.acceptance))


class Counter(Host):
    """Remembers its chunks."""

    exits_early = takes_state = False

    def __init__(self, geometry: CacheGeometry) -> None:
        super().__init__(geometry)
        self.chunks: list[Chunk] = []

    def _run(self, chunk: Chunk) -> np.ndarray:
        self.chunks.append(chunk)
        return np.full((len(chunk.positions), self.geometry.padded_vocab_size), chunk.tokens[0, -1], np.float32)


@pytest.fixture
def counter(mini_model: Parcae) -> Counter:
    return Counter(CacheGeometry.of(mini_model.config, LOOPS, CONTEXT))


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (([1], 0), UsageError, "loops = 0"),
        (([1], LOOPS + 1), UsageError, "above the maximum of 2"),
        (([], 1), UsageError, "the chunk is empty"),
        (([3, -1], 1), UsageError, "token id -1 has no row"),
        (([3, 1 << 20], 1), UsageError, "token id 1048576 has no row"),
        (([1] * (CONTEXT - 1), 1), PromptTooLongError, "2 \\+ 63 tokens do not fit the context of 64"),
        (([1, 2], 1, [2]), UsageError, "outside of the chunk's 2 tokens"),
        (([1, 2], 1, [-1]), UsageError, "outside of the chunk's 2 tokens"),
        (([1], 1, None, np.ones((1, 2, 64))), UsageError, "has to be \\(1, 1, 64\\)"),
        (([1], 1, None, np.ones((1, 1, 64))), UsageError, "starts from zero"),
        (([1], 1, None, None, None, 0.1), UsageError, "early exit needs a host"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_changes(
    counter: Counter, arguments: tuple[Any, ...], error: type[ParcaeError], words: str
) -> None:
    counter.run([1, 2], 1)
    with pytest.raises(error, match=words):
        counter.run(*arguments)
    assert (counter.length, counter.loops_used, len(counter.chunks)) == (2, 1, 1)


def test_a_chunk_says_what_is_meant(counter: Counter) -> None:
    counter.run([4, 5], 2)
    counter.run([6], 1, initial_state=np.zeros((1, 1, 64)))
    first, second = counter.chunks
    assert first.tokens.tolist() == [[4, 5]] and first.positions.tolist() == [0, 1] and first.state is None
    assert (first.start, first.length, first.total, first.is_prompt) == (0, 2, 2, True)
    assert (second.start, second.length, second.total, second.is_prompt) == (2, 1, 3, False)


def test_a_prompt_is_given_in_chunks_and_only_the_last_row_is_wanted(counter: Counter) -> None:
    counter.prefill_chunk = 5
    assert counter.prefill(list(range(12)), 2)[0] == 11
    assert [(chunk.start, chunk.length, chunk.positions.tolist()) for chunk in counter.chunks] == [
        (0, 5, [4]),
        (5, 5, [4]),
        (10, 2, [1]),
    ]
    with pytest.raises(UsageError, match="the prompt is empty"):
        counter.prefill([], 1)


def test_one_goes_back_to_what_is_held_only(counter: Counter) -> None:
    counter.run([1, 2, 3], 1)
    for length in (4, -1):
        with pytest.raises(UsageError, match="3 are held"):
            counter.rewind(length)
    counter.rewind(1)
    counter.run([1], 1)
    assert counter.chunks[-1].start == 1 and counter.length == 2


@pytest.fixture(scope="module")
def open_kind(mini_model: Parcae, quantized: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Host]:
    """A host of each kind, over an artifact that is written once."""
    folders: dict[str, Path] = {}

    def open_host(kind: str) -> Host:
        target, _, detail = kind.partition(" ")
        form: Any = detail if detail in ("stages", "scan", "while") else "unrolled"
        portable, last = "portable" in detail, "last" in detail
        if kind not in folders:
            folders[kind] = tmp_path_factory.mktemp("host")
            loops: Any = LOOPS if form == "unrolled" else "dynamic"
            options = WriteOptions(form, loops, LOOPS, CONTEXT, "fp32", portable=portable, last_logits=last)
            write = {"onnx": write_onnx, "executorch": write_executorch, "coreml": write_coreml}[target]
            write(quantized(mini_model), folders[kind], options)
        folder, geometry = folders[kind], CacheGeometry.of(mini_model.config, LOOPS, CONTEXT)
        if target == "executorch":
            return ExecutorchHost(folder / MODEL, geometry, 1)
        if target == "coreml":
            return CoreMLHost(folder, form, geometry)
        host = (PortableHost if portable else OnnxHost)(folder, form, geometry, 1)
        return LastPositionHost(host) if last else host

    return open_host


@pytest.mark.parametrize("kind", [*DYNAMIC, *STATIC, "onnx portable", "coreml while"])
def test_a_host_that_went_back_goes_on_as_if_it_had_not_been_further(
    open_kind: Callable[[str], Host], kind: str
) -> None:
    host = open_kind(kind)
    host.prefill([5, 6, 7, 8, 9], LOOPS)
    expected = host.run([3, 4], LOOPS)
    for length in (5, 2, 0):
        host.rewind(length)
        rest = [5, 6, 7, 8, 9, 3, 4][length:]
        np.testing.assert_allclose(host.run(rest, LOOPS)[-2:], expected, atol=2e-5)
    assert host.length == 7


@pytest.mark.parametrize("kind", STATIC)
def test_a_static_artifact_takes_no_first_state_and_no_early_exit(open_kind: Callable[[str], Host], kind: str) -> None:
    host = open_kind(kind)
    with pytest.raises(UsageError, match="starts from zero"):
        host.run([1], LOOPS, initial_state=np.ones((1, 1, host.geometry.state_width), np.float32))
    with pytest.raises(UsageError, match="early exit needs a host"):
        host.run([1], LOOPS, exit_threshold=0.1)
    assert host.length == 0


@pytest.mark.parametrize("kind", DYNAMIC)
def test_an_id_without_a_row_is_one_line(open_kind: Callable[[str], Host], kind: str) -> None:
    host = open_kind(kind)
    with pytest.raises(UsageError, match="has no row in the model's table"):
        host.run([1, host.geometry.padded_vocab_size], 1)
    assert host.length == 0


def test_the_threads_of_one_session_do_not_spin_while_another_works(open_kind: Callable[[str], Host]) -> None:
    host = open_kind("onnx stages")
    assert isinstance(host, OnnxHost)
    assert host._options.get_session_config_entry("session.force_spinning_stop") == "1"
