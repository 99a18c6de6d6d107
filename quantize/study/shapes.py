"""Bytes, time and memory at the released shapes. Weights are random there: quality is not measured."""

from __future__ import annotations

import resource
import time

import torch

from parcae_mobile.config import RELEASED_SHAPES, released_config
from parcae_mobile.model import Parcae
from parcae_mobile.random_weights import random_model

from ..algorithms import quantize_with
from ..apply import Progress
from ..hessians import calibration_loops
from ..learning_run import PARTS, WINDOWS_PER_STEP, Learning, Run
from ..planning import plan_table, total_bytes
from ..recipe import PRESETS, load_recipe
from ..student import Student
from .markdown import table

WINDOWS, LENGTH = 32, 512
LEARNING_LENGTH = 256  # tokens of a window of learned rounding


def shape_bytes() -> str:
    """Tensor bytes of each released shape under each preset, in MB; no weight is made for it."""
    rows = []
    for shape in RELEASED_SHAPES:
        with torch.device("meta"):
            model = Parcae(released_config(shape))
        sizes = [total_bytes(plan_table(load_recipe(preset), model)) for preset in PRESETS]
        rows.append([shape, *(f"{size / 1e6:.1f}" for size in sizes)])
    return table(["shape", *PRESETS], rows)


def shape_costs(shape: str, algorithm: str, progress: Progress | None = None) -> str:
    """Time and peak memory of quantizing one shape to int4, in this process, which should have done nothing before."""
    model = random_model(released_config(shape))
    ids = torch.randint(0, model.config.vocab_size, (WINDOWS, LENGTH), generator=torch.Generator().manual_seed(0))
    wall, busy = time.monotonic(), time.process_time()
    calibration = ids if algorithm == "gptq" else None
    quantized = quantize_with(model, load_recipe("int4"), algorithm, calibration, progress=progress)
    wall, busy = time.monotonic() - wall, time.process_time() - busy
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    stored = sum(tensor.nbytes for tensor in quantized.tensors.values()) / 1e6
    row = [shape, algorithm, str(torch.get_num_threads()), f"{wall:.0f}", f"{busy:.0f}", f"{peak:.2f}", f"{stored:.1f}"]
    heads = ["shape", "algorithm", "threads", "seconds", "processor seconds", "peak RSS (GiB)", "quantized MB"]
    return table([*heads, "fall-backs"], [[*row, str(len(quantized.fallbacks))]])


def learning_costs(shape: str, steps: int, progress: Progress | None = None) -> str:
    """Seconds of a step of learned rounding and peak memory, from rounded int4, in a process of its own.

    On a GPU where there is one. Loop counts are drawn up to the trained mean; nothing is judged, no text is written.
    """
    model = random_model(released_config(shape))
    generator = torch.Generator().manual_seed(0)
    windows = torch.randint(0, model.config.vocab_size, (8, LEARNING_LENGTH), generator=generator)
    start = quantize_with(model, load_recipe("int4"), "rtn")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    student = Student(model, start, PARTS, device)
    teacher = model if device.type == "cpu" else model.to(device)
    run = Run(teacher, student, windows, None, Learning(steps=steps), (2, calibration_loops(model)), 0)
    clock = time.process_time if device.type == "cpu" else time.perf_counter  # a step ends with a value read back
    spent = []
    for number in range(steps):
        busy = clock()
        run.step(number / steps)
        run.counters.step += 1
        spent.append(clock() - busy)
        if progress is not None:
            progress(f"a step of {spent[-1]:.1f} seconds", number + 1, steps)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    name = "cpu"
    if device.type == "cuda":
        name, peak = torch.cuda.get_device_name(), torch.cuda.max_memory_allocated() / 2**30
    spent = spent[len(spent) // 4 :]  # the first ones warm up
    trained = sum(values.numel() for values in run.trained.values()) / 1e6
    tokens = WINDOWS_PER_STEP * LEARNING_LENGTH
    row = [shape, name, f"{trained:.0f}", str(tokens), str(max(1, run.at_once)), "yes" if run.at_once < 1 else "no"]
    heads = ["shape", "device", "trained values, millions", "tokens a step", "windows at once", "loops computed twice"]
    heads += ["seconds a step (of the processor, on one)", "peak memory (GiB; RSS on a CPU)"]
    return table(heads, [[*row, f"{sum(spent) / len(spent):.2g}", f"{peak:.1f}"]])
