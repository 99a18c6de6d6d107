"""Learned rounding: integers, scales and norm gains trained against the fp32 model's logits through the unrolled loop.

    learning = Learning(steps=300, first_token=tokenizer.bos)
    quantized = learn(model, quantized, windows, learning, seed=0)

It starts from GPTQ's integers. Each step draws windows of calibration text and of text that the fp32 model writes, and
a loop count, and lowers the mean KL(fp32 || quantized) of all positions (`learning_run.py`). Some windows of the
calibration text are held back: nothing is trained on them, and the step that does best on them, in the form that is
stored, is the one that is kept. The injection is left alone unless the recipe says `train_injection = true`.

The same seed, text and number of steps give the same integers on one kind of machine; a limit in minutes does not
promise that. Memory: weights, their gradients, latents and Adam's two moments, five fp32 copies of what is trained, and
the activations of as many windows as fit `ACTIVATION_BYTES`; where one window does not fit, loops are computed twice.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor

from parcae_mobile.errors import TextError
from parcae_mobile.model import Parcae
from parcae_mobile.parity import state_changes

from .apply import Progress, QuantizedModel
from .compression import HeldOut
from .hessians import calibration_loops
from .learning_run import HELD_BACK, Learning, Run
from .learning_state import checksum
from .student import Student

SETTLED = 0.05  # a loop that changes the state by less than this is the last that training needs


def learn(
    reference: Parcae,
    quantized: QuantizedModel,
    windows: Tensor,
    learning: Learning,
    seed: int = 0,
    progress: Progress | None = None,
) -> QuantizedModel:
    """The quantized model after learning on `windows` (n, length) int64, some of which are held back.

    Raises `UsageError` for settings that cannot be meant, `TextError` for too little text, `InputError` for a state
    file of another run, `TensorValueError` if the loss is not finite.
    """
    learning.check()
    training, judges = hold_back(windows)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    teacher = reference if device.type == "cpu" else copy.deepcopy(reference).to(device)
    loops = learning.loops or loop_range(reference, judges[:4])
    student = Student(reference, quantized, learning.parts, device)
    held_out = HeldOut(teacher, judges.to(device), (loops[1],))
    run = Run(teacher, student, training, held_out, learning, loops, seed)
    settings = replace(learning, state=None)
    parts = [part for tensor in quantized.tensors.values() for part in (tensor.integers, tensor.scales)]
    run.resume(checksum(f"{settings!r} {seed} {sorted(learning.parts)} {device.type}", [windows, *parts]))
    for done, total, line in run.steps():
        if progress is not None:
            progress(line, done, total)
    return run.best()


def hold_back(windows: Tensor) -> tuple[Tensor, Tensor]:
    """Windows to train on and windows to judge on, the latter spread over the text.

    Raises `TextError` for fewer than twice as many as judge.
    """
    if len(windows) < 2 * HELD_BACK:
        raise TextError(
            f"{len(windows)} windows of {windows.shape[1]} calibration tokens: learned rounding needs {2 * HELD_BACK} "
            "or more, for it holds some back; give a longer --calibration, or --algorithm gptq"
        )
    chosen = torch.linspace(0, len(windows) - 1, HELD_BACK + 2).round().long()[1:-1]
    used = torch.ones(len(windows), dtype=torch.bool)
    used[chosen] = False
    return windows[used], windows[chosen]


def loop_range(reference: Parcae, windows: Tensor) -> tuple[int, int]:
    """Loop counts to train at: from 2 to the loop that changes the state by less than `SETTLED`, or to all.

    Beyond it the state, and the error in it, hardly move.
    """
    most = calibration_loops(reference)
    changes = state_changes(reference, windows, most)
    settled = next((loop for loop, change in enumerate(changes, 2) if change < SETTLED), most)
    return min(2, settled), settled
