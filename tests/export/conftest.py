"""What the export tests share: a small model with a tokenizer, the command in process, and ONNX artifacts."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from export.gates import reference
from export.targets.host import CacheGeometry
from export.targets.onnx.runtime.host import OnnxHost
from export.targets.onnx.writer import write_scan, write_stages
from parcae_mobile import Parcae, golden, load_model
from parcae_mobile.golden import Reference, make_reference, weights_sha256
from parcae_mobile.text import TokenText
from quantize import QuantizedModel, load_recipe, quantize_with

MINI = {"n_embd": 64, "intermediate_size": 64, "recurrent_embedding_dimension": 64, "vocab_size": 300}
MINI |= {"recurrent_intermediation_embedding_dimension": 64, "block_size": 112}


@dataclass
class Ran:
    """What a run of the command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def line(self) -> str:
        """The one line of a failure."""
        lines = self.err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("error: ") and "Traceback" not in self.err, self.err
        return lines[0]


@pytest.fixture(scope="session", autouse=True)
def one_reference_for_each_model() -> Iterator[None]:
    """Greedy tokens at five loop counts of the same model on the same text are made once, not for each export."""
    references: dict[tuple[object, ...], Reference] = {}

    def once(model: Parcae, text: TokenText, device: str = "cpu", **more: Any) -> Reference:
        ids = hashlib.sha256(text.ids.numpy().tobytes()).hexdigest()
        key = (repr(model.config), weights_sha256(model), text.source, ids, device, repr(more))
        if key not in references:
            references[key] = make_reference(model, text, device, **more)
        return references[key]

    with mock.patch.object(reference, "make_reference", once), mock.patch.object(golden, "make_reference", once):
        yield


@pytest.fixture(scope="module")
def trained(data: Path) -> Parcae:
    """A small model that was trained: its gates have something to lose."""
    return load_model(data / "tiny-trained")


@pytest.fixture(scope="module")
def texts(data: Path) -> torch.Tensor:
    """(2, 65) held-out ids of it."""
    held_out = np.load(data / "tiny-trained" / "heldout_tokens.npy").astype(np.int64)
    return torch.from_numpy(held_out[: 2 * 65].reshape(2, 65))


@pytest.fixture(scope="session")
def cli() -> Callable[..., Ran]:
    """Run `parcae-export` with arguments in this process."""
    from export.cli.main import command

    def run(*arguments: object) -> Ran:
        out, err, before = io.StringIO(), io.StringIO(), sys.argv
        code: Any = 0
        sys.argv = ["parcae-export", *map(str, arguments)]
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                command()
        except SystemExit as stop:
            code = stop.code or 0
        finally:
            sys.argv = before
        return Ran(code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture(scope="session")
def mini(tmp_path_factory: pytest.TempPathFactory, save_small: Callable[..., Path]) -> Path:
    """A checkpoint of one layer per stage with a byte-level tokenizer: everything runs on it, and fast."""
    folder = save_small(tmp_path_factory.mktemp("checkpoints") / "mini", **MINI)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(["import os\n\n\ndef main(self):\n    return self.value\n" * 9], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text of some ten thousand characters, which is read faster than the package's."""
    path = tmp_path_factory.mktemp("texts") / "text.txt"
    lines = [f"def f{i}(x):\n    return x * {i * i % 97} + len('{i:x}')\n" for i in range(300)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def loose(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The int8 recipe with a budget that random weights, whose logits are nearly flat, can keep."""
    path = tmp_path_factory.mktemp("recipes") / "int8.toml"
    rules = '[[rules]]\nmatch = "transformer.adapter.*"\nbits = 32\n[[rules]]\nmatch = "*.weight"\nbits = 8\n'
    path.write_text(f"name = 'loose'\nbudget = {{ kl = 0.1, top1 = 0.5 }}\n{rules}", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def exported(
    cli: Callable[..., Ran], mini: Path, text: Path, loose: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """A verified int8 artifact of the mini model and what `--json` said of it. To be read, not changed."""
    out = tmp_path_factory.mktemp("exported")
    ran = cli(
        *("--model", mini, "--text", text, "--calibration", text, "--quant", loose, "--accept-budget"),
        *("--kv", "full", "--out", out, "--json"),
    )
    assert ran.code == 0, ran.err
    (artifact,) = ran.json["artifacts"]
    return Path(artifact["artifact"]), artifact


@pytest.fixture(scope="session")
def quantized() -> Callable[..., QuantizedModel]:
    """A model quantized by a preset, rounding to nearest."""
    return lambda model, preset="fp32": quantize_with(model, load_recipe(preset), "rtn")


@pytest.fixture(scope="session")
def write_onnx() -> Callable[..., OnnxHost]:
    """Write a dynamic form into a folder and open it: `write_onnx(quantized, folder, "scan", "fp32", 8)`."""

    def write(
        quantized: QuantizedModel, folder: Path, form: str = "stages", compute: str = "fp32", max_loops: int = 16
    ) -> OnnxHost:
        folder.mkdir(parents=True, exist_ok=True)
        {"stages": write_stages, "scan": write_scan}[form](quantized, folder, compute)
        return OnnxHost(folder, form, CacheGeometry.of(quantized.model.config, max_loops), threads=1)

    return write


@pytest.fixture(scope="session")
def mini_model(small: Callable[..., Parcae]) -> Parcae:
    """The mini model's twin without files."""
    return small(**MINI)


@pytest.fixture(scope="session")
def mini_ids() -> torch.Tensor:
    return torch.randint(0, 300, (1, 40), generator=torch.Generator().manual_seed(7))
