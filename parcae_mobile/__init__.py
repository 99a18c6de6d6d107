"""The Parcae model and the contracts around it. Importing this costs torch and safetensors, nothing else."""

from .checkpoint import convert, load_model
from .config import ParcaeConfig, released_config
from .kv_cache import KVCache
from .model import Parcae

__all__ = ["KVCache", "Parcae", "ParcaeConfig", "convert", "load_model", "released_config"]
