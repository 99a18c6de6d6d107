"""What `bench` measures, behind one small interface: artifacts of any target, and what a user would run instead.

    start = opener("artifact", folder, loops=8, threads=1) # imports the runtime
    runner = start()                                       # loads the model
    runner.prefill(ids); runner.step(token); runner.undo() # the last step once more, for a median

Nothing here imports torch or pydantic unless a runtime needs it, so that memory can be measured in a small process.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np

from export.targets.registry import find_target, load_host
from parcae_mobile.errors import InputError, ToolMissingError

NAIVE_ONNX, GENAI_LLAMA, LLAMA_CPP, NAIVE_EXECUTORCH = "naive-onnx", "genai-llama", "llama-cpp", "naive-executorch"
BASELINES = (NAIVE_ONNX, GENAI_LLAMA, LLAMA_CPP, NAIVE_EXECUTORCH)
ARTIFACT = "artifact"
PTE, GGUF = "model.pte", "model.gguf"
MODULES = {
    NAIVE_ONNX: ("onnxscript", "onnxruntime"),
    GENAI_LLAMA: ("onnxruntime_genai",),
    LLAMA_CPP: ("gguf", "llama_cpp"),
    NAIVE_EXECUTORCH: ("executorch",),
}


class Runner(Protocol):
    """One model in memory with the cache of one conversation."""

    def prefill(self, ids: Sequence[int]) -> np.ndarray:
        """Forget all, take a prompt; logits (padded vocabulary,) after its last token."""
        ...

    def step(self, token: int) -> np.ndarray:
        """Logits (padded vocabulary,) after one more token."""
        ...

    def undo(self) -> None:
        """Forget the last step's token."""
        ...


class ArtifactRunner:
    """An artifact through its target's host runtime."""

    def __init__(self, host: Any, loops: int) -> None:
        self.host, self.loops = host, loops

    def prefill(self, ids: Sequence[int]) -> np.ndarray:
        self.host.reset()
        logits: np.ndarray = self.host.prefill(list(ids), self.loops)
        return logits

    def step(self, token: int) -> np.ndarray:
        logits: np.ndarray = self.host.run([token], self.loops, positions=[0])[0]
        return logits

    def undo(self) -> None:
        self.host.rewind(self.host.length - 1)


