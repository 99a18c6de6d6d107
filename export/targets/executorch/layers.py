"""The model's layers as XNNPACK takes them, put in place of the eager ones before tracing.

    model = friendly_model(quantized)                      # shares every float tensor with the eager model

XNNPACK has no mean over the last dimension and no strided slice, and nothing of a dynamic length may be sliced. So a
mean is a product with a constant row, a pair swap is a product with a small block of zeros and ones (exact), and the
value gate reads all channels through a weight padded with zeros. Quantized matrices are the recipe's own integers.
"""

from __future__ import annotations

import math

import torch
import torchao.quantization.quant_primitives  # noqa: F401  registers torchao's quantization operators
from executorch.exir.passes import _quant_patterns_and_replacements  # noqa: F401  registers the embedding operators
from torch import Tensor, nn
from torch.nn import functional as F

from export.stages import fold_injection
from export.targets.executorch.shapes import linear_refusal
from parcae_mobile.errors import UsageError
from parcae_mobile.layers import GATE_CHANNELS, RMSNorm
from parcae_mobile.model import Parcae
from quantize.apply import QuantizedModel
from quantize.tensor import QuantizedTensor

_BLOCK = 8  # columns at once in a pair swap or a repetition: any (even) divisor of the width works
HELPERS = ("mean_row", "swap_block", "repeat_block")  # constants of products that are no part of the model


class RowMean(nn.Module):
    """The mean over the last dimension, kept: (..., width) -> (..., 1)."""

    mean_row: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean_row", torch.full((1, width), 1.0 / width))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.mean_row)


class PairSwap(nn.Module):
    """Adjacent pairs (a, b) of the last dimension become (b, a), or (-b, a) if `turn`."""

    swap_block: Tensor

    def __init__(self, width: int, turn: bool) -> None:
        super().__init__()
        self.block = math.gcd(width, _BLOCK)
        matrix = torch.zeros(self.block, self.block)
        even = torch.arange(0, self.block, 2)
        matrix[even, even + 1] = -1.0 if turn else 1.0
        matrix[even + 1, even] = 1.0
        self.register_buffer("swap_block", matrix)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.reshape(1, -1, self.block), self.swap_block).view(x.shape)


class Repeat(nn.Module):
    """Each entry of the last dimension twice in a row: (..., n) -> (..., 2n). A RoPE table is stored once per pair."""

    repeat_block: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.block = math.gcd(width, _BLOCK)
        self.register_buffer("repeat_block", torch.eye(self.block).repeat_interleave(2, 0))

    def forward(self, x: Tensor) -> Tensor:
        twice = (*x.shape[:-1], 2 * x.shape[-1])
        return F.linear(x.reshape(1, -1, self.block), self.repeat_block).view(twice)


class Norm(nn.Module):
    """RMSNorm or LayerNorm over the last dimension; `weight` and `bias` may be absent."""

    def __init__(self, width: int, eps: float, weight: Tensor | None, bias: Tensor | None = None, center: bool = False):
        super().__init__()
        self.average, self.eps, self.center = RowMean(width), eps, center
        self.weight, self.bias = weight, bias

    def forward(self, x: Tensor) -> Tensor:
        if self.center:
            x = x - self.average(x)
        x = x * torch.rsqrt(self.average(x * x) + self.eps)
        if self.weight is not None:
            x = x * self.weight
        return x if self.bias is None else x + self.bias


class ValueGate(nn.Module):
    """The value gate over all channels: the zeros behind `GATE_CHANNELS` undo the slice before it (see `simplify`)."""

    weight: Tensor

    def __init__(self, weight: Tensor, width: int) -> None:
        super().__init__()
        self.register_buffer("weight", F.pad(weight, (0, width - GATE_CHANNELS)))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.pad(x, (0, self.weight.shape[1] - GATE_CHANNELS)), self.weight)


class QuantizedLinear(nn.Module):
    """int8 activations (one scale and zero point per token, chosen at run time) times the recipe's integers."""

    def __init__(self, name: str, tensor: QuantizedTensor, bias: Tensor | None) -> None:
        super().__init__()
        check_linear(name, tensor)
        self.limit = 7 if tensor.bits <= 4 else 127
        self.group_size, self.bias = tensor.group_size, bias
        self.register_buffer("integers", tensor.integers)
        self.register_buffer("scales", tensor.scales)
        self.register_buffer("zeros", torch.zeros_like(tensor.scales, dtype=torch.int8))

    def forward(self, x: Tensor) -> Tensor:
        ops = torch.ops.torchao
        token = [1] * (x.dim() - 1) + [x.shape[-1]]
        int8 = torch.int8
        scale, zero = ops.choose_qparams_affine(
            x, "ASYMMETRIC", token, int8, -128, 127, torch.finfo(torch.float32).eps, torch.float32, int8
        )
        x = ops.quantize_affine(x, token, scale, zero, int8, -128, 127)
        x = ops.dequantize_affine(x, token, scale, zero, int8, -128, 127)
        group, low = [1, self.group_size], -self.limit - 1
        weight = ops.dequantize_affine(self.integers, group, self.scales, self.zeros, int8, low, self.limit)
        return F.linear(x, weight, self.bias)


