"""Bits against loops: how the error of a quantized looped model changes with T, and what its poles say about that.

    python -m quantize.study.bits_and_loops                # a page and a picture in build/bits-and-loops
    python -m quantize.study.bits_and_loops --steps 200 --keep build/bits    # with learned rounding; can go on

KL and top-1 agreement against the fp32 model at the same T, and a cloze score: how often the token that follows in the
text is likelier than nine others drawn from the same text. Windows are the reported ones (`bench.reported_windows`).
`--steps` are those of learned rounding, which is left out by default; `--keep FOLDER` keeps its runs and what was
measured, model by model, and uses again what is there for the same number of steps.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from parcae_mobile.errors import ParcaeError, UsageError
from parcae_mobile.model import Parcae
from parcae_mobile.parity import compare, state_changes, state_error
from parcae_mobile.text import EMBEDDED_MODEL
from parcae_mobile.tokenizer import TextTokenizer

from ..algorithms import gptq_quantizer, quantize_with
from ..apply import quantize_model, rtn
from ..compression import logits_of, states_at
from ..guard import max_decay
from ..hessians import collect_hessians
from ..learning_run import Learning
from ..recipe import Recipe, assign_rules, load_recipe
from .bench import LENGTH, Bench
from .bits_plot import draw
from .markdown import table

OUT = Path("build/bits-and-loops")
MODELS = {"embedded": EMBEDDED_MODEL, "floor": Path("tests/data/tiny-trained"), "slow": Path("tests/data/slow-loop")}
LOOPS = (1, 2, 4, 8, 12, 16)
WINDOWS, CHOICES = 8, 10
LEARNED = ("int4", "int4-small")  # the recipes that are learned too; the others have too little to move, or no target


INTRODUCTION = """\
Does the error of rounded weights grow with the number of loops? Not on models whose loop settles: it is
greatest at T=1, falls until the loop has settled, and stays. On a loop that settles slowly it grows again with
T, by less than its poles allow. KL and top-1 are against the fp32 model at the same T, on 8 windows of 256
held-out tokens that no choice of a recipe looked at; cloze is how often the token that follows in the text is
likelier than nine others. Made by `python -m quantize.study.bits_and_loops`, which says more about both. An
error made at each loop by a map that shrinks distances by r adds up to (1 - r^T) / (1 - r) times itself: the
last table compares that with what was measured. Rows `learned` are there with `--steps 300`, which
uses a GPU where there is one."""


@dataclass(frozen=True)
class Point:
    """One recipe and algorithm at one T. `cloze` of the fp32 model is in the points of the recipe "fp32"."""

    recipe: str
    algorithm: str
    loops: int
    kl: float
    top1: float
    cloze: float
    state_error: float


def recipes() -> list[Recipe]:
    """The presets, and int4 with value embeddings, the largest part, in 3 and in 2 bits."""
    base, variants = load_recipe("int4"), [load_recipe(name) for name in ("int8", "int4", "int4-small")]
    for bits in (3, 2):
        rules = tuple(replace(rule, bits=bits) if rule.match == "value_embeds.*" else rule for rule in base.rules)
        variants.append(replace(base, name=f"int4, value tables int{bits}", rules=rules))
    return variants


class Judge:
    """The fp32 model's logits on windows (n, length + 1), and the wrong answers of the cloze."""

    def __init__(self, model: Parcae, windows: Tensor, seed: int = 0) -> None:
        self.model, self.inputs, self.targets = model, windows[:, :-1], windows[:, 1:]
        self.states = states_at(model, self.inputs, LOOPS)
        self.logits = {loops: logits_of(model, state, self.inputs) for loops, state in self.states.items()}
        generator = torch.Generator().manual_seed(seed)
        pool = windows.flatten()
        places = torch.randint(0, len(pool), (*self.targets.shape, CHOICES - 1), generator=generator)
        self.wrong = pool[places]

    def measure(self, model: Parcae, recipe: str, algorithm: str) -> list[Point]:
        """A point for each loop count."""
        states, points = states_at(model, self.inputs, LOOPS), []
        for loops in LOOPS:
            logits = logits_of(model, states[loops], self.inputs)
            d = compare(self.logits[loops], logits, keep=self.model.config.vocab_size)
            error = state_error(self.states[loops], states[loops])
            points.append(Point(recipe, algorithm, loops, d.kl_mean, d.top1, self.cloze(logits), error))
        return points

    def cloze(self, logits: Tensor) -> float:
        """Share of positions whose next token is likelier than all the wrong ones; equal tokens are no rivals."""
        right = logits.gather(2, self.targets[..., None])
        others = logits.gather(2, self.wrong)
        others = others.masked_fill(self.wrong == self.targets[..., None], -torch.inf)
        return float((right[..., 0] > others.amax(-1)).float().mean())


def measure(name: str, steps: int, keep: Path | None) -> tuple[Bench, list[Point]]:
    """All points of a model; `keep` is a folder for them and for runs of learned rounding."""
    folder, file = MODELS[name], None if keep is None else keep / f"{name}-{steps}.json"
    bench = Bench.open(folder)
    if file is not None and file.exists():
        return bench, [Point(**values) for values in json.loads(file.read_text(encoding="utf-8"))]
    judge = Judge(bench.model, bench.reported[:WINDOWS])
    points = judge.measure(bench.model, "fp32", "")
    hessians = collect_hessians(bench.model, bench.calibration(), assign_rules(load_recipe("int4"), bench.model))
    fitted = gptq_quantizer(bench.model, hessians, {}, {})
    for recipe in recipes():
        for algorithm, quantizer in (("rtn", rtn), ("gptq", fitted)):
            started = time.process_time()
            points += judge.measure(quantize_model(bench.model, recipe, quantizer).model, recipe.name, algorithm)
            _report(f"{name}: {recipe.name}, {algorithm}", started)
        if steps and recipe.name in LEARNED:
            started = time.process_time()
            state = None if keep is None else keep / f"{name}-{recipe.name}-{steps}.state"
            points += judge.measure(learn(bench, folder, recipe, steps, state), recipe.name, "learned")
            _report(f"{name}: {recipe.name}, learned", started)
    if file is not None:
        file.write_text(json.dumps([asdict(point) for point in points]), encoding="utf-8")
    return bench, points


