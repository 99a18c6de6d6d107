"""The manifest that an app reads, `app.json`: what a bundled artifact is, needs and promises.

    manifest = AppManifest(format=1, ...)                  # app_checks.py reads and checks one
    manifest.memory.estimate(loops=8, tokens=1024, chunk=128)

Unknown fields are ignored, so that a later version may add some; another `format` is refused. `docs/apps.md` explains
each field, `app_kit/schema/app.schema.json` is made from these classes, `app_kit/vectors/manifest.json` has good and
bad ones. `parcae-export bundle` writes it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from .errors import UsageError
from .manifest import FileEntry, LoopForm, relative_path
from .stage_names import STAGES

APP_MANIFEST, APP_SIGNATURE = "app.json", "app.sig"
MODELS = "models.json"
MOST_APP_MANIFEST = 1_000_000  # bytes: two hundred times what a bundled model's has, and nothing to a phone's memory
APP_FORMAT = 1
NAME = r"[A-Za-z0-9_][A-Za-z0-9_. -]*"
Platform = Literal["web", "android", "ios"]
PLATFORMS: tuple[Platform, ...] = get_args(Platform)
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(gt=0)]
FilePath = Annotated[str, AfterValidator(relative_path)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False, strict=True)


class Runtime(_Part):
    """The runtime, its least version, why that one, and the session settings that the artifact was judged with."""

    name: Literal["onnxruntime", "executorch", "coreml"]
    minimum: str = Field(pattern=r"^[0-9]+(\.[0-9]+)*$")
    reason: str
    settings: dict[str, str] = {}


class Loops(_Part):
    """Loop counts: the range, the count of training, those that were built (empty: any in the range, at run time).

    Outside of the range the artifact failed its gates, or has no loops. With `early_exit` a token may leave the loop,
    not before loop `exit_from`, which is no closed one.
    """

    form: LoopForm
    min: Positive
    max: Positive
    trained: Positive
    built: list[Positive] = []
    early_exit: bool
    exit_from: Positive = 1

    @model_validator(mode="after")
    def _ordered(self) -> Loops:
        if self.min > self.max or any(not self.min <= count <= self.max for count in self.built):
            raise ValueError("min, max and built do not fit together")
        if self.early_exit and self.exit_from < self.min:
            raise ValueError("exit_from is below min")
        return self

    def choose(self, asked: int | None = None) -> int:
        """The loop count of a message: the one asked for, or the nearest to the trained one (of two, the smaller).

        Raises `UsageError` for one that the artifact does not have.
        """
        if not self.built:  # any count in the range, which may be long
            if asked is not None and not self.min <= asked <= self.max:
                raise UsageError(f"loops = {asked}: this artifact has {self.min} to {self.max}")
            return max(self.min, min(self.trained, self.max)) if asked is None else asked
        counts = sorted(self.built)
        if asked is None:
            return min(counts, key=lambda count: (abs(count - self.trained), count))
        if asked not in counts:
            raise UsageError(f"loops = {asked}: this artifact has {', '.join(map(str, counts))}")
        return asked


class Graph(_Part):
    """Where a graph is: a file (or folder of a package), and the function or method in it where there are several.

    `prefill_function` takes `prefill_chunk` tokens at once where `function` takes one only.
    """

    file: FilePath
    function: str | None = None
    prefill_function: str | None = None


class CacheStage(_Part):
    """Cache shape of the layers of one graph: (slots, 1, heads, tokens, head size) for keys and for values each."""

    layers: Count
    heads: Positive
    head_size: Positive
    slots: Positive


class Cache(_Part):
    """The KV cache. `prefill_chunk` is part of what is computed where loops share a slot.

    Without `fill_above` the caches lie inside of the runtime, and nothing can be copied from slot to slot.
    """

    policy: Literal["full", "shared", "first1+shared", "first2+shared"]
    dtype: Literal["fp32", "fp16", "int8"]
    context: Positive
    prefill_chunk: Positive
    prelude: CacheStage
    recur: CacheStage
    coda: CacheStage
    fill_above: bool = True

    def may_run(self, loops_before: Sequence[int], loops: int) -> bool:
        """Whether a chunk may run `loops` loops after tokens that ran `held`: no slot is read that one never wrote."""
        slots = self.recur.slots
        return self.fill_above or all(min(loops, slots) <= min(written, slots) for written in loops_before)


class Memory(_Part):
    """What an app has to have free, in bytes; `estimate` adds it up. The runtime's own code is not in it."""

    weights: Count
    cache_per_token: Count  # prelude and coda
    cache_per_token_and_slot: Count  # of the recurrent layers
    slots: Positive
    work_per_chunk_token: Count
    work: Count
    overhead_percent: Count

    def estimate(self, loops: int, tokens: int, chunk: int) -> int:
        """Bytes at `loops` loops with caches that hold `tokens` tokens and chunks of `chunk`: whole numbers only."""
        cache = tokens * (self.cache_per_token + self.cache_per_token_and_slot * min(loops, self.slots))
        total = self.weights + cache + self.work + chunk * self.work_per_chunk_token
        return total + total * self.overhead_percent // 100


