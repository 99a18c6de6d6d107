"""Checkpoint files to a model, strictly: every tensor named, shaped, finite, and nothing left over.

    model = load_model("folder/")                              # or a hub id: "SandyResearch/parcae-140m"
    convert(Path("folder"), Path("safe-folder"))               # pickle -> safetensors

`*.safetensors` is preferred. The released checkpoints are pickles (`pytorch_model.bin`, `model.pt`); those load with
`weights_only=True` alone, and a note says so. A pickle that holds anything else than tensors is refused, never run.
"""

from __future__ import annotations

import json
import pickle
import re
import shutil
import struct
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from .config import ParcaeConfig
from .errors import (
    CheckpointError,
    InputError,
    MissingTensorError,
    OutputExistsError,
    TensorShapeError,
    TensorValueError,
    ToolMissingError,
    UnexpectedTensorError,
    UnsafeCheckpointError,
)
from .model import Parcae, rope_table

PREFIXES = ("module.", "_orig_mod.", "model.")
PICKLES = ("pytorch_model.bin", "model.pt")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
# What the restricted unpickler raises for a file that is cut off or overwritten.
DAMAGED = (
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    struct.error,
)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass
class Checkpoint:
    """A checkpoint folder after its tensors were read; `notes` are for the user."""

    folder: Path
    config: ParcaeConfig
    tensors: dict[str, Tensor]
    notes: list[str] = field(default_factory=list)


def load_model(path_or_hub_id: str | Path, revision: str | None = None) -> Parcae:
    """The eager fp32 model of a folder or hub id, in evaluation mode. Raises a `CheckpointError` or `ConfigError`."""
    return build_model(read_checkpoint(find_folder(path_or_hub_id, revision)))


def find_folder(path_or_hub_id: str | Path, revision: str | None = None) -> Path:
    """A local folder as it is; a hub id (`owner/name`) through the hub's cache."""
    path = Path(path_or_hub_id)
    if path.is_dir():
        return path
    if path.exists():
        raise CheckpointError(f"{path} is a file; give the folder that holds config.json and the weights")
    if not _HUB_ID.fullmatch(str(path_or_hub_id)):
        raise CheckpointError(f"no such folder: {path}; give a checkpoint folder or a hub id like owner/name")
    return _download(str(path_or_hub_id), revision)


def _download(hub_id: str, revision: str | None) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
        from requests.exceptions import RequestException
    except ImportError:
        raise ToolMissingError("huggingface_hub is not installed: pip install huggingface_hub") from None
    patterns = ["config.json", "*.safetensors", "*.safetensors.index.json", *PICKLES, *TOKENIZER_FILES]
    try:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, RequestException, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{hub_id}: no such folder, and the hub did not deliver it ({reason})") from None


def read_checkpoint(folder: Path) -> Checkpoint:
    """Configuration and raw tensors of a folder, prefixes stripped, without checking them against each other."""
    config = ParcaeConfig.from_file(folder / "config.json")
    tensors, notes = _read_tensors(folder)
    return Checkpoint(folder, config, _strip_prefixes(tensors), notes)


def build_model(checkpoint: Checkpoint) -> Parcae:
    """A model with the checkpoint's tensors in fp32. Raises an error that names the first wrong tensor."""
    with torch.device("meta"):
        model = Parcae(checkpoint.config)
    tensors = dict(checkpoint.tensors)
    rope = _take_rope(tensors, model)
    if checkpoint.config.tie_embeddings:
        _merge_tied_head(tensors)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    _check_names(set(expected), set(tensors))
    for name, tensor in tensors.items():
        _check_tensor(name, tensor, expected[name])
    floats = {name: tensor.to(torch.float32).contiguous() for name, tensor in tensors.items()}
    model.load_state_dict(floats, strict=True, assign=True)
    if checkpoint.config.tie_embeddings:
        model.lm_head.weight = model.transformer["wte"].weight
    model.register_buffer("rope", rope, persistent=False)
    return model.eval().requires_grad_(False)


