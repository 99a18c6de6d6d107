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
from ..planning import plan_table, total_bytes
from ..recipe import PRESETS, load_recipe
from .markdown import table

WINDOWS, LENGTH = 32, 512


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
