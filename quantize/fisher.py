"""Integers moved for the model's output, not for each matrix's own: GPTQ's objective with both sides of a matrix in it.

    gradients = collect_gradients(model, windows, names)   # by parameter name
    tensor = descend_both(tensor, weight, inputs, outputs)
    quantized = refine_by_fisher(model, quantized, windows)

GPTQ lowers tr(E H E^T) for the error E = W - Q, with H the moments of the matrix's inputs: all outputs count alike.
How much an output counts for the logits is in G, the moments of the gradients of log-likelihoods (of tokens drawn from
the model, so that they are Fisher information) at the matrix's outputs. To second order KL(fp32 || quantized) is then
about tr(G E H E^T) / 2 for each matrix (Kronecker-factored: Martens and Grosse 2015, arXiv:1503.05671). In the
recurrent block both moments are summed over all loops. A table that is only looked up has no inputs, but its rows'
gradients: they are the Hessian with which GPTQ can do it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from parcae_mobile.model import Parcae

from .apply import Progress, QuantizedModel
from .gptq import DAMPING, HessianError, damp, quantize_gptq
from .hessians import BYTES_AT_ONCE, calibration_loops, collect_hessians, exit_loops, passes
from .learning_run import windows_at_once
from .tensor import QuantizedTensor, integer_range

OUTPUT_DAMPING = 0.1
ROUNDS = 400
FIRST_SHARE = 0.02  # of the integers are moved together in the first round
_MOST_WORK = 2e12  # multiplications for one matrix


def refine_by_fisher(
    model: Parcae, quantized: QuantizedModel, windows: Tensor, seed: int = 0, progress: Progress | None = None
) -> QuantizedModel:
    """The quantized model with the integers below 8 bits moved; scales, except those of value tables, stay.

    `windows` (n, length) int64. A matrix that cannot be done keeps its integers. Deterministic for a seed.
    """
    parameters = dict(model.named_parameters())
    small = [name for name, tensor in quantized.tensors.items() if tensor.bits < 8]
    looked_up = [name for name in small if name.startswith("value_embeds.")]
    tensors = dict(quantized.tensors)
    groups = passes(model, [name for name in small if name != "transformer.wte.weight"], BYTES_AT_ONCE // 2)
    for group in [looked_up, *groups]:
        if not group:
            continue
        outputs = collect_gradients(model, windows, group, seed)
        inputs = {} if group is looked_up else collect_hessians(model, windows, group)
        for name in group:
            tensor, weight = tensors[name], parameters[name].detach()
            kind = (tensor.bits, tensor.group_size, tensor.symmetric)
            try:
                if group is looked_up and name in outputs:
                    tensors[name] = quantize_gptq(weight, outputs[name], *kind)
                elif name in outputs and name in inputs:
                    tensors[name] = descend_both(tensor, weight, inputs[name], outputs[name])
            except HessianError:
                continue
            if progress is not None:
                progress(f"moving integers of {name}", small.index(name) + 1, len(small))
    return replace(quantized, tensors=tensors, eager=None)


def collect_gradients(model: Parcae, windows: Tensor, names: Iterable[str], seed: int = 0) -> dict[str, Tensor]:
    """Moments of gradients by parameter name: (rows, rows) fp32, for a looked-up table (columns, columns).

    The loss is minus the log-likelihood of one token drawn from the model at each position, after 2, half and all loops
    in turn. The head has none here: its output is the logits.
    """
    sums: dict[str, Tensor] = {}
    modules = dict(model.named_modules())
    wanted = [name for name in names if name != "transformer.wte.weight"]
    handles = [modules["transformer.wte"].register_forward_hook(_begin_graph)]
    for name in wanted:
        place, module = name.removesuffix(".weight"), modules[name.removesuffix(".weight")]
        if isinstance(module, nn.Embedding):
            handles.append(module.register_forward_hook(_begin_graph))
        if place != "lm_head":
            handles.append(module.register_forward_hook(_meter(name, sums)))
    generator, keep = torch.Generator().manual_seed(seed), model.config.vocab_size
    counts = exit_loops(calibration_loops(model))
    try:
        at_once = min(4, max(1, windows_at_once(model.config, windows.shape[1], max(counts))))
        with torch.enable_grad():
            for number, ids in enumerate(windows.split(at_once)):
                logits = model(ids, counts[number % len(counts)])[..., :keep]
                likelihoods = F.log_softmax(logits, -1).flatten(0, 1)
                drawn = torch.multinomial(likelihoods.detach().exp(), 1, generator=generator)
                likelihoods.gather(1, drawn).sum().backward()
    finally:
        for handle in handles:
            handle.remove()
    return sums


def descend_both(tensor: QuantizedTensor, weight: Tensor, inputs: Tensor, outputs: Tensor) -> QuantizedTensor:
    """The tensor with integers moved by single steps while tr(G E H E^T) falls, many of them at once.

    `inputs` H (columns, columns), `outputs` G (rows, rows). A round moves the integers that gain most by themselves; if
    together they lose, half as many are tried. Scales and zero points stay. Raises `HessianError` as `damp` does.
    """
    h, g = _normalised(inputs, DAMPING), _normalised(outputs, OUTPUT_DAMPING)
    rows, columns = weight.shape
    low, high = integer_range(tensor.bits, tensor.symmetric)
    scale = tensor.scales.repeat_interleave(tensor.group_size, 1)
    curvature = torch.outer(g.diagonal(), h.diagonal()) * scale.square()
    now, error = tensor.integers.float(), weight - tensor.dequantize()
    slope = g @ error @ h
    value, count = float((error * slope).sum()), max(1, int(FIRST_SHARE * rows * columns))
    rounds = int(min(ROUNDS, max(8, _MOST_WORK / (2 * rows * columns * (rows + columns)))))
    for _ in range(rounds):
        step = ((now + (slope * scale / curvature).round().clamp_(-1, 1)).clamp_(low, high)).sub_(now)
        gain = step * (2 * scale * slope - step * curvature)
        gains, places = gain.flatten().topk(count)
        places = places[gains > 0]
        if count < 1 or len(places) == 0:
            break
        chosen = torch.zeros(rows * columns)
        chosen[places] = step.flatten()[places]
        moved = chosen.view(rows, columns)
        tried = error - moved * scale
        tried_slope = g @ tried @ h
        tried_value = float((tried * tried_slope).sum())
        if tried_value < value:
            now, error, slope, value = now + moved, tried, tried_slope, tried_value
            count = min(int(1.3 * count) + 1, rows * columns)
        elif count == 1:
            break
        else:
            count = count // 2
    return replace(tensor, integers=now.to(torch.int8))


def _normalised(moments: Tensor, damping: float) -> Tensor:
    damped = damp(moments, damping)
    return (damped / damped.diagonal().mean()).float()


def _begin_graph(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """Rows that were looked up are where gradients end; the model's parameters take none."""
    return output.detach().requires_grad_(True)


def _meter(name: str, sums: dict[str, Tensor]) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    def add(gradient: Tensor) -> None:
        flat = gradient.reshape(-1, gradient.shape[-1])
        sums[name] = flat.T @ flat + sums.get(name, 0.0)

    def watch(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if output.requires_grad:
            output.register_hook(add)

    return watch
