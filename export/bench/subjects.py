"""What `bench` measures if it is given a model: artifacts of it, and baselines, made once and used again.

    folders = make_artifacts(BenchRequest(quant=["int4"]), source, progress)
    subjects = make_baselines(source, ["naive-onnx"], loops=8, folder=Path("build/bench/baselines"))

Both keep what they made, because baselines take minutes: an artifact of the same weights, target and recipe is taken as
it is, and only loop counts that are missing are exported.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from export.bench.request import BenchRequest
from export.bench.rows import Variant
from export.bench.run import Subject
from export.bench.runners import BASELINES, GENAI_LLAMA, GGUF, LLAMA_CPP, NAIVE_EXECUTORCH, NAIVE_ONNX, PTE, require
from export.job import Progress, silent
from export.pipeline import run_export
from export.request import ExportRequest
from export.source import Source
from export.targets.host import CacheGeometry
from export.targets.registry import DYNAMIC, TARGETS, find_target
from parcae_mobile.errors import UsageError
from parcae_mobile.loops import KV_POLICIES
from parcae_mobile.manifest import MANIFEST, Manifest, read_manifest
from quantize.recipe import load_recipe

ROOM = 64  # tokens after the context for which a naive ExecuTorch file is built


def check_names(request: BenchRequest) -> None:
    """Raise `UsageError` for a name that no target has, `ToolMissingError` for a baseline that nothing here runs."""
    targets = [find_target(name) for name in request.target]
    forms = {form for target in TARGETS.values() for form in (*target.dynamic_forms, *target.static_forms)}
    for form in request.loop_form:
        if form not in forms:
            raise UsageError(f"--loop-form {form}: choose among {', '.join(sorted(forms))}")
    for policy in request.kv:
        if policy not in KV_POLICIES:
            raise UsageError(f"--kv {policy}: choose among {', '.join(KV_POLICIES)}")
    for dtype in request.kv_dtype or ():
        if not any(dtype in target.kv_dtypes for target in targets):
            raise UsageError(f"--kv-dtype {dtype}: no chosen target has it")
    for kind in request.baseline or ():
        if kind not in BASELINES:
            raise UsageError(f"--baseline {kind}: choose among {', '.join(BASELINES)}")
        require(kind)


def make_artifacts(request: BenchRequest, source: Source, progress: Progress) -> list[Path]:
    """Export what is not there yet; returns the folders. Combinations that a target does not have are left out."""
    folders: list[Path] = []
    for target, form, policy in itertools.product(map(find_target, request.target), request.loop_form, request.kv):
        if form not in (*target.static_forms, *target.dynamic_forms):
            continue
        if policy != "full" and form not in target.shared_kv_forms:
            continue
        smallest = "int8" if "int8" in target.kv_dtypes else target.kv_dtypes[0]
        dtypes = [dtype for dtype in request.kv_dtype or () if dtype in target.kv_dtypes] or [smallest]
        for dtype, quant in itertools.product(dtypes, request.quant):
            one = ExportRequest(
                model=request.model,
                random_weights=request.random_weights,
                target=[target.name],
                loop_form=form,
                max_loops=max(16, *request.loops),
                quant=quant,
                kv=policy,
                kv_dtype=dtype,
                out=request.out / f"{form}-{policy}-{dtype}",
                force=True,
                verify=False,
                threads=max(request.threads),
            )
            folders += _make(one, request, source, form in target.static_forms, progress)
    if not folders:
        raise UsageError("no target has one of these combinations of --loop-form and --kv")
    return folders


def _make(one: ExportRequest, request: BenchRequest, source: Source, static: bool, progress: Progress) -> list[Path]:
    """The folders that hold one variant at all loop counts: those that are there, and what they lack, exported."""
    folders: list[Path] = []
    missing = set(request.loops)
    for folder, manifest in [] if request.force else _kept(one, source):
        counts = {int(manifest.loops), *map(int, manifest.graphs)} if static else set(range(1, manifest.max_loops + 1))
        if missing & counts:
            progress(f"using {folder}")
            folders.append(folder)
            missing -= counts
    if missing:
        progress(f"exporting {one.target[0]} {one.loop_form} {one.quant}")
        loops = [str(count) for count in sorted(missing)] if static else [DYNAMIC]
        folders += [result.path for result in run_export(replace(one, loops=loops), progress)]
    return folders


def _kept(one: ExportRequest, source: Source) -> list[tuple[Path, Manifest]]:
    """Artifacts below the request's folder that are of the same weights, target and recipe."""
    recipe = load_recipe(one.quant)
    folders = sorted(path.parent for path in one.out.glob(f"*/{MANIFEST}") if path.parent.suffix != ".failed")
    artifacts = [(folder, read_manifest(folder)) for folder in folders]
    return [
        (folder, manifest)
        for folder, manifest in artifacts
        if (manifest.weights_sha256, manifest.target) == (source.weights_sha256, one.target[0])
        and manifest.loop_form == one.loop_form
        and manifest.quantization.recipe_sha256 == recipe.sha256
    ]


def make_baselines(
    source: Source,
    kinds: Sequence[str],
    loops: int,
    contexts: Sequence[int],
    folder: Path,
    progress: Progress = silent,
) -> list[Subject]:
    """Build what is not there yet, and name it. The naive ExecuTorch file has one for each context.

    Its attention runs over the whole cache at every step, so that a longer one than the text needs would be unfair.
    """
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
        folder = Path(name) / "made"
        if kind == GENAI_LLAMA:
            from export.bench.baselines.peer_llama import write_peer_llama

            write_peer_llama(source.model.config, loops, limit, folder)
        elif kind == LLAMA_CPP:
            from export.bench.baselines.web_llama import write_gguf

            folder.mkdir()
            write_gguf(source.model.config, loops, limit, folder / GGUF, table="Q4_0")
        elif kind == NAIVE_ONNX:
            from export.bench.baselines.naive_onnx import write_naive_onnx

            folder.mkdir()
            write_naive_onnx(source.model, loops, limit, folder)
        else:
            from export.bench.baselines.naive_executorch import write_naive_pte

            folder.mkdir()
            write_naive_pte(source.model, loops, limit, folder / PTE)
        shutil.move(folder, place)


def _variant(kind: str, model: str, loops: int) -> Variant:
    """Names of a baseline's row. A Llama has no loops: `loops` is the count whose depth it has."""
    target, form, quant, compute, kv_dtype = {
        NAIVE_ONNX: ("onnx", "unrolled", "fp32", "fp32", "fp32"),
        NAIVE_EXECUTORCH: ("executorch", "unrolled", "fp32", "fp32", "fp32"),
        GENAI_LLAMA: ("onnx", "none", "int4", "int8", "fp32"),
        LLAMA_CPP: ("llama.cpp", "none", "Q4_0", "int8", "fp16"),
    }[kind]
    values = {"kind": kind, "model": model, "target": target, "loop_form": form, "quant": quant, "compute": compute}
    return Variant.model_validate({**values, "kv_policy": "full", "kv_dtype": kv_dtype, "loops": loops})
