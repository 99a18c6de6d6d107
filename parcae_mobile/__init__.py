"""The Parcae model and the contracts around it. Importing this costs torch and safetensors at most.

Names are loaded when they are first used, so that a host runtime, which needs the manifest and no tensors, stays small.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checkpoint import convert, load_model
    from .config import ParcaeConfig, released_config
    from .kv_cache import KVCache
    from .model import Parcae

__all__ = ["KVCache", "Parcae", "ParcaeConfig", "convert", "load_model", "released_config"]

_HOMES = {
    "KVCache": "kv_cache",
    "Parcae": "model",
    "ParcaeConfig": "config",
    "convert": "checkpoint",
    "load_model": "checkpoint",
    "released_config": "config",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
