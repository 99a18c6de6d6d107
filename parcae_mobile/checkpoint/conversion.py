"""A checkpoint of any kind as safetensors, with its configuration and tokenizer, in a new folder.

    notes = convert(Path("folder"), Path("safe-folder"))

What was written is read back and compared before anything is said; the folder appears whole, by one rename.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ..config import ParcaeConfig
from ..errors import CheckpointError, InputError, OutputExistsError
from ..model import Parcae
from ..tokenizer import TEXT_FILES
from ..tokenizer_source import find_tokenizer
from .build import build_model, rope_notes
from .find import INDEXES, PICKLES
from .names import HEAD, TABLE
from .read import read_checkpoint


def convert(
    source: Path,
    target: Path,
    checkpoint: str | None = None,
    tokenizer: str | None = None,
    hub_id: str | None = None,
) -> list[str]:
    """Write a checkpoint as safetensors into a new folder; returns notes.

    The checkpoint is checked as for loading; `checkpoint` chooses one of a training run's. The tokenizer's files come
    too, from where `find_tokenizer` finds them; other files beside the model are named in the notes. Raises
    `OutputExistsError` if `target` exists.
    """
    if target.exists() or target.is_symlink():
        raise OutputExistsError(f"{target} exists; choose another folder or remove it")
    opened = read_checkpoint(source, checkpoint)
    model = build_model(opened)
    tensors = _to_save(opened.tensors, opened.config)
    tokenizer_of_model, said = find_tokenizer(tokenizer, source, opened.config, hub_id, opened.training_tokenizer)
    beside = source if tokenizer_of_model is None else tokenizer_of_model.path.parent
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
    except OSError as error:
        raise InputError(f"cannot write {target} ({error.strerror}); choose another folder") from None
    try:
        save_file(tensors, partial / "model.safetensors", metadata={"format": "pt"})
        _write_config(opened.config, source, partial)
        copied = [name for name in TEXT_FILES if (beside / name).is_file()]
        for name in copied:
            shutil.copyfile(beside / name, partial / name)
        _read_back(partial, model)
        partial.chmod(0o777 & ~_umask())
        partial.rename(target)
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot write {target} ({error}); choose another folder") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return [*opened.notes, *rope_notes(opened), *said, *_left_behind(source, copied)]


def _to_save(tensors: dict[str, Tensor], config: ParcaeConfig) -> dict[str, Tensor]:
    """Tensors that share no memory, with a tied pair once, under the table's name."""
    stored = dict(tensors)
    if config.tie_embeddings and HEAD in stored:
        head = stored.pop(HEAD)
        stored.setdefault(TABLE, head)
    seen: set[int] = set()
    for name, tensor in stored.items():
        place = tensor.untyped_storage().data_ptr()
        alone = place not in seen and tensor.untyped_storage().nbytes() == tensor.nbytes and tensor.is_contiguous()
        seen.add(place)
        if not alone:
            stored[name] = tensor.clone(memory_format=torch.contiguous_format)
    return stored


def _write_config(config: ParcaeConfig, source: Path, target: Path) -> None:
    """The saved `config.json` as it is; a training run's is written in the same form."""
    if (source / "config.json").exists():
        shutil.copyfile(source / "config.json", target / "config.json")
    else:
        (target / "config.json").write_text(json.dumps(config.to_dict(), indent=2) + "\n", encoding="utf-8")


def _read_back(folder: Path, model: Parcae) -> None:
    """Raise `CheckpointError` unless the folder loads as the very model that was to be written."""
    written = build_model(read_checkpoint(folder)).state_dict()
    for name, tensor in model.state_dict().items():
        if not torch.equal(written[name], tensor):
            raise CheckpointError(f"{name} did not survive being written; the disk or the source changed meanwhile")


def _left_behind(source: Path, copied: list[str]) -> list[str]:
    """A note that names what else lies in the folder."""
    known = {"config.json", *copied, *INDEXES, *PICKLES}
    names = [path.name for path in sorted(source.iterdir()) if path.name not in known and not path.name.startswith(".")]
    names = [name for name in names if not name.endswith((".safetensors", ".bin", ".pt", ".pth", ".ckpt"))]
    return [f"not copied: {', '.join(names[:8])}{' ...' if len(names) > 8 else ''}"] if names else []


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
