"""What a bench is asked for: every option that decides what is measured, with its meaning.

    request = BenchRequest(model="parcae-140m", random_weights=True, quant=["int4"], loops=[8])

The fields are options of the command, as those of `ExportRequest` are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TypeVar

from annotated_doc import Doc

from export.request import MODEL_HELP
from parcae_mobile.errors import UsageError

MEASURES = ("size", "memory", "speed")
BASELINES = "baselines"
Value = TypeVar("Value")


def _default(*values: Value) -> Callable[[], list[Value]]:
    return lambda: list(values)


@dataclass(frozen=True)
class BenchRequest:
    """What is measured; lists are combined, each with each. `rounds` and `prompts` trade time for quiet medians."""

    model: Annotated[str | None, Doc(MODEL_HELP)] = None
    random_weights: Annotated[bool, Doc("Draw seeded weights for a released shape.")] = False
    target: Annotated[list[str], Doc("Targets to export to; may be repeated.")] = field(
        default_factory=_default("onnx")
    )
    loop_form: Annotated[list[str], Doc("Loop forms; may be repeated.")] = field(
        default_factory=_default("stages", "scan")
    )
    quant: Annotated[list[str], Doc("Presets or recipes; may be repeated.")] = field(default_factory=_default("int4"))
    kv: Annotated[list[str], Doc("KV policies; may be repeated.")] = field(default_factory=_default("full"))
    kv_dtype: Annotated[list[str] | None, Doc("KV types; may be repeated; default int8 where a target has it.")] = None
    loops: Annotated[list[int], Doc("Loop counts; may be repeated.")] = field(default_factory=_default(1, 2, 4, 8, 16))
    context: Annotated[list[int], Doc("Contexts; may be repeated.")] = field(default_factory=_default(128, 1024, 2048))
    baseline: Annotated[
        list[str] | None, Doc("naive-onnx, genai-llama, llama-cpp, naive-executorch; may be repeated.")
    ] = None
    baseline_loops: Annotated[int, Doc("Loop count of the baselines.")] = 8
    baselines: Annotated[Path | None, Doc("Where baselines are kept; default below --out.")] = None
    measure: Annotated[list[str], Doc("size, memory, speed; may be repeated.")] = field(
        default_factory=_default(*MEASURES)
    )
    rounds: Annotated[int, Doc("Turns of each model, three steps each.")] = 15
    prompts: Annotated[int, Doc("Prompts for a median time to the first token; at most 3 beyond 512 tokens.")] = 5
    out: Annotated[Path, Doc("Where artifacts and bench.json go.")] = Path("build/bench")
    force: Annotated[bool, Doc("Export artifacts again that are there.")] = False
    threads: Annotated[list[int], Doc("Threads of every runtime; may be repeated: all in turns.")] = field(
        default_factory=_default(1)
    )

    @property
    def contexts(self) -> list[int]:
        """The contexts, each once, the shortest first."""
        return sorted(set(self.context))

    @property
    def baselines_folder(self) -> Path:
        """Where baselines are kept."""
        return self.baselines or self.out / BASELINES


def check_request(request: BenchRequest) -> None:
    """Raise `UsageError` for what cannot be measured, before anything is made."""
    for name in request.measure:
        if name not in MEASURES:
            raise UsageError(f"--measure {name}: choose among {', '.join(MEASURES)}")
    for option, values in (
        ("--loops", request.loops),
        ("--context", request.context),
        ("--rounds", [request.rounds]),
        ("--prompts", [request.prompts]),
        ("--threads", request.threads),
        ("--baseline-loops", [request.baseline_loops]),
    ):
        if min(values) < 1:
            raise UsageError(f"{option} {min(values)}: give 1 or more")
