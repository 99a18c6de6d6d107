"""Quantized tensors in a safetensors file, with what they mean in its metadata.

    save_quantized(quantized, Path("tensors.safetensors"))
    quantized = load_quantized(model, Path("tensors.safetensors"), recipe)

Float parameters that differ from the checkpoint's (learned norms, fp16 values) are in the file too.
Writing the same model twice gives the same bytes.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from parcae_mobile.errors import CheckpointError, TensorShapeError, UnexpectedTensorError, reason_of
from parcae_mobile.model import Parcae
from parcae_mobile.tensor_file import check_room, read_shapes

from .apply import QuantizedModel
from .palette import PaletteTensor
from .recipe import Recipe
from .tensor import QuantizedTensor

FORMAT = "parcae-mobile quantized tensors 1"


def save_quantized(quantized: QuantizedModel, path: Path, reference: Parcae | None = None) -> None:
    """Write all tensors; with `reference` also the floats that are not its own."""
    parts: dict[str, Tensor] = {}
    for name, tensor in quantized.stored.items():
        parts |= tensor.to_tensors(name)
    floats = {} if reference is None else changed_floats(reference, quantized)
    parts |= {f"{name}.float": values for name, values in floats.items()}
    metadata = {
        "format": FORMAT,
        "recipe": quantized.recipe.name,
        "algorithm": quantized.algorithm,
        "names": json.dumps(sorted(quantized.tensors)),
        "palettes": json.dumps(sorted(quantized.palettes)),
        "floats": json.dumps(sorted(floats)),
        "algorithms": json.dumps(quantized.algorithms, sort_keys=True),
        "fallbacks": json.dumps(quantized.fallbacks, sort_keys=True),
        "halves": json.dumps(sorted(quantized.halves)),
        "notes": json.dumps(quantized.notes),
    }
    # The library writes metadata in an order that differs between runs: a single value keeps the bytes equal.
    save_file({k: v.contiguous() for k, v in parts.items()}, path, {"quantized": json.dumps(metadata, sort_keys=True)})


def load_quantized(model: Parcae, path: Path, recipe: Recipe) -> QuantizedModel:
    """Tensors of a file put into the model that they were made for.

    Raises `CheckpointError` for a file that is not one of these, `UnexpectedTensorError` and `TensorShapeError` for
    tensors that the model does not have, `TensorValueError` for parts that are missing or contradict each other.
    """
    stored_shapes = read_shapes(path, CheckpointError)
    counts = [parameter.numel() for parameter in model.parameters()]
    check_room(path, stored_shapes, max(counts), 3 * sum(counts) + len(stored_shapes), TensorShapeError)
    try:
        with safe_open(path, "pt") as file:
            metadata = json.loads((file.metadata() or {})["quantized"])
            parts = {name: file.get_tensor(name) for name in stored_shapes}
        if metadata["format"] != FORMAT:
            raise KeyError(metadata["format"])
        listed = {key: json.loads(metadata[key]) for key in metadata if key not in ("format", "recipe", "algorithm")}
        names, tables, floats = listed["names"], listed["palettes"], listed["floats"]
        tensors = {name: QuantizedTensor.from_tensors(name, parts) for name in names}
        palettes = {name: PaletteTensor.from_tensors(name, parts) for name in tables}
        values = {name: parts[f"{name}.float"] for name in floats}
    except (SafetensorError, OSError, LookupError, ValueError, TypeError, RuntimeError, MemoryError) as error:
        raise CheckpointError(f"{path}: not a file of quantized tensors ({reason_of(error)}); write it again") from None
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    found_shapes: dict[str, tuple[int, ...]] = {name: tensor.shape for name, tensor in tensors.items()}
    found_shapes |= {name: palette.shape for name, palette in palettes.items()}
    for name, shape in (found_shapes | {name: tuple(value.shape) for name, value in values.items()}).items():
        if name not in shapes:
            raise UnexpectedTensorError(f"{path}: the model has no {name}; the file was made for another one")
        if shape != shapes[name]:
            raise TensorShapeError(f"{path}: {name} has shape {shape}, the model's is {shapes[name]}")
    ordered = {name: tensors[name] for name in shapes if name in tensors}
    ordered_palettes = {name: palettes[name] for name in shapes if name in palettes}
    return QuantizedModel(
        model,
        ordered,
        recipe,
        metadata["algorithm"],
        listed["notes"],
        listed["fallbacks"],
        listed["algorithms"],
        frozenset(listed["halves"]),
        ordered_palettes,
        values,
    )


def changed_floats(reference: Parcae, quantized: QuantizedModel) -> dict[str, Tensor]:
    """Unquantized parameters whose values are not the reference's."""
    own = dict(reference.named_parameters())
    return {
        name: parameter.detach()
        for name, parameter in quantized.outline().named_parameters()
        if name not in quantized.stored and parameter is not own[name] and not torch.equal(parameter, own[name])
    }
