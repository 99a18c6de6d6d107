"""The golden reference: what fp32 PyTorch says, on a GPU where there is one, written down once with its provenance.

    reference = make_reference(model, text, device="cuda")
    save_reference(reference, Path("golden.npz")); reference = load_reference(Path("golden.npz"))
    check_same_subject(reference, model, text)             # other weights, text or state: refused
    floor = distance_to_local(reference, model)            # is this machine's fp32 the same, up to rounding?

fp32, TF32 off, the math attention kernel, deterministic algorithms, zero initial state, fixed text. The other
arithmetics (`tf32`, `bf16`) exist to know how far they are from fp32; a file made with one never serves a gate.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import platform
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from .arrays import DAMAGED, read_arrays, write_arrays
from .atomic import writing
from .errors import CheckpointError, ReferenceMismatchError, ToolMissingError, UsageError, reason_of
from .json_file import parse
from .loops import LOOPS
from .model import Parcae
from .parity import Distance, compare, greedy, sweep
from .text import TokenText

FORMAT = 1
POSITIONS = 128
GREEDY_TOKENS = 64
PROMPT_TOKENS = 16
MOST_LOGIT_BYTES = 6_300_000  # of fp32 logits, which compress by a tenth; beyond it fewer loop counts are kept
LOOPS_BY_WORTH = (1, 8, 4, 2, 16)
ARITHMETICS = ("fp32", "tf32", "bf16")
NOISE_FLOOR_MAX_ABS = 1e-4
NOISE_FLOOR_KL = 1e-6
MOST_BYTES = 64_000_000  # of a file's arrays when unpacked: ten times what is written here


@dataclass(frozen=True)
class Reference:
    """Logits by loop count (positions, vocabulary) fp32, greedy tokens, per-loop state norms, and provenance."""

    input_ids: np.ndarray
    logits: dict[int, np.ndarray]
    greedy: dict[int, list[int]]
    state_norms: list[float]
    provenance: dict[str, Any]

    @property
    def sha256(self) -> str:
        """Checksum of everything in the reference, not of the file's bytes."""
        digest = hashlib.sha256(json.dumps(self.provenance, sort_keys=True).encode())
        digest.update(self.input_ids.astype("<i8").tobytes())
        for loops in sorted(self.logits):
            digest.update(self.logits[loops].astype("<f4").tobytes())
            digest.update(np.array(self.greedy[loops], "<i8").tobytes())
        return digest.hexdigest()

    @property
    def device(self) -> str:
        return str(self.provenance["device"])

    @property
    def label(self) -> str:
        """Device and arithmetic, for tables."""
        return f"{self.device} {self.provenance['arithmetic']}"


@contextlib.contextmanager
def exact_arithmetic(device: str, tf32: bool = False) -> Iterator[None]:
    """TF32 off (unless asked for), the math attention kernel, deterministic algorithms; earlier settings come back."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = (matmul.allow_tf32, cudnn.allow_tf32, torch.are_deterministic_algorithms_enabled())
    matmul.allow_tf32 = cudnn.allow_tf32 = tf32
    torch.use_deterministic_algorithms(True, warn_only=device == "cuda")
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before[:2]
        torch.use_deterministic_algorithms(before[2])


def make_reference(
    model: Parcae,
    text: TokenText,
    device: str = "cpu",
    loops: Sequence[int] | None = None,
    arithmetic: str = "fp32",
) -> Reference:
    """Run the model over the first positions of `text`. Raises `ToolMissingError` without the device asked for.

    Large vocabularies get fewer loop counts, two at least, so that the file stays small.
    """
    if arithmetic not in ARITHMETICS:
        raise UsageError(f"--arithmetic {arithmetic}: choose one of {', '.join(ARITHMETICS)}")
    if arithmetic == "tf32" and device != "cuda":
        raise UsageError("--arithmetic tf32 exists on CUDA devices only; add --device cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise ToolMissingError(
            "--device cuda: this machine has no CUDA device; use --device cpu, which says so in the file"
        )
    ids = text.ids[: min(POSITIONS, model.config.context)]
    loops = model.config.judged_loops if loops is None else loops
    loops = _loops_that_fit(loops, len(ids) * model.config.padded_vocab_size * 4)
    weights = weights_sha256(model)
    dtype = torch.bfloat16 if arithmetic == "bf16" else torch.float32
    placed = model
    if (device, dtype) != ("cpu", torch.float32):
        placed = copy.deepcopy(model).to(device, dtype)
        placed.rope = model.rope.to(device)  # positions stay fp32, as the original rotates in fp32
    with exact_arithmetic(device, tf32=arithmetic == "tf32"), torch.no_grad():
        logits = {count: out[0].float().cpu().numpy() for count, _, out in sweep(placed, ids[None].to(device), loops)}
        prompt = ids[: min(PROMPT_TOKENS, max(1, model.config.context // 2))].tolist()
        tokens = min(GREEDY_TOKENS, model.config.context - len(prompt))
        chosen = {count: greedy(placed, prompt, tokens, count) for count in loops}
        states = placed.states(ids[None].to(device), max(loops))
        norms = [float(state.float().norm(dim=-1).mean()) for state in states]
    provenance = {
        "format": FORMAT,
        "device": device,
        **_device_details(device),
        "torch": torch.__version__.split("+")[0],
        "arithmetic": arithmetic,
        "settings": "math attention, deterministic algorithms",
        "initial_state": "zero",
        "weights_sha256": weights,
        "text": text.source,
        "text_sha256": hashlib.sha256(ids.numpy().astype("<i8").tobytes()).hexdigest(),
    }
    return Reference(ids.numpy(), logits, chosen, norms, provenance)


def _loops_that_fit(loops: Sequence[int], bytes_each: int) -> list[int]:
    ranked = sorted(loops, key=lambda count: LOOPS_BY_WORTH.index(count) if count in LOOPS_BY_WORTH else len(LOOPS))
    return sorted(ranked[: max(2, MOST_LOGIT_BYTES // bytes_each)])


def _device_details(device: str) -> dict[str, str]:
    if device == "cuda":
        return {"device_name": torch.cuda.get_device_name(), "cuda": str(torch.version.cuda)}
    return {"device_name": platform.machine()}


def weights_sha256(model: Parcae) -> str:
    """Checksum of a model's parameters in fp32, by name, and of its RoPE table."""
    digest = hashlib.sha256()
    for name, tensor in sorted({**dict(model.named_parameters()), "rope": model.rope}.items()):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_reference(reference: Reference, path: Path) -> None:
    """Write one compressed `.npz`; equal references give equal bytes."""
    arrays: dict[str, Any] = {
        "input_ids": reference.input_ids,
        "state_norms": np.array(reference.state_norms, np.float32),
        "provenance": np.frombuffer(json.dumps(reference.provenance, sort_keys=True).encode(), np.uint8),
        "sha256": np.frombuffer(reference.sha256.encode(), np.uint8),
    }
    for loops, logits in reference.logits.items():
        arrays[f"logits_{loops}"] = logits
        arrays[f"greedy_{loops}"] = np.array(reference.greedy[loops], np.int64)
    with writing(path) as file:
        write_arrays(arrays, file, zipfile.ZIP_DEFLATED)


