"""Tensors to a model, strictly: every tensor named, shaped, finite, and nothing left over.

model = load_model("folder/")                              # or a hub id: "SandyResearch/parcae-140m"
model = build_model(read_checkpoint(Path("folder")))
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ..config import RopeSettings
from ..errors import MissingTensorError, TensorShapeError, TensorValueError, UnexpectedTensorError
from ..model import Parcae
from ..rope import rope_table, rounded_from
from .find import find_folder
from .names import as_built
from .read import Checkpoint, read_checkpoint

ROPE = "freqs_cis"


def load_model(path_or_hub_id: str | Path, revision: str | None = None, checkpoint: str | None = None) -> Parcae:
    """The eager fp32 model of a folder or hub id, in evaluation mode. Raises a `CheckpointError` or `ConfigError`.

    `checkpoint` chooses one of a training run's files, by path, name or step; the newest if it is not given.
    """
    return build_model(read_checkpoint(find_folder(path_or_hub_id, revision), checkpoint))


def build_model(checkpoint: Checkpoint) -> Parcae:
    """A model with the checkpoint's tensors in fp32. Raises an error that names the first wrong tensor."""
    with torch.device("meta"):
        model = Parcae(checkpoint.config)
    tensors = as_built(checkpoint.tensors, checkpoint.config)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    _check_names(set(expected), set(tensors) - {ROPE})
    rope = _take_rope(tensors, model)
    for name, tensor in tensors.items():
        _check_tensor(name, tensor, expected[name])
    floats = {name: tensor.to(torch.float32).contiguous() for name, tensor in tensors.items()}
    model.load_state_dict(floats, strict=True, assign=True)
    if checkpoint.config.tie_embeddings:
        model.lm_head.weight = model.transformer["wte"].weight
    model.register_buffer("rope", rope, persistent=False)
    return model.eval().requires_grad_(False)


def rope_notes(checkpoint: Checkpoint) -> list[str]:
    """What to say where the original's own loaders disagree about positions, or a file disagrees with itself.

    The package's `from_pretrained` drops `rope_settings`, its evaluation code keeps them, and both then load a saved
    table over their own. Here the saved values count.
    """
    settings, saved = checkpoint.config.rope_settings, checkpoint.tensors.get(ROPE)
    if not settings.use_rope or (saved is None and settings != RopeSettings()):
        said = f"use_rope {settings.use_rope}, rope_base {settings.rope_base}, condense {settings.rope_condense_ratio}"
        return [
            f"config.json's rope_settings ({said}) are used as saved, as the original's evaluation code does; its "
            "from_pretrained would drop them"
        ]
    if saved is None:
        return []
    computed = rope_table(checkpoint.config)
    table = saved.float().reshape(-1)
    if table.numel() != computed.numel():
        return []  # an error that building the model names
    table = table.view_as(computed)
    if torch.allclose(table, computed, atol=1e-4, rtol=0) or rounded_from(table, computed):
        return []
    return ["the saved RoPE table is another than config.json gives; the table is used, as the original does"]


def _take_rope(tensors: dict[str, Tensor], model: Parcae) -> Tensor:
    """The saved RoPE table where there is one, since the original computes with it; else the computed one."""
    computed = rope_table(model.config)
    saved = tensors.pop(ROPE, None)
    if saved is None:
        return computed
    positions, half, _ = computed.shape
    _check_tensor(ROPE, saved, (1, positions, 1, half, 2))
    return saved.to(torch.float32).reshape(positions, half, 2).contiguous()


def _check_names(expected: set[str], names: set[str]) -> None:
    missing, unexpected = sorted(expected - names), sorted(names - expected)
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