class Tokenizer(_Part):
    """Which tokenizer file, and how a text begins and ends."""

    file: FilePath
    kind: str
    vocab_size: Positive
    bos: Count
    add_bos: bool
    stop: list[Count]


class LogitRows(_Part):
    """Rows of little-endian fp32 numbers in a file: where they begin, and (positions, vocabulary)."""

    offset: Count
    shape: tuple[Positive, Positive]

    @property
    def bytes(self) -> int:
        return 4 * self.shape[0] * self.shape[1]


class Greedy(_Part):
    """Greedy continuations of a prompt from an empty cache, by loop count; `exact` if they hold on every device."""

    prompt: list[Count]
    tokens: dict[str, list[Count]]
    exact: bool


class SelfTest(_Part):
    """Ids that are given at once, what fp32 PyTorch with the same weights says, and how far a device may be from it."""

    file: FilePath
    input_ids: list[Count]
    positions: list[Count]
    logits: dict[str, LogitRows]
    max_abs: float | None
    kl_mean: float | None
    top1: float | None
    greedy: Greedy | None


class AppManifest(_Part):
    """Everything that an app needs to know before it loads an artifact."""

    format: Literal[1]
    name: str = Field(pattern=f"^{NAME}$")
    model: str
    platform: Platform
    target: Literal["onnx", "executorch", "coreml"]
    runtime: Runtime
    loops: Loops
    graphs: dict[str, Graph]
    recipe: str
    compute: Literal["fp32", "fp16", "int8"]
    promise: str
    token_parity: bool
    verified: bool
    portable: bool
    last_logits: bool
    state_width: Positive
    vocab_size: Positive
    padded_vocab_size: Positive
    cache: Cache
    memory: Memory
    tokenizer: Tokenizer | None
    self_test: SelfTest | None
    weights_sha256: Sha256
    files: dict[FilePath, FileEntry]

    @model_validator(mode="after")
    def _fits(self) -> AppManifest:
        named = [graph.file for graph in self.graphs.values()]
        named += [part.file for part in (self.tokenizer, self.self_test) if part is not None]
        for name in named:
            if not any(file == name or file.startswith(f"{name}/") for file in self.files):
                raise ValueError(f"{name} is not among the files")
        wanted = set(STAGES) if self.loops.form == "stages" else {str(n) for n in self.loops.built}
        wanted = wanted or {"model"}
        if set(self.graphs) != wanted:
            raise ValueError(f"graphs: {self.loops.form} needs {', '.join(sorted(wanted))}")
        if self.vocab_size > self.padded_vocab_size:
            raise ValueError("vocab_size is above padded_vocab_size")
        if self.tokenizer is not None and max([self.tokenizer.bos, *self.tokenizer.stop]) >= self.vocab_size:
            raise ValueError("tokenizer: an id is not in the vocabulary")
        test = self.self_test
        if test is not None:
            size = self.files[test.file].bytes
            if any(rows.offset + rows.bytes > size for rows in test.logits.values()):
                raise ValueError("self_test: rows lie outside of the file")
            if any(rows.shape != (len(test.positions), self.padded_vocab_size) for rows in test.logits.values()):
                raise ValueError("self_test: shape is not (positions, padded_vocab_size)")
        return self

    def to_json(self) -> str:
        """JSON text with sorted keys: equal manifests give equal bytes."""
        return json.dumps(self.model_dump(mode="json"), indent=1, sort_keys=True, allow_nan=False) + "\n"


class ModelEntry(_Part):
    """One bundled model: its folder, and what a chooser shows before it reads the folder's manifest."""

    name: str
    model: str
    recipe: str
    loops: Loops
    bytes: Count
    memory: Count  # at the trained loop count and the full context


class Models(_Part):
    """The index of an app's models, `models.json`: one entry for each folder beside it."""

    format: Literal[1]
    platform: Platform
    models: list[ModelEntry]

    def to_json(self) -> str:
        """JSON text with sorted keys: equal indexes give equal bytes."""
        return json.dumps(self.model_dump(mode="json"), indent=1, sort_keys=True, allow_nan=False) + "\n"
