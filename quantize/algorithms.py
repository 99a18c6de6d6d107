"""The algorithms by name, and what happens where one of them cannot be used.

    windows = draw_windows(text_ids(folder, "calibration"), count=32, length=256)
    quantized = quantize_with(model, load_recipe("int4"), "auto", windows)

`rtn` and `hqq` look at weights alone; `gptq` at what the weights multiply on calibration text; `learned` goes on from
there for some minutes (`learned.py`); `auto` is `gptq` where there is such text. A matrix that GPTQ cannot do is
rounded to nearest instead, counted and listed, and more of those than `max_fallbacks` are an error. Tables that are
only looked up multiply nothing; for them rounding is no fall-back.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from parcae_mobile.errors import GateError, TextError, UsageError
from parcae_mobile.model import Parcae
from parcae_mobile.text import TokenText

from .apply import Progress, QuantizedModel, Quantizer, Stored, nearest_values, quantize_model
from .fisher import refine_by_fisher
from .gptq import DAMPING, HessianError, quantize_gptq
from .hessians import BYTES_AT_ONCE, collect_hessians, input_of, passes
from .hqq import quantize_hqq
from .learned import hold_back, learn
from .learning_run import Learning
from .palette_gptq import quantize_palette_gptq
from .recipe import Recipe, Rule, assign_rules

ALGORITHMS = ("auto", "rtn", "hqq", "gptq", "learned")
CALIBRATION_WINDOWS, CALIBRATION_LENGTH = 32, 256
LEARNED_WINDOWS, START_WINDOWS = 2048, 64  # at most, of `learned` and of GPTQ before it

TOKENS_PER_COLUMN = 4  # fewer calibration tokens than this times a matrix's columns get a note

# A tied table is also looked up, where every column counts alike: its head's Hessian gets more of the identity.
TIED_DAMPING = 0.1


def quantize_with(
    model: Parcae,
    recipe: Recipe,
    algorithm: str = "auto",
    calibration: Tensor | None = None,
    max_fallbacks: int = 0,
    progress: Progress | None = None,
    seed: int = 0,
    loops: int | None = None,
    learning: Learning | None = None,
) -> QuantizedModel:
    """Quantize `model` by `recipe` with a named algorithm; the same arguments give the same integers.

    `calibration` (n, length) int64 windows of real text, for `learned` as many as there are; `loops` of a calibration
    pass, see `calibration_loops`; `learning` says how long to learn. Raises `UsageError` for an unknown algorithm or
    missing text, `TextError` and `InputError` as `learn` does, `GateError` for too many fall-backs, `TensorValueError`
    for activations that are not finite, `RecipeError` as `assign_rules` does.
    """
    chosen = resolve(algorithm, calibration is not None)
    if chosen in ("rtn", "hqq"):
        quantized = quantize_model(model, recipe, hqq if chosen == "hqq" else nearest_values, progress)
        quantized.algorithm, quantized.algorithms = chosen, dict.fromkeys(quantized.stored, chosen)
        return quantized
    assert calibration is not None
    seen = calibration
    if chosen == "learned":
        learning = learning or Learning()
        learning.check()
        seen = spread(hold_back(calibration)[0], START_WINDOWS)
    quantized = _with_gptq(model, recipe, seen, loops, progress)
    if len(quantized.fallbacks) > max_fallbacks:
        count, listed = len(quantized.fallbacks), "; ".join(f"{n}: {why}" for n, why in quantized.fallbacks.items())
        raise GateError(f"GPTQ fell back to rounding for {count} matrices, {max_fallbacks} allowed ({listed})")
    if chosen == "learned" and quantized.tensors:
        quantized = refine_by_fisher(model, quantized, seen, seed, progress)
        learning = learning or Learning()
        if recipe.loop_weights and learning.loops is None:
            learning = replace(learning, loops=(recipe.loop_weights[0][0], recipe.loop_weights[-1][0]))
        return learn(model, quantized, calibration, learning, seed, progress)
    return quantized


def spread(windows: Tensor, most: int) -> Tensor:
    """At most `most` of the windows, evenly from first to last."""
    if len(windows) <= most:
        return windows
    return windows[torch.linspace(0, len(windows) - 1, most).round().long()]


def resolve(algorithm: str, has_text: bool) -> str:
    """The algorithm that a name stands for. Raises `UsageError`."""
    if algorithm not in ALGORITHMS:
        raise UsageError(f"--algorithm {algorithm}: choose one of {', '.join(ALGORITHMS)}")
    if algorithm in ("gptq", "learned") and not has_text:
        raise UsageError(
            f"--algorithm {algorithm} needs calibration text and a tokenizer; give them, or choose hqq or rtn"
        )
    return ("gptq" if has_text else "rtn") if algorithm == "auto" else algorithm


def draw_windows(
    text: TokenText, count: int = CALIBRATION_WINDOWS, length: int = CALIBRATION_LENGTH, seed: int = 0
) -> Tensor:
    """(count, length) windows from places drawn with `seed`. Raises `TextError` for a text shorter than one window."""
    if len(text.ids) < length:
        raise TextError(f"{text.source}: {len(text.ids)} tokens are less than a window of {length}; give a longer text")
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(0, len(text.ids) - length + 1, (count,), generator=generator)
    return torch.stack([text.ids[start : start + length] for start in starts.tolist()])


def hqq(name: str, weight: Tensor, rule: Rule, group_size: int) -> Stored:
    """Half-quadratic quantization for any parameter; 8 bits gain nothing from it, and palettes have no scales."""
    if rule.bits == 8 or rule.palette_rows is not None:
        return nearest_values(name, weight, rule, group_size)
    return quantize_hqq(weight, rule.bits, group_size, rule.symmetric)


def gptq_quantizer(
    model: Parcae, hessians: dict[str, Tensor], fallbacks: dict[str, str], algorithms: dict[str, str]
) -> Quantizer:
    """GPTQ with given Hessians; where it cannot be, rounding, with the reason in `fallbacks`."""

    def quantize(name: str, weight: Tensor, rule: Rule, group_size: int) -> Stored:
        algorithms[name] = "rtn"
        if input_of(model, name) is None:
            return nearest_values(name, weight, rule, group_size)
        if name not in hessians:
            fallbacks[name] = "no input was seen"
            return nearest_values(name, weight, rule, group_size)
        damping = TIED_DAMPING if name == "transformer.wte.weight" else DAMPING
        tensor: Stored
        try:
            if rule.palette_rows is not None:
                rows = rule.rows_for(name, weight.shape[0])
                tensor = quantize_palette_gptq(weight, hessians[name], rule.bits, rows, damping)
            else:
                tensor = quantize_gptq(weight, hessians[name], rule.bits, group_size, rule.symmetric, damping)
        except HessianError as error:
            fallbacks[name] = str(error)
            return nearest_values(name, weight, rule, group_size)
        algorithms[name] = "gptq"
        return tensor

    return quantize


def _with_gptq(
    model: Parcae,
    recipe: Recipe,
    calibration: Tensor,
    loops: int | None,
    progress: Progress | None,
    most_bytes: int = BYTES_AT_ONCE,
) -> QuantizedModel:
    """As many passes over the text as the memory for Hessians asks for; each pass frees its own afterwards."""
    chosen, parameters = assign_rules(recipe, model), dict(model.named_parameters())
    fallbacks: dict[str, str] = {}
    algorithms: dict[str, str] = {}
    tensors: dict[str, Stored] = {}
    looked_up = [name for name in chosen if input_of(model, name) is None]
    for group in [looked_up, *passes(model, chosen, most_bytes)]:
        hessians = {}
        if group is not looked_up:
            weights = dict(recipe.loop_weights)
            hessians = collect_hessians(model, calibration, group, loops, progress=progress, weights=weights)
        quantizer = gptq_quantizer(model, hessians, fallbacks, algorithms)
        for name in group:
            rule = chosen[name]
            tensors[name] = quantizer(name, parameters[name], rule, rule.groups_for(name, parameters[name].shape[1]))
            if progress is not None:
                progress(name, len(tensors), len(chosen))
    done = quantize_model(model, recipe, lambda name, *rest: tensors[name])
    notes = short_text_notes(calibration.numel(), max((parameters[n].shape[1] for n in chosen), default=0))
    return replace(done, algorithm="gptq", notes=notes, fallbacks=fallbacks, algorithms=algorithms)


def short_text_notes(tokens: int, widest: int) -> list[str]:
    """A note where text is short for the widest matrix: GPTQ then fits noise and can lose against rounding."""
    if tokens >= TOKENS_PER_COLUMN * widest:
        return []
    wanted = TOKENS_PER_COLUMN * widest
    return [f"calibration text of {tokens} tokens is short for matrices of {widest} columns; give {wanted} or more"]
