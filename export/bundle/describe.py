"""From an artifact's manifest to the one that an app reads: what it needs on a platform, and what it promises there."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import numpy as np

from export.bundle.platforms import NEEDS, settings, token_parity
from export.bundle.selftest import self_test
from export.targets.host import CacheGeometry, Host
from export.targets.runtimes import least_runtimes
from parcae_mobile.app_manifest import (
    AppManifest,
    Cache,
    CacheStage,
    Graph,
    Loops,
    Memory,
    Platform,
    Runtime,
    Tokenizer,
)
from parcae_mobile.errors import InputError
from parcae_mobile.json_file import read_object
from parcae_mobile.loops import KV_BYTES
from parcae_mobile.manifest import Manifest
from parcae_mobile.stage_names import STAGES

TOKENIZER = "tokenizer.json"
RUNTIMES = {"onnx": "onnxruntime", "executorch": "executorch", "coreml": "iOS"}
INSIDE = "executorch"  # keeps caches in the runtime's own buffers, which an app cannot copy
IN_BROWSER = "token parity: a browser's kernels keep activations in fp32, so greedy tokens are the same on every device"


def describe(folder: Path, manifest: Manifest, host: Host, platform: Platform, name: str) -> AppManifest:
    """The app-side manifest of a verified artifact; `host` is the artifact, opened here."""
    parity, graphs = token_parity(manifest, platform), graphs_of(manifest)
    slots, inside = host.geometry.slots, manifest.target == INSIDE
    built = sorted(int(loops) for loops in graphs) if manifest.loops != "dynamic" else []
    return AppManifest(
        format=1,
        name=name,
        model=manifest.model,
        platform=platform,
        target=cast(Any, manifest.target),
        runtime=runtime_of(manifest, platform),
        loops=Loops(
            form=manifest.loop_form,
            min=min(built, default=manifest.min_loops),
            max=max(built, default=manifest.max_loops),
            trained=manifest.trained_loops,
            built=built,
            early_exit=manifest.loop_form == "stages" and not (inside and slots >= manifest.max_loops > 1),
            exit_from=max(manifest.min_loops, slots if inside else 1),
        ),
        graphs=graphs,
        recipe=manifest.quantization.recipe,
        compute=manifest.compute,
        promise=IN_BROWSER if parity and platform == "web" else manifest.promise,
        token_parity=parity,
        verified=manifest.lowering.passed is True,
        portable=manifest.portable,
        last_logits=manifest.last_logits,
        state_width=manifest.geometry.state_width,
        vocab_size=manifest.geometry.vocab_size,
        padded_vocab_size=manifest.geometry.padded_vocab_size,
        cache=cache_of(manifest, host),
        memory=memory_of(manifest, platform),
        tokenizer=tokenizer_of(folder, manifest),
        self_test=self_test(folder, manifest, host, parity),
        weights_sha256=manifest.weights_sha256,
        files=manifest.files,
    )


def runtime_of(manifest: Manifest, platform: Platform) -> Runtime:
    """The runtime with its least version and the reason; Core ML has the version of the system."""
    name = RUNTIMES[manifest.target]
    floor = least_runtimes(manifest.target, manifest.portable, manifest.kv.dtype)[name]
    runtime = "coreml" if manifest.target == "coreml" else name
    return Runtime(
        name=cast(Any, runtime), minimum=floor.version, reason=floor.reason, settings=settings(manifest, platform)
    )


def graphs_of(manifest: Manifest) -> dict[str, Graph]:
    """Graphs by role, or by loop count where they are static."""
    functions = functions_of(manifest)
    if manifest.loop_form == "stages":
        if not functions:
            return {role: Graph(file=f"model_{role}.onnx") for role in STAGES}
        longer = {name.rpartition("_")[0]: name for name in functions if name not in STAGES}
        return {role: Graph(file=functions[role], function=role, prefill_function=longer.get(role)) for role in STAGES}
    function = next(iter(functions), None)
    file = functions[function] if function is not None else next(iter(manifest.signature))
    if manifest.loops == "dynamic":
        return {"model": Graph(file=file, function=function)}
    files = manifest.graphs or {str(manifest.loops): file}
    return {loops: Graph(file=name, function=function) for loops, name in files.items()}


def functions_of(manifest: Manifest) -> dict[str, str]:
    """Functions and their files, where a file holds several: FILE:FUNCTION, or a method of the only program."""
    files = {}
    for key in manifest.signature:
        file, _, function = key.rpartition(":")
        if file:
            files[function] = file
        elif key not in manifest.files:
            files[key] = next(name for name in manifest.files if name.endswith(".pte"))
    return files


def cache_of(manifest: Manifest, host: Host) -> Cache:
    """The cache's contract; prompts go in in chunks of what the artifact's own host takes."""
    geometry = CacheGeometry.from_manifest(manifest)
    chunk = min(host.prefill_chunk, manifest.kv.context)
    stages = {
        role: CacheStage(
            layers=geometry.layers[stage],
            heads=geometry.heads[stage],
            head_size=geometry.head_size[stage],
            slots=geometry.slots if stage == "core_block" else 1,
        )
        for role, stage in STAGES.items()
    }
    return Cache(
        policy=manifest.kv.policy,
        dtype=cast(Any, manifest.kv.dtype),
        context=manifest.kv.context,
        prefill_chunk=chunk,
        fill_above=manifest.target != INSIDE and not (manifest.portable and manifest.loop_form == "unrolled"),
        **stages,
    )


def memory_of(manifest: Manifest, platform: Platform) -> Memory:
    """Bytes of weights as the platform's runtime holds them, of the cache by token and slot, and of work arrays."""
    geometry, item = CacheGeometry.from_manifest(manifest), KV_BYTES[manifest.kv.dtype]
    one, needs = geometry.bytes_per_token(1, item), NEEDS[platform]
    slot = 2 * geometry.layers["core_block"] * geometry.heads["core_block"] * geometry.head_size["core_block"] * item
    typical = min(manifest.trained_loops, manifest.max_loops)
    stored = manifest.memory_bytes - geometry.bytes_per_token(typical, item) * geometry.context
    if platform == "web":  # the file's bytes, and what the runtime makes of its matrices
        matrices = sum(math.prod(t.shape) for n, t in manifest.quantization.tensors.items() if "value_embed" not in n)
        stored += 4 * matrices if manifest.portable else stored
    return Memory(
        weights=stored,
        cache_per_token=one - slot,
        cache_per_token_and_slot=slot,
        slots=geometry.slots,
        work_per_chunk_token=work_per_token(manifest),
        work=4 * manifest.geometry.padded_vocab_size + needs.runtime_bytes,
        overhead_percent=needs.overhead_percent,
    )


