"""The manifest of an artifact folder: its schema, and the check that the folder is what it says.

    manifest = read_manifest(folder)                       # schema only
    manifest = verify_files(folder)                        # closed set of files, sizes, SHA-256

The schema is validated by pydantic; unknown fields are errors. A listed path is relative, POSIX, without `..`, and the
file is no link.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from .errors import ChecksumError, ManifestError
from .json_file import read_object
from .stage_names import LAYER_GROUPS

LoopForm = Literal["stages", "scan", "while", "unrolled"]
Compute = Literal["fp32", "fp16", "int8"]
MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"
FORMAT = 1
# Above every model there is; a host takes memory by these numbers before it sees a weight.
MOST_LOOPS, MOST_CONTEXT, MOST_TOKENS, MOST_WIDTH, MOST_OF_A_STAGE = 4096, 2**21, 2**24, 2**20, 2**16
MOST_CACHE_BYTES = 2**36
_PATH_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_. -]*")


def relative_path(path: str) -> str:
    """The path itself. Raises `ValueError` unless it is relative, POSIX, and stays inside of the folder."""
    parts = path.split("/")
    fits = len(path) <= 1024 and all(len(part) <= 255 for part in parts)
    if not fits or not all(_PATH_PART.fullmatch(part) for part in parts) or path in (MANIFEST, SIGNATURE):
        raise ValueError(f"{path[:100]!r} is not a relative path inside of the folder")
    return path


def _by_stage(values: dict[str, int]) -> dict[str, int]:
    if set(values) != set(LAYER_GROUPS) or not 0 <= min(values.values()) <= max(values.values()) <= MOST_OF_A_STAGE:
        raise ValueError("needs a count for each of prelude, core_block and coda")
    return values


def _graphs(values: dict[str, str]) -> dict[str, str]:
    if not all(count.isascii() and count.isdigit() and 1 <= int(count[:9]) <= MOST_LOOPS for count in values):
        raise ValueError("names a file for each loop count")
    for name in values.values():
        relative_path(name)
    return values


LoopCount = Annotated[int, Field(ge=1, le=MOST_LOOPS)]
ByStage = Annotated[dict[str, int], AfterValidator(_by_stage)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class FileEntry(_Part):
    """One file: bytes and SHA-256."""

    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Geometry(_Part):
    """What a host needs to make caches and states."""

    layers: ByStage
    heads: ByStage
    head_size: ByStage
    state_width: int = Field(gt=0, le=MOST_WIDTH)
    vocab_size: int = Field(gt=0, le=MOST_TOKENS)
    padded_vocab_size: int = Field(gt=0, le=MOST_TOKENS)
    context: int = Field(gt=0, le=MOST_CONTEXT)


class KV(_Part):
    """The cache's contract. `bytes_per_token` is by loop count; `measured` is what each policy costs against `full`.

    `slots` is what a recurrent layer holds (null: as many as the policy has at `max_loops`). `note` says which policy
    was chosen first and failed.
    """

    policy: Literal["full", "shared", "first1+shared", "first2+shared"]
    slots: LoopCount | None = None
    dtype: Literal["fp32", "fp16", "int8"]
    bytes_per_token: dict[str, int]
    measured: dict[str, dict[str, float]] = {}
    measured_at_loops: int | None = None
    note: str = ""
    context: int = Field(gt=0, le=MOST_CONTEXT)


class Port(_Part):
    """An input or output of a graph, method or function; a string dimension is dynamic."""

    name: str
    dtype: str
    shape: list[int | str]


class Signature(_Part):
    """Inputs and outputs of one file (or of a function of it)."""

    inputs: list[Port]
    outputs: list[Port]


class Verdict(_Part):
    """A gate's result; `passed` is null where it was not run or means nothing, and `note` says why."""

    passed: bool | None
    by_loops: dict[str, dict[str, Any]]
    budget: dict[str, float] = {}
    note: str = ""


class Certificate(_Part):
    """The injection's poles as re-read from the artifact, and what is wrong with them.

    It speaks of the linear injection only.
    """

    max_decay: float | None
    max_decay_checkpoint: float | None
    injection_matrix_equal: bool | None
    problems: list[str] = []
    note: str = ""


class ReferenceEntry(_Part):
    """The golden reference that the local fp32 model was checked against."""

    device: str
    sha256: str
    distance: dict[str, dict[str, Any]]
    artifact_distance: dict[str, dict[str, Any]] = {}
    note: str = ""


class QuantEntry(_Part):
    """How one tensor is stored: integers in groups of columns, or indices into a palette that so many rows share."""

    bits: int
    group_size: int
    symmetric: bool
    shape: list[int]
    palette_rows: int | None = None


class Quantization(_Part):
    """Recipe, algorithm and the table of quantized tensors; all others are float, `halves` in fp16.

    `recipe_sha256` is of all that the recipe says, its budget included; with `own_budget` that budget is looser than
    the one of the presets with as many bits.
    """

    recipe: str
    recipe_sha256: str = ""
    budget: dict[str, float] = {}
    own_budget: bool = False
    algorithm: str
    tensors: dict[str, QuantEntry]
    halves: list[str] = []
    notes: list[str] = []


class Delegation(_Part):
    """What the delegate of a target took of one method, as the exporter counted it.

    Multiply-accumulates are those of one token through the model's matrices. Cached attention runs in a fused kernel of
    the runtime and is in neither number; `left` counts the operators outside of the delegates by name.
    """

    delegates: int = Field(ge=0)
    operators: int = Field(ge=0)
    operators_delegated: int = Field(ge=0)
    macs: int = Field(ge=0)
    macs_delegated: int = Field(ge=0)
    attention: int = Field(ge=0)
    left: dict[str, int] = {}

    @property
    def operators_share(self) -> float:
        return self.operators_delegated / max(self.operators, 1)

    @property
    def macs_share(self) -> float:
        """1 for a method without matrix products, of which nothing was left behind."""
        return self.macs_delegated / self.macs if self.macs else 1.0