def load_reference(path: Path) -> Reference:
    """Read a reference. Raises `CheckpointError` if unreadable, `ReferenceMismatchError` if altered."""
    try:
        arrays = read_arrays(path, MOST_BYTES)
        provenance = parse(arrays["provenance"].tobytes().decode("utf-8"))
        if not isinstance(provenance, dict):
            raise ValueError("its provenance is no object")
        counts = sorted(int(name.removeprefix("logits_")) for name in arrays if name.startswith("logits_"))
        _check_shapes(arrays, counts)
        reference = Reference(
            arrays["input_ids"],
            {count: arrays[f"logits_{count}"] for count in counts},
            {count: arrays[f"greedy_{count}"].tolist() for count in counts},
            arrays["state_norms"].tolist(),
            provenance,
        )
        stated = arrays["sha256"].tobytes().decode()
        altered = reference.sha256 != stated
    except DAMAGED as error:
        raise CheckpointError(
            f"{path}: not a readable reference ({reason_of(error)}); make it again with parcae-export reference"
        ) from None
    if altered:
        raise ReferenceMismatchError(f"{path}: altered, its content does not match its checksum; make it again")
    return reference


def _check_shapes(arrays: dict[str, np.ndarray], counts: list[int]) -> None:
    """Raise `ValueError` unless ids and logits have the ranks, types and lengths that the format gives them."""
    ids = arrays["input_ids"]
    if ids.ndim != 1 or ids.dtype.kind != "i" or not ids.size or not counts or counts[0] < 1:
        raise ValueError("no ids, or no logits")
    for count in counts:
        logits, chosen = arrays[f"logits_{count}"], arrays[f"greedy_{count}"]
        if logits.ndim != 2 or logits.dtype.kind != "f" or len(logits) != len(ids):
            raise ValueError(f"logits_{count} is {logits.dtype} {logits.shape}")
        if chosen.ndim != 1 or chosen.dtype.kind != "i":
            raise ValueError(f"greedy_{count} is {chosen.dtype} {chosen.shape}")


def check_same_subject(reference: Reference, model: Parcae, text: TokenText | None = None) -> None:
    """Raise `ReferenceMismatchError` unless the reference is of these weights, this text and the zero state."""
    if reference.provenance.get("format") != FORMAT:
        raise ReferenceMismatchError(
            f"reference of format {reference.provenance.get('format')}, not {FORMAT}; make it again"
        )
    if reference.provenance.get("weights_sha256") != weights_sha256(model):
        raise ReferenceMismatchError("the reference was made for other weights; make it again for this model")
    if reference.provenance.get("arithmetic") != "fp32":
        raise ReferenceMismatchError(
            f"a reference in {reference.provenance.get('arithmetic')} judges nothing; make one in fp32"
        )
    if reference.provenance.get("initial_state") != "zero":
        raise ReferenceMismatchError("the reference has another initial state than zero; make it again")
    if text is not None and not np.array_equal(reference.input_ids, text.ids[: len(reference.input_ids)].numpy()):
        raise ReferenceMismatchError("the reference was made for another text; make it again or leave --text out")


def distance_to_local(reference: Reference, model: Parcae) -> dict[int, Distance]:
    """This machine's fp32 model against the reference, by loop count."""
    ids = torch.from_numpy(reference.input_ids)[None]
    with exact_arithmetic("cpu"):
        return {
            count: compare(torch.from_numpy(reference.logits[count]), logits[0])
            for count, _, logits in sweep(model, ids, tuple(reference.logits))
        }


def within_noise_floor(distances: dict[int, Distance]) -> bool:
    """Whether the differences are those of two devices rounding differently."""
    return all(d.max_abs <= NOISE_FLOOR_MAX_ABS and d.kl_mean <= NOISE_FLOOR_KL for d in distances.values())


def compare_references(first: Reference, second: Reference) -> dict[int, Distance]:
    """The second reference's distance from the first, for the loop counts of both. Same text is required."""
    if not np.array_equal(first.input_ids, second.input_ids):
        raise ReferenceMismatchError("the two references have different texts")
    common = sorted(set(first.logits) & set(second.logits))
    return {
        count: compare(torch.from_numpy(first.logits[count]), torch.from_numpy(second.logits[count]))
        for count in common
    }
