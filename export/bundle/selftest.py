"""The self-test of a bundled artifact: where its golden logits lie in `golden.npz`, and what greedy decoding answers.

An app reads the logits at their byte offsets, as little-endian fp32, and needs no reader of `.npz`.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from export.gates.lowering import BUDGETS
from export.gates.twins import budget_name
from export.targets.host import Host
from parcae_mobile.app_manifest import Greedy, LogitRows, SelfTest
from parcae_mobile.arrays import DAMAGED, read_arrays
from parcae_mobile.errors import InputError
from parcae_mobile.golden import MOST_BYTES
from parcae_mobile.manifest import Manifest

GOLDEN = "golden.npz"
PROMPT, TOKENS = 16, 24
LEAD = 2e-3  # a token whose logit leads by less may differ between devices that compute in fp32
FP32 = "fp32"


def self_test(folder: Path, manifest: Manifest, host: Host, exact: bool) -> SelfTest:
    """Golden logits by place, tolerances, and greedy tokens where this machine computes what the promise says.

    `exact`: token parity is promised. Raises `InputError` if `golden.npz` is not as the exporter writes it.
    """
    path = folder / GOLDEN
    try:
        arrays = read_arrays(path, MOST_BYTES)
        ids, positions = arrays["input_ids"].tolist(), arrays["positions"].tolist()
    except DAMAGED as error:
        raise InputError(f"{path}: not readable ({error}); export the artifact again") from None
    rows = {name.removeprefix("logits_"): place for name, place in places(path).items() if name.startswith("logits_")}
    if manifest.last_logits:  # the graph gives the last position only
        positions = positions[-1:]
        rows = {
            loops: LogitRows(offset=place.offset + place.bytes - 4 * place.shape[1], shape=(1, place.shape[1]))
            for loops, place in rows.items()
        }
    budget = BUDGETS[FP32 if exact else budget_name(manifest.compute, manifest.kv.dtype)]
    kl, top1 = budget.get("kl_mean"), budget.get("top1")
    return SelfTest(
        file=GOLDEN,
        input_ids=ids,
        positions=positions,
        logits=rows,
        max_abs=budget.get("max_abs"),
        kl_mean=None if kl is None else 4 * kl,  # a mean over few positions scatters
        top1=None if top1 is None else max(0.0, top1 - 1.5 / len(positions)),
        greedy=greedy_answers(host, ids[:PROMPT], [int(loops) for loops in rows], manifest, exact),
    )


def places(path: Path) -> dict[str, LogitRows]:
    """By array name, where a two-dimensional fp32 array's numbers begin in an uncompressed `.npz`."""
    places_by_name = {}
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy")
            if not name.startswith("logits_"):
                continue
            damage = f"{path}: {name} is not stored as rows of fp32; export the artifact again"
            if info.compress_type != zipfile.ZIP_STORED:
                raise InputError(damage)
            file.seek(info.header_offset + 26)
            lengths = np.frombuffer(file.read(4), "<u2")
            file.seek(int(lengths.sum()), 1)
            np.lib.format.read_magic(file)
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
            if fortran or dtype != np.dtype("<f4") or len(shape) != 2:
                raise InputError(damage)
            places_by_name[name] = LogitRows(offset=file.tell(), shape=(shape[0], shape[1]))
    return places_by_name


def greedy_answers(host: Host, prompt: list[int], counts: list[int], manifest: Manifest, exact: bool) -> Greedy | None:
    """Greedy tokens after `prompt` by loop count; None where other arithmetic than this machine's is promised.

    Where token parity is promised an answer ends before the first token that a device could choose otherwise.
    """
    if exact and manifest.compute != FP32:
        return None
    answers: dict[str, list[int]] = {}
    room = host.geometry.context - len(prompt)
    for loops in counts:
        host.reset()
        logits = host.prefill(prompt, loops)[: host.geometry.vocab_size]
        tokens: list[int] = []
        while len(tokens) < min(TOKENS, room):
            second, first = np.partition(logits, -2)[-2:]
            if exact and first - second < LEAD:
                break
            tokens.append(int(logits.argmax()))
            logits = host.run(tokens[-1:], loops, positions=[0])[0][: host.geometry.vocab_size]
        answers[str(loops)] = tokens
    return Greedy(prompt=prompt, tokens=answers, exact=exact)