def learn(bench: Bench, folder: Path, recipe: Recipe, steps: int, state: Path | None) -> Parcae:
    """The model by `--algorithm learned` on all calibration text."""
    tokenizer = TextTokenizer.load(folder)
    windows = bench.text.windows(len(bench.text.ids) // LENGTH, LENGTH - 1)
    learning = Learning(steps, state=state, first_token=None if tokenizer is None else tokenizer.bos)
    return quantize_with(bench.model, recipe, "learned", windows, learning=learning).model


def _report(line: str, started: float) -> None:
    print(f"{line} ({time.process_time() - started:.0f} processor seconds)", file=sys.stderr, flush=True)


def rows(points: Sequence[Point]) -> str:
    """KL by T, its growth, and at T=8 top-1 and cloze beside the fp32 model's."""
    plain = {point.loops: point.cloze for point in points if point.recipe == "fp32"}
    lines = []
    for recipe, algorithm in dict.fromkeys((p.recipe, p.algorithm) for p in points if p.recipe != "fp32"):
        by_loops = {p.loops: p for p in points if (p.recipe, p.algorithm) == (recipe, algorithm)}
        kls = [f"{by_loops[loops].kl:.5f}" for loops in LOOPS]
        ends = [f"{by_loops[loops].cloze - plain[loops]:+.2%}" for loops in (1, 8, 16)]
        tops = [f"{by_loops[loops].top1:.1%}" for loops in (1, 8, 16)]
        lines.append(
            [recipe, algorithm, *kls, f"{by_loops[16].kl / by_loops[4].kl:.3f}", " / ".join(tops), " / ".join(ends)]
        )
    heads = ["recipe", "algorithm", *(f"T={loops}" for loops in LOOPS), "T=16 / T=4"]
    return table([*heads, "top-1 at T=1 / 8 / 16", f"cloze less fp32's ({plain[8]:.1%} at T=8)"], lines)


def prediction(measured: dict[str, tuple[Bench, list[Point]]]) -> str:
    """What poles and the measured contraction say that errors do from T=4 to T=16, and what they do.

    An error d made at each loop by a map that shrinks distances by r adds up to d (1 - r^T) / (1 - r).
    """
    lines = []
    for name, (bench, points) in measured.items():
        decay = bench.model.transformer["adapter"].decay()
        changes = state_changes(bench.model, bench.windows[:4, :-1], 16)
        shrinks = [later / earlier for earlier, later in zip(changes, changes[1:], strict=False)]
        measured_rate = sum(shrinks[2:7]) / len(shrinks[2:7])  # from loop 4 on
        said = [f"{grown(rate):.2f}" for rate in (max_decay(bench.model) or 0.0, float(decay.mean()), measured_rate)]
        chosen = {p.loops: p for p in points if (p.recipe, p.algorithm) == ("int4", "gptq")}
        ratios = [f"{chosen[16].state_error / chosen[4].state_error:.3f}", f"{chosen[16].kl / chosen[4].kl:.3f}"]
        rates = [f"{max_decay(bench.model) or 0:.3f}, {float(decay.mean()):.3f}", f"{measured_rate:.3f}"]
        lines.append([name, *rates, *said, *ratios])
    said = ["greatest pole", "mean pole", "measured contraction"]
    heads = ["model", "poles: greatest, mean", "contraction from loop 4 on", *(f"error x by {how}" for how in said)]
    return table([*heads, "state error x, measured", "KL x, measured"], lines)


def page(measured: dict[str, tuple[Bench, list[Point]]]) -> str:
    """Markdown of all tables."""
    parts = ["# Bits and loops", INTRODUCTION, "![KL against loops, for each recipe and model](bits-and-loops.svg)"]
    for name, (_, points) in measured.items():
        parts += [f"## {name}", rows(points)]
    return "\n\n".join([*parts, "## Do the poles predict it?", prediction(measured)]) + "\n"


def grown(rate: float) -> float:
    """How much more error there is after 16 loops than after 4."""
    return 4.0 if rate >= 1 else (1 - rate**16) / (1 - rate**4)


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m quantize.study.bits_and_loops", description=__doc__)
    parser.add_argument("--models", default=",".join(MODELS), help=f"comma-separated: {', '.join(MODELS)}")
    parser.add_argument("--steps", type=int, default=0, help="of learned rounding; 0 leaves it out")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the page and the picture")
    parser.add_argument("--keep", type=Path, help="folder for what was measured and for learned runs, made if need be")
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        names = options.models.split(",")
        if unknown := [name for name in names if name not in MODELS]:
            raise UsageError(f"--models {unknown[0]}: there are {', '.join(MODELS)}")
        if missing := [name for name in names if not MODELS[name].is_dir()]:
            raise UsageError(f"{MODELS[missing[0]]} is not here; run this in the repository's root")
        if options.keep is not None:
            options.keep.mkdir(parents=True, exist_ok=True)
        measured = {name: measure(name, options.steps, options.keep) for name in names}
        options.out.mkdir(parents=True, exist_ok=True)
        draw({name: points for name, (_, points) in measured.items()}, options.out / "bits-and-loops.svg")
        text = page(measured)
        (options.out / "bits-and-loops.md").write_text(text, encoding="utf-8")
        print(text)
    except ParcaeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
