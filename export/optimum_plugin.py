"""Parcae in Optimum: `optimum-cli export onnx --model CHECKPOINT out/` writes and verifies the static ONNX form.

    optimum-cli export onnx --model parcae-140m --model-kwargs '{"loops": 8, "quant": "int4"}' out/
    python -m export.optimum_plugin export onnx --model parcae-140m out/       # where the plug-in file is not installed

`register` tells transformers of the checkpoint's configuration and Optimum's `TasksManager` of the model type. Optimum
resolves the model and its task; the graph comes from our pipeline, gates included, not from a trace of an unrolled
model. `out/` is then an artifact folder, which `ORTModelForCausalLM`, onnxruntime-genai and `parcae-export` read.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from export.pipeline import run_export
from export.request import ExportRequest
from export.targets.registry import DYNAMIC
from parcae_mobile.errors import GateError, ToolMissingError, UsageError

try:
    from optimum.exporters.onnx.config import TextDecoderOnnxConfig
    from optimum.exporters.tasks import TasksManager
    from optimum.utils import NormalizedTextConfig
    from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
except ImportError as error:
    missing = error.name or "optimum"
    raise ToolMissingError(f"Optimum's exporter needs {missing}: pip install 'parcae-mobile[optimum]'") from None

TASK = "text-generation-with-past"
MODEL_TYPE = "parcae"
TYPES = {"float32": "fp32", "float16": "fp16"}  # Optimum turns a --dtype into torch's
QUANTS = {None: "fp32", "fp32": "fp32", "fp16": "fp16"}  # by Optimum's --dtype


class ParcaeHubConfig(PretrainedConfig):
    """A Parcae `config.json` as transformers holds it: values unread, ours are checked when the model is opened."""

    model_type = MODEL_TYPE


class ParcaeHubModel(PreTrainedModel):
    """Where a checkpoint lies. Optimum hands it from its loader to its exporter; it computes nothing."""

    config_class = ParcaeHubConfig

    def __init__(self, config: ParcaeHubConfig) -> None:
        super().__init__(config)
        self.checkpoint = ""
        self.revision: str | None = None
        self.dtype_asked: str | None = None

    @classmethod
    def from_pretrained(cls, name: str | Path, *arguments: Any, **keywords: Any) -> ParcaeHubModel:
        """The folder or hub id, with the type that was asked for."""
        model = cls(keywords["config"])
        model.checkpoint, model.revision = str(name), keywords.get("revision")
        dtype = keywords.get("torch_dtype", keywords.get("dtype"))
        name_of_type = str(dtype).removeprefix("torch.")
        model.dtype_asked = None if dtype is None else TYPES.get(name_of_type, name_of_type)
        return model


class ParcaeOnnxConfig(TextDecoderOnnxConfig):
    """What `TasksManager` wants of a model type; the signature that counts is the written graph's."""

    NORMALIZED_CONFIG_CLASS = NormalizedTextConfig


@functools.cache
def register() -> None:
    """Make Parcae known to transformers and Optimum, once."""
    AutoConfig.register(MODEL_TYPE, ParcaeHubConfig)
    AutoModelForCausalLM.register(ParcaeHubConfig, ParcaeHubModel)
    known = TasksManager.create_register("onnx", overwrite_existing=True)
    known(MODEL_TYPE, "text-generation", TASK, library_name="transformers")(ParcaeOnnxConfig)
    # The one place where Optimum turns a loaded model into files; it offers no hook for a model that does so itself.
    driver: Any = importlib.import_module("optimum.exporters.onnx.__main__")
    original = driver.onnx_export_from_model

    @functools.wraps(original)
    def export_from_model(model: Any, output: str | Path, *arguments: Any, **keywords: Any) -> Any:
        if not isinstance(model, ParcaeHubModel):
            return original(model, output, *arguments, **keywords)
        return write(model.checkpoint, Path(output), keywords.get("model_kwargs"), model.dtype_asked, model.revision)

    driver.onnx_export_from_model = export_from_model


def write(
    checkpoint: str,
    output: Path,
    model_kwargs: Mapping[str, Any] | None = None,
    dtype: str | None = None,
    revision: str | None = None,
) -> None:
    """Export, verify, and put the artifact's files into `output`. `model_kwargs` may hold `loops` and `quant`.

    A static artifact is what Optimum's model class runs; with `"loops": "dynamic"` it is the stages form.

    Raises `UsageError` for other keys or types, `GateError` if the artifact fails its gates (nothing is written then).
    """
    unknown = dict(model_kwargs or {})
    loops, quant = unknown.pop("loops", None), unknown.pop("quant", None)
    if unknown:
        raise UsageError(f"--model-kwargs: {', '.join(unknown)} means nothing to Parcae; it takes loops and quant")
    if dtype not in QUANTS:
        raise UsageError(
            f"--dtype {dtype}: a Parcae export takes fp32 or fp16; for integers give quant in --model-kwargs"
        )
    asked = str(_trained_loops(checkpoint, revision) if loops is None else loops)
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output) as temporary:
        request = ExportRequest(
            model=checkpoint,
            revision=revision,
            loops=[asked],
            max_loops=max(16, int(asked) if asked.isdecimal() else 0),
            quant=quant or QUANTS[dtype],
            out=Path(temporary),
            all_logits=asked != DYNAMIC,
        )
        (result,) = run_export(request)
        if not result.passed:
            raise GateError(f"{checkpoint}: {result.problems[0]}; nothing was written to {output}")
        for path in sorted(result.path.iterdir()):
            shutil.move(path, output / path.name)


def _trained_loops(checkpoint: str, revision: str | None) -> int:
    from parcae_mobile.checkpoint import find_folder
    from parcae_mobile.config import ParcaeConfig

    return ParcaeConfig.from_file(find_folder(checkpoint, revision) / "config.json").mean_recurrence


@contextmanager
def prepared(arguments: argparse.Namespace) -> Iterator[None]:
    """Register, and help Optimum where a Parcae folder lacks what it looks for.

    It infers no task of a local folder, and without a `model_type` transformers takes the type from the path.
    """
    register()
    config = Path(arguments.model) / "config.json"
    if not config.is_file() or "n_layers_in_recurrent_block" not in json.loads(config.read_text(encoding="utf-8")):
        yield
        return
    if arguments.task == "auto":
        arguments.task = TASK
    with tempfile.TemporaryDirectory() as temporary:
        link = Path(temporary) / MODEL_TYPE
        link.symlink_to(Path(arguments.model).resolve(), target_is_directory=True)
        arguments.model = str(link)
        yield


def main() -> None:
    """Optimum's command with the plug-in loaded, wherever it is installed."""
    for module in ("optimum.commands.export.onnx", "optimum.commands.register.register_parcae"):
        importlib.import_module(module)
    importlib.import_module("optimum.commands.optimum_cli").main()


if __name__ == "__main__":
    main()
