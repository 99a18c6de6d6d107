"""Train a small Parcae.

    python -m training.corpus --out CORPUS
    python -m training.train --corpus CORPUS --out RUN --minutes 75 --width 128
    python -m training.train --corpus CORPUS --out RUN --minutes 75 --width 128 --resume    # goes on where it stopped

The recipe is the paper's (Parcae, 2026): loops per sequence drawn from a Poisson, gradients through the last few
alone, a random first state, Muon and AdamW, a trapezoidal schedule over `--minutes` (or `--steps`). One run is a
function of its seed, except that with `--minutes` the clock decides the rates and the end.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from tokenizers import Tokenizer

from parcae_mobile.config import ParcaeConfig
from parcae_mobile.model import Parcae

from .batches import Batches, even_windows, read_tokens
from .checkpoints import load_state, save_model, save_state, trainable
from .loops import Stages, draw_loops, draw_state, looped_loss, windows_loss
from .schedule import optimisers, set_rates, trapezoid
from .shape import new_model, small_config

SAVE_SECONDS = 120
EVALUATE_SECONDS = 240


@dataclass(frozen=True)
class Recipe:
    """What a run is a function of."""

    minutes: float | None = None
    steps: int | None = None
    sequence: int = 256
    batch: int = 12
    micro_batch: int = 12
    long_share: float = 0.0
    muon_rate: float = 0.012
    embedding_rate: float = 0.008
    clip: float = 1.0
    seed: int = 1
    half: bool = True
    compiled: bool = False

    def progress(self, step: int, seconds: float) -> float:
        """Share of the run that is done, by the clock or by steps."""
        if self.minutes is not None:
            return min(1.0, seconds / (60 * self.minutes))
        return min(1.0, step / (self.steps or 1))


class Run:
    """A model, its optimisers and its place in the run."""

    def __init__(self, model: Parcae, recipe: Recipe, tokens: np.ndarray, device: str, out: Path) -> None:
        self.model, self.recipe = model.to(device).train(), recipe
        self.stages = Stages.of(self.model, recipe.compiled)
        self.batches = Batches(tokens, recipe.sequence, recipe.batch, recipe.seed)
        self.long_batches = Batches(tokens, 2 * recipe.sequence, recipe.batch // 2, recipe.seed + 1)
        self.device, self.out = device, out
        self.optimisers = optimisers(self.model, recipe.muon_rate, recipe.embedding_rate)
        self.step, self.seconds = 0, 0.0
        self.curve: list[dict[str, float]] = []

    @property
    def progress(self) -> float:
        return self.recipe.progress(self.step, self.seconds)

    def advance(self) -> float:
        """One step; returns its mean loss in nats per token."""
        recipe = self.recipe
        set_rates(self.optimisers, self.step, self.progress)
        generator = torch.Generator().manual_seed(7_368_787 * recipe.seed + self.step)
        batches = self.long_batches if self.progress > 1 - recipe.long_share else self.batches
        text = batches(self.step)
        config = self.model.config
        total = 0.0
        for part in text.split(recipe.micro_batch):
            counts = draw_loops(len(part), config.mean_recurrence, generator)
            state = draw_state(self.model, len(part), part.shape[1] - 1, generator).to(self.device)
            part = part.to(self.device)
            loss = looped_loss(self.model, self.stages, part, counts, state, config.mean_backprop_depth, recipe.half)
            share = len(part) / len(text)
            (loss * share).backward()
            total += loss.item() * share
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip)
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad()
        self.step += 1
        return total

    def save(self, tokenizer: Path) -> None:
        """Write the checkpoint and everything that resuming needs."""
        save_model(self.model, self.out, tokenizer=tokenizer)
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
        }
        save_state(self.out, state, self.curve)

    def restore(self) -> None:
        """Take up the state that `save` wrote; the model was loaded from the same folder."""
        state, self.curve = load_state(self.out)
        self.step, self.seconds = state["step"], state["seconds"]
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)


def train(run: Run, tokenizer: Path, windows: torch.Tensor | None = None, stop_after: int | None = None) -> None:
    """Run to the end (or for `stop_after` steps), saving as it goes. `windows` are text for the validation loss."""
    console = Console(file=sys.stderr)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    first, last_saved, last_checked, smooth = run.step, run.seconds, run.seconds, None
    tokens_per_step = run.recipe.batch * run.recipe.sequence
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("training", total=1.0)
        while run.progress < 1 and (stop_after is None or run.step - first < stop_after):
            begun = time.perf_counter()
            loss = run.advance()
            run.seconds += time.perf_counter() - begun
            smooth = loss if smooth is None else 0.95 * smooth + 0.05 * loss
            if run.step % 20 == 0:
                rate = tokens_per_step * run.step / run.seconds
                point = {
                    "step": run.step,
                    "tokens": run.step * tokens_per_step,
                    "seconds": round(run.seconds, 1),
                    "loss": round(smooth, 4),
                    "rate": round(trapezoid(run.step, run.progress), 4),
                }
                if windows is not None and run.seconds - last_checked > EVALUATE_SECONDS:
                    run.model.eval()
                    point["validation"] = round(windows_loss(run.model, windows, run.model.config.mean_recurrence), 4)
                    run.model.train()
                    last_checked = run.seconds
                run.curve.append(point)
                bar.update(task, completed=run.progress, description=f"step {run.step} loss {smooth:.3f}")
                if not console.is_terminal:
                    check = f" validation {point['validation']:.3f}" if "validation" in point else ""
                    line = f"step {run.step} {run.seconds:.0f} s {rate:.0f} tokens/s loss {smooth:.3f}{check}"
                    print(line, file=sys.stderr, flush=True)
            if run.seconds - last_saved > SAVE_SECONDS:
                run.save(tokenizer)
                last_saved = run.seconds
    run.save(tokenizer)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train a small Parcae on a prepared corpus.")
    parser.add_argument("--corpus", type=Path, required=True, help="folder that python -m training.corpus wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--minutes", type=float, help="length of the run on the clock")
    parser.add_argument("--steps", type=int, help="length of the run in steps, instead of --minutes")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    parser.add_argument("--width", type=int, default=128, help="channels (default 128)")
    parser.add_argument("--mean-loops", type=int, default=6, help="mean recurrence (default 6)")
    parser.add_argument("--depth", type=int, default=2, help="loops that carry gradients (default 2)")
    parser.add_argument("--sequence", type=int, default=Recipe.sequence, help="tokens of a window")
    parser.add_argument("--batch", type=int, default=Recipe.batch, help="windows of a step")
    parser.add_argument("--micro-batch", type=int, help="windows computed at once (default: all)")
    parser.add_argument("--muon-rate", type=float, default=Recipe.muon_rate)
    parser.add_argument("--embedding-rate", type=float, default=Recipe.embedding_rate)
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--long-share", type=float, default=0.15, help="last part, with windows twice as long")
    parser.add_argument("--compile", action="store_true", help="torch.compile: 1.4 times as fast after a minute")
    parser.add_argument("--fp32", action="store_true", help="no bf16 products")
    parser.add_argument("--resume", action="store_true", help="go on from the state in --out")
    return parser.parse_args()


def main() -> None:
    quiet_norms()
    options = arguments()
    if (options.minutes is None) == (options.steps is None):
        raise SystemExit("give the length of the run: either --minutes or --steps")
    if options.out.joinpath("state.pt").exists() and not options.resume:
        raise SystemExit(f"{options.out} holds a run already: add --resume, or give another folder")
    tokenizer = options.corpus / "tokenizer.json"
    config = small_config(
        options.width,
        Tokenizer.from_file(str(tokenizer)).get_vocab_size(),
        mean_loops=options.mean_loops,
        depth=options.depth,
    )
    recipe = Recipe(
        minutes=options.minutes,
        steps=options.steps,
        sequence=options.sequence,
        batch=options.batch,
        micro_batch=options.micro_batch or options.batch,
        muon_rate=options.muon_rate,
        embedding_rate=options.embedding_rate,
        seed=options.seed,
        long_share=options.long_share,
        half=not options.fp32,
        compiled=options.compile,
    )
    model = _resumed(options.out, config) if options.resume else new_model(config, options.seed)
    run = Run(model, recipe, read_tokens(options.corpus, "train"), options.device, options.out)
    if options.resume:
        run.restore()
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters", file=sys.stderr, flush=True)
    windows = even_windows(read_tokens(options.corpus, "calibration"), 256, 32).to(options.device)
    train(run, tokenizer, windows)


def quiet_norms() -> None:
    """Silence the note that under autocast the coda's norms read bf16 with fp32 weights, which is meant."""
    warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")


def _resumed(folder: Path, config: ParcaeConfig) -> Parcae:
    model = trainable(folder)
    if replace(model.config, name=config.name) != config:
        raise SystemExit(f"the run in {folder} has another shape; give the --width and loops that it was started with")
    return model


if __name__ == "__main__":
    main()