def work_per_token(manifest: Manifest) -> int:
    """Bytes of one token in the arrays that pass between graphs, which are (1, tokens) or (1, tokens, width)."""
    arrays: dict[str, int] = {}
    for signature in manifest.signature.values():
        for port in [*signature.inputs, *signature.outputs]:
            if len(port.shape) in (2, 3) and port.name not in ("logits", "attention_mask"):
                width = port.shape[2] if len(port.shape) == 3 else 1
                arrays[port.name] = int(width) * np.dtype(port.dtype).itemsize
    return sum(arrays.values())


def tokenizer_of(folder: Path, manifest: Manifest) -> Tokenizer | None:
    """Facts of `tokenizer.json`; None where the model has none (ids only: random weights)."""
    if TOKENIZER not in manifest.files or manifest.bos is None:
        return None
    try:
        values = read_object(folder / TOKENIZER, InputError)
        kind, vocabulary = str(values["model"]["type"]), values["model"]["vocab"]
        size = len(vocabulary) + sum(token["content"] not in vocabulary for token in values["added_tokens"])
    except (ValueError, LookupError, TypeError) as error:
        raise InputError(f"{folder / TOKENIZER}: not a tokenizer as apps read them ({error!r})") from None
    stop = manifest.stops or ([] if manifest.eos is None else [manifest.eos])
    stop = [token for token in stop if token < manifest.geometry.vocab_size]
    return Tokenizer(file=TOKENIZER, kind=kind, vocab_size=size, bos=manifest.bos, add_bos=True, stop=stop)
