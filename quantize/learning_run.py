"""The steps of learned rounding: draw text and a loop count, lower the KL, judge now and then, keep the best.

    run = Run(teacher, student, windows, held_out, Learning(steps=300), loops=(2, 5), seed=0)
    run.resume(key)                                        # goes on from the state file, if there is one
    for done, total, line in run.steps(): ...
    quantized = run.best()

Adam, its rates falling along a half cosine, through the whole unrolled loop.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from parcae_mobile.config import ParcaeConfig
from parcae_mobile.errors import TensorValueError, UsageError
from parcae_mobile.model import Parcae

from .apply import QuantizedModel, with_tensors
from .compression import HeldOut
from .learning_state import Counters, State
from .selfwritten import SelfWritten
from .student import Student

STEPS = 300
WINDOWS_PER_STEP = 4
HELD_BACK = 16  # windows of the calibration text that judge
JUDGEMENTS = 8  # how often they do
ROUNDING_RATE, RATE = 0.005, 2e-3  # of Adam: on latents, in steps of their integers; on log scales and on gains
WARM_UP = 10  # steps
WRITTEN = 0.7  # share of the windows that the model writes itself
PARTS = frozenset(("rounding", "scales", "gains"))
ACTIVATION_BYTES = 2 * 1024**3


@dataclass(frozen=True)
class Learning:
    """How long to learn, and on what. `minutes` ends it early, by the clock; `state` is a file to go on from.

    `first_token` begins what the model writes itself; without it there is calibration text alone. `loops` is the range
    that loop counts are drawn from (see `loop_range`); `through` the last loops that gradients pass, all if not given.
    """

    steps: int = STEPS
    minutes: float | None = None
    state: Path | None = None
    first_token: int | None = None
    rounding_rate: float = ROUNDING_RATE
    rate: float = RATE
    written: float = WRITTEN
    parts: frozenset[str] = PARTS
    loops: tuple[int, int] | None = None
    through: int | None = None

    def check(self) -> None:
        """Raise `UsageError` for what cannot be meant."""
        if self.steps < 1:
            raise UsageError(f"--learn-steps {self.steps}: give 1 or more")
        if self.minutes is not None and not self.minutes > 0:
            raise UsageError(f"--learn-minutes {self.minutes:g}: give more than 0")


class Run:
    """One run: its teacher, student, optimizer, text, and where it stands."""

    def __init__(
        self,
        teacher: Parcae,
        student: Student,
        windows: Tensor,
        judges: HeldOut | None,
        learning: Learning,
        loops: tuple[int, int],
        seed: int,
    ) -> None:
        self.teacher, self.student, self.learning, self.loops = teacher, student, learning, loops
        self.windows, self.judges, self.counters = windows, judges, Counters()
        self.curve: list[tuple[int, float, float]] = []
        self.generator = torch.Generator().manual_seed(seed)
        self.pages = None
        if learning.first_token is not None and learning.written > 0:
            self.pages = SelfWritten(teacher, learning.first_token, windows.shape[1], seed)
        self.trained = student.trained()
        for values in self.trained.values():
            values.requires_grad_(True)
        self.optimizer = torch.optim.Adam(
            [{"params": [values], "rate": self._rate(name)} for name, values in self.trained.items()], betas=(0.9, 0.95)
        )
        self.at_once = windows_at_once(teacher.config, windows.shape[1], loops[1])
        self.best_values: dict[str, Tensor] = {}
        self.key = ""

    def resume(self, key: str) -> None:
        """Go on from the state file, if there is one."""
        self.key = key
        state = None if self.learning.state is None else State.load(self.learning.state, key, self.trained)
        if state is None:
            return
        self.counters, self.curve = state.counters, state.curve
        tensors = state.tensors
        self.generator.set_state(tensors["generator"])
        if self.pages is not None:
            self.pages.taken = self.counters.taken
        with torch.no_grad():
            for name, values in self.trained.items():
                values.copy_(tensors[name])
                if f"{name}.mean" in tensors:
                    moments = {"exp_avg": tensors[f"{name}.mean"], "exp_avg_sq": tensors[f"{name}.square"]}
                    self.optimizer.state[values] = {n: t.to(values.device) for n, t in moments.items()} | {
                        "step": torch.tensor(float(self.counters.step))
                    }
        self.best_values = {name.removeprefix("best."): t for name, t in tensors.items() if name.startswith("best.")}

    def steps(self) -> Iterator[tuple[int, int, str]]:
        """Learn; yields steps done, steps in all, and a line about them."""
        counters, total = self.counters, self.learning.steps
        if not self.best_values:
            self._judge(0.0)
            counters.first_kl = counters.best_kl
        every, recent = max(1, total // JUDGEMENTS), list[float]()
        begun = time.monotonic() - counters.seconds
        while not counters.done:
            share = self._share(counters.seconds)
            recent.append(self.step(share))
            counters.step += 1
            counters.seconds = time.monotonic() - begun
            after = self._share(counters.seconds)
            counters.done = after >= 1
            if counters.done or counters.step % every == 0:
                self._judge(sum(recent) / len(recent))
                recent.clear()
            yield counters.step, total, self._line(after)

    def _share(self, seconds: float) -> float:
        """How much of the run is over: by steps, or by the clock if that says more."""
        limit = self.learning.minutes
        share = self.counters.step / self.learning.steps
        return share if limit is None else max(share, seconds / (60 * limit))

    def _line(self, share: float) -> str:
        left = self.counters.seconds * (1 - share) / share if share > 0 else 0.0
        start, best = self.counters.first_kl, self.counters.best_kl
        return f"learned rounding: held-back KL {start:.4f} -> {best:.4f}, {left / 60:.1f} min left"

    def _rate(self, name: str) -> float:
        return self.learning.rounding_rate if name.startswith("latent.") else self.learning.rate

    def step(self, share: float) -> float:
        """One step at a share (0 to 1) of the run; the training KL. Raises `TensorValueError` if it is not finite."""
        ids, loops = self._draw()
        factor = min(1.0, (self.counters.step + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
        for group in self.optimizer.param_groups:
            group["lr"] = group["rate"] * factor
        self.student.put()
        total = 0.0
        for part in ids.split(max(1, self.at_once)):
            loss = self._loss(part, loops) * (len(part) / len(ids))
            loss.backward()
            total += float(loss.detach())
        if not math.isfinite(total):
            raise TensorValueError(f"learned rounding, step {self.counters.step + 1}: the loss is not finite; use gptq")
        self.student.pull()
        self.optimizer.step()
        return total

    def _draw(self) -> tuple[Tensor, int]:
        """(windows, length) ids and a loop count."""
        written = 0
        if self.pages is not None:
            written = int((torch.rand(WINDOWS_PER_STEP, generator=self.generator) < self.learning.written).sum())
        chosen = torch.randint(0, len(self.windows), (WINDOWS_PER_STEP - written,), generator=self.generator)
        loops = int(torch.randint(self.loops[0], self.loops[1] + 1, (), generator=self.generator))
        ids = self.windows[chosen].to(self.student.device)
        if self.pages is not None and written:
            ids = torch.cat([ids, self.pages.take(written)])
            self.counters.taken = self.pages.taken
        return ids, loops

    def _loss(self, ids: Tensor, loops: int) -> Tensor:
        keep = self.teacher.config.vocab_size
        with torch.no_grad():
            target = F.log_softmax(self.teacher(ids, loops)[..., :keep], -1).flatten(0, 1)
        logits = unrolled(self.student.model, ids, loops, self.learning.through, again=self.at_once < 1)[..., :keep]
        return F.kl_div(F.log_softmax(logits, -1).flatten(0, 1), target, reduction="batchmean", log_target=True)

    def _judge(self, training_kl: float) -> None:
        """Measure what would be stored on the windows held back; keep it if it is the best; write the state file."""
        assert self.judges is not None  # None is for measuring steps alone
        tensors, floats = self.student.result()
        model = with_tensors(self.student.model, tensors, {n: v.to(self.student.device) for n, v in floats.items()})
        kl = self.judges.measure(model)[0][self.loops[1]].kl_mean
        self.curve.append((self.counters.step, training_kl, kl))
        if kl < self.counters.best_kl:
            self.counters.best_kl, self.counters.best_step = kl, self.counters.step
            self.best_values = {name: values.detach().cpu().clone() for name, values in self.trained.items()}
        if self.learning.state is not None and self.counters.step:
            self._state().save(self.learning.state)

    def _state(self) -> State:
        tensors = {name: values.detach().cpu() for name, values in self.trained.items()}
        for name, values in self.trained.items():
            moments = self.optimizer.state.get(values, {})
            if moments:
                tensors[f"{name}.mean"] = moments["exp_avg"].cpu()
                tensors[f"{name}.square"] = moments["exp_avg_sq"].cpu()
        tensors |= {f"best.{name}": values for name, values in self.best_values.items()}
        tensors["generator"] = self.generator.get_state()
        return State(self.key, self.counters, tensors, self.curve)

    def best(self) -> QuantizedModel:
        """The best step's model."""
        with torch.no_grad():
            for name, values in self.trained.items():
                values.copy_(self.best_values[name])
        tensors, floats = self.student.result()
        start, counters = self.student.quantized, self.counters
        note = (
            f"learned rounding, step {counters.best_step} of {counters.step}: KL {counters.first_kl:.5f} -> "
            f"{counters.best_kl:.5f} on {HELD_BACK} windows of calibration text held back"
        )
        return replace(
            start,
            tensors=tensors,
            floats={**start.floats, **floats},
            eager=None,
            algorithm="learned",
            algorithms={n: "learned" if n in self.student.latents else how for n, how in start.algorithms.items()},
            notes=[*start.notes, note],
        )


