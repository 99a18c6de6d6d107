"""Writing a run's folder: a checkpoint in the original's format, the optimisers' state beside it, the loss curve.

`config.json`, `model.safetensors` and `tokenizer.json` are what `parcae_mobile.load_model` reads; `state.pt` is for
resuming alone.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from parcae_mobile.checkpoint import load_model
from parcae_mobile.model import Parcae

from .shape import TRAINING_FIELDS

# Kept in fp32 whatever the rest is stored in: the loop's stability is computed from them.
POLES = ("adapter.A_log", "adapter.dt_bias")


def save_model(model: Parcae, folder: Path, dtype: torch.dtype = torch.float32, tokenizer: Path | None = None) -> None:
    """Write config and weights (a tied head once; the injection's poles always fp32), and copy the tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {**model.config.to_dict(), **TRAINING_FIELDS}
    _replace(folder / "config.json", (json.dumps(config, indent=2) + "\n").encode())
    tensors = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_embeddings:
            continue
        stored_type = torch.float32 if name.endswith(POLES) else dtype
        tensors[name] = tensor.detach().to("cpu", stored_type).contiguous().clone()
    save_file(tensors, folder / "model.safetensors.partial", metadata={"format": "pt"})
    os.replace(folder / "model.safetensors.partial", folder / "model.safetensors")
    if tokenizer is not None and tokenizer.resolve() != (folder / "tokenizer.json").resolve():
        shutil.copyfile(tokenizer, folder / "tokenizer.json")


def save_state(folder: Path, state: dict[str, Any], curve: list[dict[str, float]]) -> None:
    """Write what a resumed run needs, and the curve as JSON."""
    torch.save(state, folder / "state.pt.partial")
    os.replace(folder / "state.pt.partial", folder / "state.pt")
    lines = ",\n".join(json.dumps(point) for point in curve)
    _replace(folder / "curve.json", f"[\n{lines}\n]\n".encode())


def load_state(folder: Path) -> tuple[dict[str, Any], list[dict[str, float]]]:
    """What `save_state` wrote. Exits with one line if there is nothing to resume."""
    if not (folder / "state.pt").exists():
        raise SystemExit(f"nothing to resume in {folder}: there is no state.pt; start without --resume")
    state = torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
    return state, json.loads((folder / "curve.json").read_text(encoding="utf-8"))


def trainable(folder: Path) -> Parcae:
    """A saved model, ready to be trained further."""
    return load_model(folder).train().requires_grad_(True)


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    os.replace(partial, path)