class QuantizedEmbedding(nn.Module):
    """A table of the recipe's integers. Scales are fp16, which holds every scale of the grid exactly.

    `shared` writes int4 pairs in the order of XNNPACK's matrices, so that a tied head can be the same bytes.
    """

    def __init__(self, tensor: QuantizedTensor, shared: bool) -> None:
        super().__init__()
        self.bits = 4 if tensor.bits <= 4 else 8
        zeros = None if tensor.zero_points is None else tensor.zero_points
        self.swap = PairSwap(tensor.shape[1], turn=False) if shared and self.bits == 4 else None
        integers = pack_pairs(tensor.integers, low_first=shared) if self.bits == 4 else tensor.integers
        scales = tensor.scales if tensor.scales.shape[1] > 1 else tensor.scales[:, 0]
        self.register_buffer("integers", integers)
        self.register_buffer("scales", scales.half())
        self.register_buffer("zeros", None if zeros is None else zeros.view(scales.shape).half())

    def forward(self, ids: Tensor) -> Tensor:
        ops, limit = torch.ops.quantized_decomposed, 2 ** (self.bits - 1)
        look_up = ops.embedding_4bit.dtype if self.bits == 4 else ops.embedding_byte.dtype
        rows = look_up(self.integers, self.scales, self.zeros, -limit, limit - 1, ids, dtype=torch.float32)
        return rows if self.swap is None else self.swap(rows)


def pack_pairs(integers: Tensor, low_first: bool) -> Tensor:
    """int4 values (rows, columns) int8 -> bytes (rows, columns / 2), each value + 8; two columns to a byte."""
    even, odd = ((integers[:, start::2].to(torch.int16) + 8).to(torch.uint8) for start in (0, 1))
    return even | (odd << 4) if low_first else (even << 4) | odd


def check_linear(name: str, tensor: QuantizedTensor) -> None:
    """Raise `UsageError` for a matrix that XNNPACK's kernels cannot hold as it is."""
    why = linear_refusal(tensor.bits, tensor.group_size, tensor.shape[1], tensor.zero_points is None)
    if why is not None:
        remedy = "give it another rule in the recipe, or choose --target onnx"
        raise UsageError(f"ExecuTorch: {name} {why}; {remedy}")


def friendly_model(quantized: QuantizedModel) -> Parcae:
    """A copy of the model whose layers XNNPACK can take. Raises `UsageError` for a format that it cannot."""
    model = fold_injection(quantized.outline())
    tied = model.config.tie_embeddings
    for name, module in list(model.named_modules()):
        parent = model.get_submodule(name.rpartition(".")[0])
        key = name.rpartition(".")[2]
        core = name.startswith("transformer.core_block")
        width = model.config.recurrent_embedding_dimension if core else model.config.n_embd
        replaced = _replacement(name, module, quantized.tensors, tied, width)
        if replaced is not None:
            setattr(parent, key, replaced)
    as_parameters(model)
    return model.eval()


def as_parameters(module: nn.Module) -> None:
    """Turn buffers into parameters: of what it does not use, an exported method drops parameters and keeps buffers."""
    for part in module.modules():
        for name, buffer in list(part.named_buffers(recurse=False)):
            delattr(part, name)
            part.register_parameter(name, nn.Parameter(buffer, requires_grad=False))


def _replacement(
    name: str, module: nn.Module, tensors: dict[str, QuantizedTensor], tied: bool, width: int
) -> nn.Module | None:
    weight = f"{name}.weight"
    if tied and name == "lm_head":
        weight = "transformer.wte.weight"
    tensor = tensors.get(weight)
    if isinstance(module, RMSNorm):
        return Norm(module.weight.shape[0], module.eps, module.weight)
    if isinstance(module, nn.LayerNorm):
        return Norm(module.weight.shape[0], module.eps, module.weight, module.bias, center=True)
    if isinstance(module, nn.Embedding) and tensor is not None:
        if tensor.bits <= 4 and tensor.shape[1] % 2:
            raise UsageError(f"ExecuTorch: {weight} is int4 with {tensor.shape[1]} columns, an odd count; keep it int8")
        return QuantizedEmbedding(tensor, shared=tied and name == "transformer.wte")
    if isinstance(module, nn.Linear):
        if name.endswith("ve_gate"):
            return ValueGate(module.weight, width)
        return None if tensor is None else QuantizedLinear(weight, tensor, module.bias)
    return None
