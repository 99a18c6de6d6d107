"""Second moments of the inputs of a model's matrices over calibration text: sums of x x^T, with every loop counted.

    hessians = collect_hessians(model, windows, assign_rules(recipe, model), loops=8)
    hessians["transformer.core_block.0.mlp.fc.weight"]     # (columns, columns) fp32, summed over all 8 loops
    collect_hessians(model, windows, names, weights={4: 1, 8: 3})  # T=8 runs three times as often as T=4

The recurrent block meets another distribution of states at each loop, so its sums run over all of them; `C`, the coda
and the head meet the state of whatever loop was the last, so theirs run over several exits. A tied head has the
moments of the head's input. Tables that are only looked up have no input and get none.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from parcae_mobile.errors import TensorValueError, TextError
from parcae_mobile.model import Parcae, check_loops

from .apply import Progress

TOKENS_AT_ONCE = 2048
BYTES_AT_ONCE = 2 * 1024**3  # moments that are held together; beyond it the text is read again for the rest


def calibration_loops(model: Parcae) -> int:
    """Loops of a calibration pass: those that the model was trained with on average, and at least 8 where it loops."""
    return 1 if model.config.plain else max(8, model.config.mean_recurrence)


def exit_loops(loops: int) -> tuple[int, ...]:
    """Loop counts after which `C`, coda and head are measured: 2, half and all."""
    return tuple(sorted({min(2, loops), max(1, loops // 2), loops}))


def collect_hessians(
    model: Parcae,
    windows: Tensor,
    names: Iterable[str],
    loops: int | None = None,
    counted: Collection[int] | None = None,
    exits: Sequence[int] | None = None,
    progress: Progress | None = None,
    weights: Mapping[int, float] | None = None,
) -> dict[str, Tensor]:
    """Moments (columns, columns) fp32 by parameter name, for those of `names` that multiply an input.

    `windows` (n, length) int64; `counted` are the loops (from 1) that the recurrent block's sums take, all if not
    given. `weights` (loop count -> how often it is used) stand for all three: loop t counts as often as loop counts of
    at least t are used, an exit as often as its own; a plain model has none. Parameters with the same input share a
    tensor. Raises `TensorValueError` for inputs that are not finite.
    """
    loops = calibration_loops(model) if loops is None else loops
    weights = None if model.config.plain else weights
    loops = max(weights) if weights else loops
    check_loops(loops)
    if windows.dim() != 2 or windows.numel() == 0:
        raise TextError(f"calibration windows of shape {tuple(windows.shape)}: give (count, length) ids")
    wanted = {name: source for name in names if (source := input_of(model, name)) is not None}
    meter = _Meter(model, set(wanted.values()))
    of_loops = dict.fromkeys(range(1, loops + 1) if counted is None else counted, 1.0)
    of_exits = dict.fromkeys(exit_loops(loops) if exits is None else exits, 1.0)
    if weights:
        of_loops = {t: sum(used for count, used in weights.items() if count >= t) for t in range(1, loops + 1)}
        of_exits = dict(weights)
    try:
        _run(model, windows, loops, of_loops, of_exits, meter, progress)
    finally:
        meter.remove()
    for source, moments in meter.sums.items():  # in the order of computation, so the first one named is the cause
        if not torch.isfinite(moments).all():
            name = next(name for name in wanted if wanted[name] == source)
            raise TensorValueError(f"{name}: its inputs on the calibration text are NaN or infinite; check the model")
    return {name: meter.sums[source] for name, source in wanted.items() if source in meter.sums}


def input_of(model: Parcae, name: str) -> str | None:
    """The measured place whose values a parameter multiplies; None for a table that is only looked up.

    Queries, keys and values of a layer share one place, and so do a tied table and its head.
    """
    if name == "transformer.wte.weight":
        return "lm_head" if model.config.tie_embeddings else None
    if name.startswith("value_embeds."):
        return None
    place = name.removesuffix(".weight")
    return place.replace(".attn.c_k", ".attn.c_q").replace(".attn.c_v", ".attn.c_q")


def passes(model: Parcae, names: Iterable[str], most_bytes: int = BYTES_AT_ONCE) -> list[list[str]]:
    """Names in groups whose moments fit `most_bytes` together, in the model's order; one at least in each."""
    parameters = dict(model.named_parameters())
    groups: list[list[str]] = []
    sizes: dict[str, int] = {}
    for name in names:
        source = input_of(model, name)
        if source is None:
            continue
        nbytes = 4 * parameters[name].shape[1] ** 2
        if not groups or (source not in sizes and sum(sizes.values()) + nbytes > most_bytes):
            groups.append([])
            sizes = {}
        groups[-1].append(name)
        sizes[source] = nbytes
    return groups


class _Meter:
    """Hooks that add `weight` times x^T x of what enters the watched places."""

    def __init__(self, model: Parcae, places: set[str]) -> None:
        self.sums: dict[str, Tensor] = {}
        self.places, self.weight = places, 1.0
        modules = dict(model.named_modules())
        self._handles = []
        for place in places:
            module = modules.get(place)
            if isinstance(module, nn.Linear) and place != "lm_head":
                self._handles.append(module.register_forward_pre_hook(self._hook(place)))

    def add(self, place: str, x: Tensor) -> None:
        """Add the moments of (..., columns), if the place is watched."""
        if not self.weight or place not in self.places:
            return
        flat = x.reshape(-1, x.shape[-1]).float()
        if place in self.sums:
            self.sums[place].addmm_(flat.T, flat, alpha=self.weight)
        else:
            self.sums[place] = (flat.T @ flat).mul_(self.weight)

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _hook(self, place: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda module, inputs: self.add(place, inputs[0])


@torch.no_grad()
def _run(
    model: Parcae,
    windows: Tensor,
    loops: int,
    of_loops: Mapping[int, float],
    of_exits: Mapping[int, float],
    meter: _Meter,
    progress: Progress | None,
) -> None:
    before_injection = _last_of_prelude(model).register_forward_hook(
        lambda module, inputs, output: meter.add("transformer.adapter.B", output)
    )
    try:
        batches = windows.split(max(1, TOKENS_AT_ONCE // windows.shape[1]))
        for number, ids in enumerate(batches, 1):
            injected, values = model.prelude(ids, model.slots("prelude", ids))
            state = model.zero_state(injected)
            for loop in range(1, loops + 1):
                meter.weight = of_loops.get(loop, 0.0)
                state = model.recur(state, injected, values, model.slots("core_block", ids))
                if loop in of_exits:
                    meter.weight = of_exits[loop]
                    meter.add("lm_head", _head_input(model, state, ids))
                meter.weight = 1.0
            if progress is not None:
                progress("calibration", number, len(batches))
    finally:
        before_injection.remove()


def _head_input(model: Parcae, state: Tensor, ids: Tensor) -> Tensor:
    """What `model.coda` gives to the head, without the logits, which cost more than the coda itself."""
    x = model.transformer["C"](state)
    values, slots = model.value_embeddings("coda", ids), model.slots("coda", ids)
    for block, value, slot in zip(_layers(model, "coda"), values, slots, strict=True):
        x = block(x, value, slot)
    return model.transformer["ln_f"](x)


def _layers(model: Parcae, stage: str) -> nn.ModuleList:
    return cast(nn.ModuleList, model.transformer[stage])


def _last_of_prelude(model: Parcae) -> nn.Module:
    if model.config.prelude_norm:
        return cast(nn.Module, model.transformer["ln_prelude"])
    layers = _layers(model, "prelude")
    return layers[-1] if len(layers) else cast(nn.Module, model.transformer["wte"])