def windows_at_once(config: ParcaeConfig, length: int, loops: int) -> int:
    """Windows whose activations fit `ACTIVATION_BYTES` together; 0 if not even one does."""
    core = config.n_layers_in_recurrent_block * loops
    outer = config.n_layers_in_prelude + config.n_layers_in_coda
    layer = 16 * config.recurrent_embedding_dimension + 4 * config.recurrent_intermediation_embedding_dimension
    outside = 16 * config.n_embd + 4 * config.intermediate_size
    values = core * layer + outer * outside + 6 * config.padded_vocab_size
    return int(ACTIVATION_BYTES // (4 * length * values))


def unrolled(model: Parcae, ids: Tensor, loops: int, through: int | None = None, again: bool = False) -> Tensor:
    """`model(ids, loops)` whose gradients pass the last `through` loops; `again` computes loops twice for memory."""
    injected, values = model.prelude(ids, model.slots("prelude", ids))
    state, slots = model.zero_state(injected), model.slots("core_block", ids)
    for loop in range(loops):
        if again:
            state = checkpoint(lambda x: model.recur(x, injected, values, slots), state, use_reentrant=False)
        else:
            state = model.recur(state, injected, values, slots)
        if through is not None and loop == loops - through - 1:
            state = state.detach()
    return model.coda(state, ids, model.slots("coda", ids))
