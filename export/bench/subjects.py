"""What `bench` measures if it is given a model: artifacts of it, and baselines, made once and used again.

    folders = make_artifacts(Wanted(model="parcae-140m", random_weights=True, quants=["int4"]), out)
    subjects = make_baselines(source, ["naive-onnx"], loops=8, folder=Path("build/bench/baselines"))

Both keep what they made: a folder that is there is taken as it is, because baselines take minutes.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from export.bench.rows import Variant
from export.bench.run import Subject
from export.bench.runners import BASELINES, GENAI_LLAMA, NAIVE_EXECUTORCH, NAIVE_ONNX, PTE
from export.pipeline import run_export
from export.request import ExportRequest
from export.source import Source
from export.targets.host import CacheGeometry
from export.targets.registry import TARGETS, find_target
from parcae_mobile.errors import UsageError
from parcae_mobile.loops import KV_POLICIES
from parcae_mobile.manifest import MANIFEST

Progress = Callable[[str], None]
ROOM = 64  # tokens after the context for which a naive ExecuTorch file is built


@dataclass
class Wanted:
    """The artifacts to be compared: every combination that a target has."""

    model: str | None = None
    random_weights: bool = False
    targets: Sequence[str] = ("onnx",)
    forms: Sequence[str] = ("scan",)
    quants: Sequence[str] = ("int4",)
    policies: Sequence[str] = ("full",)
    kv_dtypes: Sequence[str] = ()  # none: int8 where a target has it
    loops: Sequence[int] = (8,)
    context: int | None = None
    threads: int = 0
    force: bool = False
    progress: Progress = field(default=lambda line: None)


def check_wanted(wanted: Wanted) -> None:
    """Raise `UsageError` for a name that no target has."""
    targets = [find_target(name) for name in wanted.targets]
    forms = {form for target in TARGETS.values() for form in (*target.dynamic_forms, *target.static_forms)}
    for form in wanted.forms:
        if form not in forms:
            raise UsageError(f"--loop-form {form}: choose among {', '.join(sorted(forms))}")
    for policy in wanted.policies:
        if policy not in KV_POLICIES:
            raise UsageError(f"--kv {policy}: choose among {', '.join(KV_POLICIES)}")
    for dtype in wanted.kv_dtypes:
        if not any(dtype in target.kv_dtypes for target in targets):
            raise UsageError(f"--kv-dtype {dtype}: no chosen target has it")


def make_artifacts(wanted: Wanted, out: Path) -> list[Path]:
    """Export what is not there yet; returns the folders. Combinations that a target does not have are left out."""
    check_wanted(wanted)
    folders: list[Path] = []
    for name in wanted.targets:
        target = find_target(name)
        smallest = "int8" if "int8" in target.kv_dtypes else target.kv_dtypes[0]
        dtypes = [dtype for dtype in wanted.kv_dtypes if dtype in target.kv_dtypes] or [smallest]
        for form in wanted.forms:
            static = form in target.static_forms
            if not static and form not in target.dynamic_forms:
                continue
            for policy in wanted.policies:
                if policy != "full" and form not in target.shared_kv_forms:
                    continue
                for dtype in dtypes:
                    place = out / f"{form}-{policy}-{dtype}"
                    for quant in wanted.quants:
                        folders += _make(wanted, name, form, static, policy, dtype, quant, place)
    if not folders:
        raise UsageError("no target has one of these combinations of --loop-form and --kv")
    return folders


def _make(
    wanted: Wanted, target: str, form: str, static: bool, policy: str, dtype: str, quant: str, place: Path
) -> list[Path]:
    request = ExportRequest(
        model=wanted.model,
        random_weights=wanted.random_weights,
        target=[target],
        loops=[str(count) for count in wanted.loops] if static else ["dynamic"],
        max_loops=max(16, *wanted.loops),
        loop_form=form,
        quant=quant,
        kv=policy,
        kv_dtype=dtype,
        context=wanted.context,
        out=place,
        force=True,
        verify=False,
        threads=wanted.threads,
    )
    label = "T" if static else "dynamic"
    made = [p for p in sorted(place.glob(f"*-{target}-{label}*-{Path(quant).stem}")) if (p / MANIFEST).exists()]
    if made and not wanted.force:
        wanted.progress(f"using {made[0]}")
        return made
    wanted.progress(f"exporting {target} {form} {quant}")
    return [result.path for result in run_export(request, wanted.progress)]


def make_baselines(
    source: Source,
    kinds: Sequence[str],
    loops: int,
    contexts: Sequence[int],
    folder: Path,
    progress: Progress = lambda line: None,
) -> list[Subject]:
    """Build what is not there yet, and name it. The naive ExecuTorch file has one for each context.

    Its attention runs over the whole cache at every step, so that a longer one than the text needs would be unfair.
    """
    unknown = [kind for kind in kinds if kind not in BASELINES]
    if unknown:
        raise UsageError(f"--baseline {unknown[0]}: choose among {', '.join(BASELINES)}")
    config = source.model.config
    subjects = []
    for kind in dict.fromkeys(kinds):
        each = [(context,) for context in contexts] if kind == NAIVE_EXECUTORCH else [tuple(contexts)]
        for only in each:
            limit = min(config.context, only[0] + ROOM) if kind == NAIVE_EXECUTORCH else config.context
            place = folder / f"{source.name}-{kind}-T{loops}-{limit}"
            if not place.exists():
                progress(f"building {place.name}, minutes for a large model")
                _build(kind, source, loops, limit, place)
            geometry = CacheGeometry.of(config, loops)
            subjects.append(Subject(_variant(kind, source.name, loops), place, geometry, limit, only=only))
    return subjects


def _build(kind: str, source: Source, loops: int, limit: int, place: Path) -> None:
    """Make a baseline in a scratch folder, so that an interrupted build leaves nothing that looks finished."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as name:
        made = Path(name) / "made"
        if kind == GENAI_LLAMA:
            from export.bench.peer_llama import write_peer_llama

            write_peer_llama(source.model.config, loops, limit, made)
        elif kind == NAIVE_ONNX:
            from export.bench.naive_onnx import write_naive_onnx

            made.mkdir()
            write_naive_onnx(source.model, loops, limit, made)
        else:
            from export.bench.naive_executorch import write_naive_pte

            made.mkdir()
            write_naive_pte(source.model, loops, limit, made / PTE)
        shutil.move(made, place)


def _variant(kind: str, model: str, loops: int) -> Variant:
    """Names of a baseline's row. The Llama has no loops: `loops` is the count whose depth it has."""
    llama = kind == GENAI_LLAMA
    return Variant.model_validate(
        {
            "kind": kind,
            "model": model,
            "target": "executorch" if kind == NAIVE_EXECUTORCH else "onnx",
            "loop_form": "none" if llama else "unrolled",
            "quant": "int4" if llama else "fp32",
            "compute": "int8" if llama else "fp32",
            "kv_policy": "full",
            "kv_dtype": "fp32",
            "loops": loops,
        }
    )
