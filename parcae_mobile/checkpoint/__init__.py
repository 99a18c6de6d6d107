"""Checkpoints of every kind that people have: find, read, name, check, build a model, convert to safetensors."""

from .build import build_model, load_model
from .conversion import convert
from .find import find_folder
from .read import Checkpoint, read_checkpoint

__all__ = ["Checkpoint", "build_model", "convert", "find_folder", "load_model", "read_checkpoint"]
