"""What learned rounding gives on text that no choice looked at, step by step: GPTQ, integers moved, learned."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from parcae_mobile.tokenizer import TextTokenizer

from ..algorithms import START_WINDOWS, quantize_with, spread
from ..apply import QuantizedModel
from ..compression import HeldOut
from ..fisher import refine_by_fisher
from ..learned import hold_back, learn
from ..learning_run import Learning
from ..recipe import Recipe, load_recipe
from .bench import LENGTH, LOOPS, Bench
from .markdown import table

RECIPES = ("int4", "int4-zero-points", "int4-small")


def learned(bench: Bench, folder: Path, recipes: tuple[str, ...] = RECIPES, learning: Learning | None = None) -> str:
    """KL at T=4 and 8, top-1 and growth of each stage, as `--algorithm learned` makes them."""
    tokenizer = TextTokenizer.load(folder)
    learning = learning or Learning(first_token=None if tokenizer is None else tokenizer.bos)
    windows = bench.text.windows(len(bench.text.ids) // LENGTH, LENGTH - 1)
    held_out, rows = HeldOut(bench.model, bench.reported, (4, LOOPS, 16)), []
    for name in recipes:
        fitted, moved = starts(bench, load_recipe(name), windows)
        final = learn(bench.model, moved, windows, learning)
        for stage, quantized in (("gptq", fitted), ("integers moved", moved), ("learned", final)):
            distances = held_out.measure(quantized.model)[0]
            d, kls = distances[LOOPS], [f"{distances[loops].kl_mean:.5f}" for loops in (4, LOOPS)]
            tails = [f"{d.kl_sem:.5f}", f"{d.top1:.2%}", f"{distances[16].kl_mean / distances[4].kl_mean:.3f}"]
            rows.append([name, stage, *kls, *tails])
    return table(["recipe", "stage", "KL T=4", f"T={LOOPS}", "s.e.", "top-1", "KL T=16 / T=4"], rows)


def starts(bench: Bench, recipe: Recipe, windows: Tensor) -> tuple[QuantizedModel, QuantizedModel]:
    """The recipe by GPTQ, and after its integers were moved: what `--algorithm learned` starts from."""
    seen = spread(hold_back(windows)[0], START_WINDOWS)
    fitted = quantize_with(bench.model, recipe, "gptq", seen)
    return fitted, refine_by_fisher(bench.model, fitted, seen)