class Manifest(_Part):
    """Everything that an app or a verifier needs to know about an artifact folder.

    `graphs` names the file of each loop count where a folder holds several static ones; `loops` is then the one that
    stock clients find. Each of `stops` ends a text, and `eos` is the first of them. `portable` graphs hold standard
    operators only; with `last_logits` a graph gives logits of a chunk's last position, not of all.

    A dynamic artifact runs `min_loops` to `max_loops` loops. `closed` says of judged counts outside of that range why
    they are not open.
    """

    format: Literal[1] = 1
    artifact: str
    model: str
    weights_sha256: str
    target: str
    loops: LoopCount | Literal["dynamic"]
    min_loops: LoopCount = 1
    max_loops: LoopCount
    closed: dict[str, str] = {}
    trained_loops: LoopCount
    loop_form: LoopForm
    graphs: Annotated[dict[str, str], AfterValidator(_graphs)] = {}
    portable: bool = False
    last_logits: bool = False
    compute: Compute
    promise: str
    geometry: Geometry
    signature: dict[str, Signature]
    initial_state: Literal["zero"] = "zero"
    bos: int | None
    eos: int | None
    stops: list[int] = []
    kv: KV
    quantization: Quantization
    certificate: Certificate
    lowering: Verdict
    compression: Verdict
    reference: ReferenceEntry | None
    delegation: dict[str, Delegation] = {}
    verified_by: str
    memory_bytes: int = Field(ge=0)
    minimum_runtime: dict[str, str]
    tools: dict[str, str]
    files: dict[Annotated[str, AfterValidator(relative_path)], FileEntry]

    digest: str = ""  # of the files; older artifacts have none

    @model_validator(mode="after")
    def _fits(self) -> Manifest:
        if self.min_loops > self.max_loops:
            raise ValueError("min_loops is above max_loops")
        if self.digest and self.digest != self.files_digest:
            raise ValueError("digest is not that of the files")
        return self

    @property
    def files_digest(self) -> str:
        """SHA-256 over the names and checksums of all files: what two exports of one input have in common."""
        lines = "".join(f"{entry.sha256}  {name}\n" for name, entry in sorted(self.files.items()))
        return hashlib.sha256(lines.encode()).hexdigest()

    def to_json(self) -> str:
        """JSON text with sorted keys: equal manifests give equal bytes."""
        values = self.model_dump(mode="json") | {"digest": self.files_digest}
        return json.dumps(values, indent=1, sort_keys=True, allow_nan=False) + "\n"


def read_manifest(folder: Path) -> Manifest:
    """Read and validate `manifest.json`. Raises `ManifestError` with the first thing that is wrong."""
    path = folder / MANIFEST
    if not folder.is_dir():
        raise ManifestError(f"no such artifact folder: {folder}")
    if not path.exists():
        raise ManifestError(f"{folder} has no {MANIFEST}: not an artifact folder, or its export did not finish")
    values = read_object(path, ManifestError)
    try:
        manifest = Manifest.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "file"
        raise ManifestError(f"{path}: {place[:200]}: {first['msg'][:300]}; export the artifact again") from None
    geometry = manifest.geometry
    values_of_a_token = sum(2 * geometry.layers[s] * geometry.heads[s] * geometry.head_size[s] for s in LAYER_GROUPS)
    if values_of_a_token * manifest.kv.context > MOST_CACHE_BYTES:
        raise ManifestError(f"{path}: geometry: a cache of more than {MOST_CACHE_BYTES} values; is it damaged?")
    if manifest.kv.context > geometry.context:
        raise ManifestError(f"{path}: kv.context {manifest.kv.context} is above the model's {geometry.context}")
    return manifest


def hash_files(folder: Path) -> dict[str, FileEntry]:
    """Every file below `folder` except the manifest. Raises `ManifestError` for a link, and for what is no file."""
    return {name: FileEntry(bytes=path.stat().st_size, sha256=sha256_of(path)) for name, path in _files(folder).items()}


def _files(folder: Path) -> dict[str, Path]:
    paths = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise ManifestError(f"{path} is a link; an artifact holds files only")
        if path.is_dir() or name in (MANIFEST, SIGNATURE):
            continue
        if not path.is_file():
            raise ManifestError(f"{path} is a pipe, socket or device; an artifact holds files only")
        paths[name] = path
    return paths


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify_files(folder: Path) -> Manifest:
    """Compare a folder with its manifest. Raises `ManifestError` or `ChecksumError` that names the first difference."""
    manifest = read_manifest(folder)
    present = _files(folder)
    for name in manifest.files:
        if name not in present:
            raise ChecksumError(f"{folder / name} is missing; copy or export the artifact again")
    for name, path in present.items():  # sizes of all before the content of any
        listed, size = manifest.files.get(name), path.stat().st_size
        if listed is None:
            raise ChecksumError(f"{path} is not in the manifest; remove it")
        if size != listed.bytes:
            raise ChecksumError(f"{path} has {size} bytes, the manifest says {listed.bytes}")
    for name, path in present.items():
        if sha256_of(path) != manifest.files[name].sha256:
            raise ChecksumError(f"{path} does not match its SHA-256; copy or export the artifact again")
    return manifest
