"""Names of tensors: wrappers' markers dropped, the head's variants, and a plain GPT's layers under their names here.

    tensors = without_wrappers(raw)                    # transformer.prelude.0._orig_mod.norm_1.weight -> ...0.norm_1...
    tensors = as_built(tensors, config)                # what the model's modules are called

Compiling, distributing or checkpointing a module puts a part into the names below it, at whatever level it was wrapped.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..config import ParcaeConfig
from ..errors import TensorShapeError, TensorValueError, UnexpectedTensorError
from ..gpt_config import tensor_name

HEAD, TABLE = "lm_head.weight", "transformer.wte.weight"


def without_wrappers(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors without `module`, `model` and `_...` in their names. Raises `UnexpectedTensorError` for a name twice."""
    stripped: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        short = ".".join(part for part in str(name).split(".") if not is_wrapper(part))
        if short in stripped:
            raise UnexpectedTensorError(f"tensor {short} is there twice, once as {name}; remove one")
        stripped[short] = tensor
    return stripped


def is_wrapper(part: str) -> bool:
    """Whether a part of a name is a wrapper's (`_orig_mod`, `_fsdp_wrapped_module`, ...): no module starts with `_`."""
    return part in ("module", "model", "wrapped_module") or part.startswith("_")


def as_built(tensors: dict[str, Tensor], config: ParcaeConfig) -> dict[str, Tensor]:
    """The tensors by the names and in the layouts of the model's parameters."""
    named = dict(tensors)
    if config.plain:
        named.pop("transformer.abacus.weight", None)  # the original's GPT saves it and never reads it
        layers = config.layers(loops=1)
        named = {tensor_name(name, layers): tensor for name, tensor in named.items()}
    if config.tie_embeddings:
        return _tied(named, config)
    if config.transposed_head and HEAD in named:
        named[HEAD] = _turned(named[HEAD], config)
    return named


def _tied(tensors: dict[str, Tensor], config: ParcaeConfig) -> dict[str, Tensor]:
    """A tied head and the token table, of which files may hold either or both, as one tensor."""
    head, table = tensors.get(HEAD), tensors.get(TABLE)
    if config.plain and table is not None:  # its unfused head is a parameter of its own that nothing reads
        head = None
    if head is not None and table is not None and (head.shape != table.shape or not torch.equal(head, table)):
        raise TensorValueError(f"{HEAD} differs from {TABLE}, but tie_embeddings is true")
    both = head if table is None else table
    return tensors if both is None else {**tensors, HEAD: both, TABLE: both}


def _turned(head: Tensor, config: ParcaeConfig) -> Tensor:
    shape = (config.n_embd, config.padded_vocab_size)
    if tuple(head.shape) != shape:
        raise TensorShapeError(f"{HEAD} has shape {tuple(head.shape)}; this kind of head is saved as {shape}")
    return head.t()
