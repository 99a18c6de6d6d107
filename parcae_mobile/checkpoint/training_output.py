"""A folder that the original's training script wrote: its configuration, its checkpoints, its tokenizer.

    run/run_config.json  run/model_config.json  run/checkpoints-DDPStrategy/step-00002048-NAME[.pth]

    config = parsed(folder, configuration(folder))
    file = newest(folder)                              # or choose(folder, "1024"), by step, name or path

Each checkpoint is `{"model": ..., "optimizer": ..., ...}` in one file; with several ranks `NAME_0.pth`, `NAME_1.pth`
hold the same model. A strategy that saves folders leaves a folder of `*.pt`, `*.pth` or `*.ckpt`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ..config import ParcaeConfig
from ..errors import CheckpointError, ConfigError
from ..json_file import read_object

RUN_CONFIG, MODEL_CONFIG = "run_config.json", "model_config.json"
SUFFIXES = (".pt", ".pth", ".ckpt")
_STEP = re.compile(r"step-(\d+)")
_RANK = re.compile(r"_(\d+)$")
_NO_CHECKPOINTS = (".json", ".yaml", ".yml", ".txt", ".log", ".tmp", ".partial", ".safetensors")


def is_training_output(folder: Path) -> bool:
    """Whether the training script wrote the folder: it has no `config.json`, but one of the script's two."""
    return not (folder / "config.json").exists() and any(
        (folder / name).exists() for name in (RUN_CONFIG, MODEL_CONFIG)
    )


def configuration(folder: Path) -> dict[str, Any]:
    """The model's saved fields, from `model_config.json` or inside of `run_config.json`."""
    path = folder / MODEL_CONFIG
    if path.exists():
        return read_object(path, ConfigError)
    values = read_object(folder / RUN_CONFIG, ConfigError).get("model_config")
    if not isinstance(values, dict):
        raise ConfigError(f"{folder / RUN_CONFIG} holds no model_config, and there is no {MODEL_CONFIG} beside it")
    return values


def parsed(folder: Path, values: dict[str, Any]) -> ParcaeConfig:
    """The configuration of saved fields. Raises `ConfigError` that names the folder and the key."""
    try:
        return ParcaeConfig.from_dict(values)
    except ConfigError as error:
        raise ConfigError(f"{folder / MODEL_CONFIG}: {error}") from None


def differences(written: dict[str, Any], trained: dict[str, Any]) -> list[str]:
    """A note if a checkpoint's own configuration, which counts, is not the one that the run wrote when it began."""
    keys = sorted(key for key in trained if trained[key] != written.get(key, trained[key]))
    if not keys:
        return []
    return [f"the checkpoint was saved with {', '.join(f'{key} = {trained[key]!r}' for key in keys)}; that is used"]


def tokenizer_path(folder: Path) -> str | None:
    """What the run's configuration names as its tokenizer: a folder or a hub id of the machine that trained."""
    path = folder / RUN_CONFIG
    if not path.exists():
        return None
    named = read_object(path, ConfigError).get("tokenizer_path")
    return named if isinstance(named, str) and named else None


def checkpoints(folder: Path) -> list[Path]:
    """The run's checkpoint files, oldest first: by step, without one by the time of writing."""
    inside = [folder, *sorted(folder.glob("checkpoints-*")), *sorted(folder.glob("checkpoints"))]
    inside += [path for place in inside[1:] for path in sorted(place.iterdir()) if path.is_dir()]
    inside += [path for path in sorted(folder.glob("step-*")) if path.is_dir()]
    files = [path for place in inside if place.is_dir() for path in sorted(place.iterdir()) if _is_checkpoint(path)]
    return sorted(files, key=lambda path: (step_of(path), path.stat().st_mtime, -_rank_of(path), str(path)))


def newest(folder: Path) -> Path | None:
    """The checkpoint of the last step; of several ranks the first."""
    files = checkpoints(folder)
    if not files:
        _refuse_sharded(folder)
        return None
    last = [path for path in files if step_of(path) == step_of(files[-1])]
    if step_of(files[-1]) < 0:
        return files[-1]
    return min(last, key=lambda path: (_rank_of(path), str(path)))


def choose(folder: Path, wanted: str) -> Path:
    """A checkpoint by its path, its name (with or without suffix) or its step. Raises `CheckpointError`."""
    for path in (Path(wanted), folder / wanted):
        if path.is_file():
            return path
        if path.is_dir():
            inside = [file for file in sorted(path.iterdir()) if _is_checkpoint(file)]
            if inside:
                return inside[0]
            _refuse_sharded(path)
    files = checkpoints(folder)
    named = [path for path in files if wanted in (path.name, path.stem, _RANK.sub("", path.stem))]
    if not named and wanted.isascii() and wanted.isdigit():
        named = [path for path in files if step_of(path) == int(wanted)]
    if not named:
        listed = ", ".join(path.name for path in files[-3:]) or "none"
        raise CheckpointError(f"--checkpoint {wanted}: no such file, name or step in {folder}; the latest are {listed}")
    return min(named, key=lambda path: (_rank_of(path), str(path)))


def step_of(path: Path) -> int:
    """The step in the name of a checkpoint or of its folder, -1 if none is there."""
    number = _STEP.search(path.name) or _STEP.search(path.parent.name)
    return int(number.group(1)) if number else -1


def _rank_of(path: Path) -> int:
    number = _RANK.search(path.stem)
    return int(number.group(1)) if number else 0


def _is_checkpoint(path: Path) -> bool:
    named = path.suffix in SUFFIXES or path.name.startswith("step-")
    return named and path.suffix not in _NO_CHECKPOINTS and not path.name.startswith(".") and path.is_file()


def _refuse_sharded(folder: Path) -> None:
    """Raise if the folder holds a checkpoint that many processes wrote in pieces."""
    shard = next(iter(sorted(folder.glob("**/*.distcp"))), None)
    if shard is not None:
        raise CheckpointError(
            f"{shard.parent} is split over processes; join it where torch is installed: python -m "
            f"torch.distributed.checkpoint.format_utils dcp_to_torch {shard.parent} {shard.parent}.pt"
        )