def convert(source: Path, target: Path) -> list[str]:
    """Write a checkpoint as safetensors with its config and tokenizer into a new folder; returns notes.

    The checkpoint is checked as for loading. Raises `OutputExistsError` if `target` exists.
    """
    if target.exists():
        raise OutputExistsError(f"{target} exists; choose another folder or remove it")
    checkpoint = read_checkpoint(source)
    build_model(checkpoint)
    tensors = {name: tensor.contiguous() for name, tensor in checkpoint.tensors.items()}
    if checkpoint.config.tie_embeddings:
        tensors.pop("lm_head.weight", None)
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        for name in ("config.json", *TOKENIZER_FILES):
            if (source / name).exists():
                shutil.copyfile(source / name, partial / name)
        save_file(tensors, partial / "model.safetensors", metadata={"format": "pt"})
        partial.rename(target)
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot write {target} ({error}); choose another folder") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return checkpoint.notes


def _read_tensors(folder: Path) -> tuple[dict[str, Tensor], list[str]]:
    index = folder / "model.safetensors.index.json"
    files = sorted(folder.glob("*.safetensors"))
    if index.exists():
        try:
            names = sorted({str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})
        except (OSError, KeyError, ValueError, AttributeError, TypeError) as error:
            raise CheckpointError(f"{index}: not a safetensors index ({error})") from None
        if any(Path(name).name != name for name in names):
            raise CheckpointError(f"{index}: names a file outside of its folder")
        files = [folder / name for name in names]
    elif len(files) > 1:
        listed = ", ".join(file.name for file in files[:3])
        raise CheckpointError(f"{folder} has several safetensors files ({listed}) and no index; keep one")
    if files:
        tensors: dict[str, Tensor] = {}
        for file in files:
            tensors |= _read_safetensors(file)
        return tensors, []
    for name in PICKLES:
        if (folder / name).exists():
            note = f"{name} is a pickle; it was read as plain tensors only (parcae-export convert makes safetensors)"
            return _read_pickle(folder / name), [note]
    raise CheckpointError(f"no weights in {folder}: expected model.safetensors, {' or '.join(PICKLES)}")


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{file}: not a readable safetensors file ({error}); copy it again") from None


def _read_pickle(file: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UnsafeCheckpointError(
            f"{file}: the pickle holds more than tensors and was not executed; save its state dict as safetensors"
        ) from None
    except DAMAGED as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{file}: not a readable checkpoint ({reason}); copy it again") from None
    for key in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f"{file}: does not hold a state dict of tensors")
    return content


def _strip_prefixes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    stripped: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        short = str(name)
        while prefix := next((p for p in PREFIXES if short.startswith(p)), None):
            short = short[len(prefix) :]
        if short in stripped:
            raise UnexpectedTensorError(f"tensor {short} is there twice, once as {name}; remove one")
        stripped[short] = tensor
    return stripped


def _take_rope(tensors: dict[str, Tensor], model: Parcae) -> Tensor:
    """The saved RoPE table where there is one, since the original computes with it; else the computed one."""
    computed = rope_table(model.config)
    saved = tensors.pop("freqs_cis", None)
    if saved is None:
        return computed
    positions, half, _ = computed.shape
    _check_tensor("freqs_cis", saved, (1, positions, 1, half, 2))
    return saved.to(torch.float32).reshape(positions, half, 2).contiguous()


def _merge_tied_head(tensors: dict[str, Tensor]) -> None:
    """Let a tied head and the token table, of which files may hold either or both, be one tensor."""
    head, table = tensors.get("lm_head.weight"), tensors.get("transformer.wte.weight")
    if head is not None and table is not None and (head.shape != table.shape or not torch.equal(head, table)):
        raise TensorValueError("lm_head.weight differs from transformer.wte.weight, but tie_embeddings is true")
    both = head if table is None else table
    if both is not None:
        tensors["lm_head.weight"] = tensors["transformer.wte.weight"] = both


def _check_names(expected: set[str], given: set[str]) -> None:
    missing, unexpected = sorted(expected - given), sorted(given - expected)
    if missing:
        raise MissingTensorError(f"the checkpoint lacks {_first(missing)}; is config.json the one it was saved with?")
    if unexpected:
        raise UnexpectedTensorError(f"the configuration has no place for {_first(unexpected)}; check config.json")


def _check_tensor(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape:
        raise TensorShapeError(f"{name} has shape {tuple(tensor.shape)}; config.json asks for {shape}")
    if not tensor.is_floating_point():
        raise TensorValueError(f"{name} has dtype {tensor.dtype}; a floating-point tensor is needed")
    if not torch.isfinite(tensor).all():
        raise TensorValueError(f"{name} holds NaN or infinite values; the checkpoint is damaged")


def _first(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
