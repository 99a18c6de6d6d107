"""Where a checkpoint lies: a folder as it is, or a repository of the hub through the hub's cache.

    folder = find_folder("SandyResearch/parcae-140m")
    files = find_weights(folder)                       # the files to read, and which tensor comes from which

Weights are looked for as safetensors, then as the pickles that the original saves, then as a training run's output.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import CheckpointError
from ..hub import download, is_hub_id
from ..json_file import read_object
from ..tokenizer import TEXT_FILES
from . import training_output

PICKLES = ("pytorch_model.bin", "model.pt", "model.bin")
INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
MOST_SHARDS = 10_000


@dataclass(frozen=True)
class WeightFiles:
    """Files that hold a model's weights. `places` says for each tensor which file it is read from; None is any."""

    files: tuple[Path, ...]
    places: dict[str, str] | None = None
    training: bool = False

    @property
    def pickled(self) -> bool:
        return self.files[0].suffix != ".safetensors"


def find_folder(path_or_hub_id: str | Path, revision: str | None = None) -> Path:
    """A local folder as it is; a hub id (`owner/name`) through the hub's cache."""
    path = Path(path_or_hub_id)
    if path.is_dir():
        return path
    if path.exists():
        raise CheckpointError(f"{path} is a file; give the folder that holds it, and --checkpoint to choose a file")
    if not is_hub_id(str(path_or_hub_id)):
        raise CheckpointError(f"no such folder: {path}; give a checkpoint folder or a hub id like owner/name")
    patterns = ["config.json", "*.safetensors", *INDEXES, *PICKLES, "pytorch_model-*.bin", *TEXT_FILES]
    return download(str(path_or_hub_id), revision, patterns)


def find_weights(folder: Path, checkpoint: str | None = None) -> WeightFiles:
    """The weights of a folder; `checkpoint` names one of several (a file, its name, or its step).

    Raises `CheckpointError` if there are none, or several and nothing that says which.
    """
    if checkpoint is not None:
        chosen = training_output.choose(folder, checkpoint)
        return WeightFiles((chosen,), training=chosen.suffix != ".safetensors")
    for name in INDEXES:
        if (folder / name).exists():
            return _indexed(folder / name)
        files = sorted(folder.glob(name.removesuffix(".index.json").replace("model.", "model-*-of-*.")))
        if files:
            raise CheckpointError(f"{folder} has shards ({files[0].name} ...) and no {name}; copy it beside them")
    files = sorted(folder.glob("*.safetensors"))
    if len(files) > 1:
        listed = ", ".join(file.name for file in files[:3])
        raise CheckpointError(f"{folder} has several safetensors files ({listed}) and no index; keep one")
    if files:
        return WeightFiles((files[0],))
    for name in PICKLES:
        if (folder / name).exists():
            return WeightFiles((folder / name,))
    newest = training_output.newest(folder)
    if newest is None:
        raise CheckpointError(
            f"no weights in {folder}: expected model.safetensors, {', '.join(PICKLES)} or a training run's step-* files"
        )
    return WeightFiles((newest,), training=True)


def _indexed(index: Path) -> WeightFiles:
    places = read_object(index, CheckpointError).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise CheckpointError(f"{index}: not an index of weights (weight_map names a file for each tensor)")
    if not all(_is_plain_name(name) for name in places.values()):
        raise CheckpointError(f"{index}: names a file outside of its folder")
    files = tuple(index.parent / name for name in sorted(set(places.values())))
    if len(files) > MOST_SHARDS:
        raise CheckpointError(f"{index}: names {len(files)} files; no checkpoint has so many")
    for file in files:
        if not file.is_file():
            raise CheckpointError(f"{index} names {file.name}, which is missing; copy it too")
    return WeightFiles(files, places)


def _is_plain_name(name: str) -> bool:
    """Whether a file of that name can only lie in the folder itself."""
    return Path(name).name == name and name not in ("", ".", "..") and "\\" not in name and len(name.encode()) <= 255