class NaiveOnnxRunner:
    """The naive export as its users run it: numpy arrays in and out, what comes out as present goes in as past."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.past: dict[str, np.ndarray] = {}

    def prefill(self, ids: Sequence[int]) -> np.ndarray:
        shapes = {value.name: value.shape for value in self.session.get_inputs() if value.name.startswith("past.")}
        self.past = {name: np.zeros((1, heads, 0, size), np.float32) for name, (_, heads, _, size) in shapes.items()}
        return self._run(ids)

    def step(self, token: int) -> np.ndarray:
        return self._run([token])

    def undo(self) -> None:
        self.past = {name: np.ascontiguousarray(value[:, :, :-1]) for name, value in self.past.items()}

    def _run(self, ids: Sequence[int]) -> np.ndarray:
        results = self.session.run(None, {"input_ids": np.array([ids], np.int64), **self.past})
        logits: np.ndarray = results[0][0]
        self.past = dict(zip(self.past, results[1:], strict=True))
        return logits


class GenaiRunner:
    """A folder of onnxruntime-genai through its own generator, which shares past and present."""

    def __init__(self, library: Any, folder: Path, threads: int) -> None:
        config = library.Config(str(folder))
        config.overlay(json.dumps({"model": {"decoder": {"session_options": {"intra_op_num_threads": threads}}}}))
        self.library, self.model = library, library.Model(config)
        context = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))["model"]["context_length"]
        self.context, self.generator = int(context), None

    def prefill(self, ids: Sequence[int]) -> np.ndarray:
        parameters = self.library.GeneratorParams(self.model)
        parameters.set_search_options(max_length=min(self.context, len(ids) + 64), do_sample=False)
        self.generator = self.library.Generator(self.model, parameters)
        return self._run(ids)

    def step(self, token: int) -> np.ndarray:
        return self._run([token])

    def undo(self) -> None:
        assert self.generator is not None
        self.generator.rewind_to(self.generator.token_count() - 1)

    def _run(self, ids: Sequence[int]) -> np.ndarray:
        assert self.generator is not None
        self.generator.append_tokens(np.array(ids, np.int32))
        logits: np.ndarray = self.generator.get_logits()
        return logits.reshape(-1, logits.shape[-1])[-1]


class LlamaCppRunner:
    """A GGUF file through llama-cpp-python: fp16 cache, batches of 512 tokens, flash attention, its faster one here."""

    def __init__(self, library: Any, path: Path, threads: int) -> None:
        self.library = library
        self.llama = library.Llama(
            str(path), n_ctx=0, n_threads=threads, n_threads_batch=threads, flash_attn=True, verbose=False
        )

    def prefill(self, ids: Sequence[int]) -> np.ndarray:
        self.llama.reset()
        return self._run(ids)

    def step(self, token: int) -> np.ndarray:
        return self._run([token])

    def undo(self) -> None:
        self.llama.n_tokens -= 1

    def _run(self, ids: Sequence[int]) -> np.ndarray:
        self.llama.eval(ids)
        logits = self.library.llama_get_logits(self.llama.ctx)
        return np.ctypeslib.as_array(logits, shape=(self.llama.n_vocab(),)).copy()


class NaivePteRunner:
    """The naive ExecuTorch export."""

    def __init__(self, naive: Any) -> None:
        self.naive = naive

    def prefill(self, ids: Sequence[int]) -> np.ndarray:
        self.naive.length = 0
        logits: np.ndarray = self.naive.prefill(ids)
        return logits

    def step(self, token: int) -> np.ndarray:
        logits: np.ndarray = self.naive.step(token)
        return logits

    def undo(self) -> None:
        self.naive.length -= 1


def require(kind: str) -> None:
    """Raise `ToolMissingError`, with what to install, unless a baseline can be built and run here."""
    for module in MODULES[kind]:
        if importlib.util.find_spec(module) is None:
            raise _missing(kind, module)


def _missing(kind: str, module: str | None) -> ToolMissingError:
    extra, more = ("llama-cpp", ", which compiles it for minutes") if kind == LLAMA_CPP else ("all", "")
    return ToolMissingError(f"{kind} needs {module}: pip install 'parcae-mobile[{extra}]'{more}")


def opener(kind: str, folder: Path, loops: int, threads: int) -> Callable[[], Runner]:
    """Import what a kind of model needs; the result loads it. Raises `ToolMissingError` without its runtime."""
    if kind == ARTIFACT:
        manifest = plain_manifest(folder)
        open_host = load_host(find_target(manifest.target))
        return lambda: ArtifactRunner(open_host(folder, manifest, threads), loops)
    try:
        if kind == NAIVE_EXECUTORCH:
            from export.bench.baselines.naive_executorch import NaivePte

            return lambda: NaivePteRunner(NaivePte(folder / PTE, threads))
        if kind == GENAI_LLAMA:
            import onnxruntime_genai

            return lambda: GenaiRunner(onnxruntime_genai, folder, threads)
        if kind == LLAMA_CPP:
            import llama_cpp

            return lambda: LlamaCppRunner(llama_cpp, folder / GGUF, threads)
        import onnxruntime
    except ImportError as error:
        raise _missing(kind, error.name) from None

    def start() -> Runner:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        path = str(folder / "model.onnx")
        return NaiveOnnxRunner(onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]))

    return start


def plain_manifest(folder: Path) -> Any:
    """A manifest's fields without its schema, whose library alone would add 18 MB to what is measured."""
    path = folder / "manifest.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable ({error}); export the artifact again") from None
    values["quantization"].setdefault("halves", [])
    parts = {name: SimpleNamespace(**values[name]) for name in ("geometry", "kv", "quantization")}
    return SimpleNamespace(**{"graphs": {}, "portable": False, "last_logits": False, **values, **parts})
