"""A manifest from what is known about an artifact: geometry, cache contract, quantization table, versions.

The schema, and with it what an artifact may contain, is `parcae_mobile/manifest.py`.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any, cast

from export.job import Job
from export.targets.host import CacheGeometry
from export.targets.registry import DYNAMIC
from export.targets.runtimes import least_runtimes
from export.targets.shapes import head_sizes
from parcae_mobile.loops import KV_BYTES
from parcae_mobile.manifest import (
    KV,
    Certificate,
    Geometry,
    Manifest,
    QuantEntry,
    Quantization,
    Signature,
    Verdict,
)
from quantize.apply import QuantizedModel
from quantize.budgets import is_looser

PROMISES = {
    "fp32": "token parity: fp32 arithmetic gives the same greedy tokens on every CPU",
    "fp16": "agreement is a rate: activations are fp16",
    "int8": "agreement is a rate: activations are rounded to int8 at each matrix product",
}

FUSED = ", in onnxruntime with session.qdq_matmulnbits_accuracy_level 1"  # it rounds to int8 where it is not told so


def assemble(
    job: Job,
    quantized: QuantizedModel,
    signature: dict[str, Signature],
    certificate: Certificate,
) -> Manifest:
    """The manifest before the gates ran and the files were hashed; those fields are filled in afterwards."""
    source, target, options, config = job.source, job.target, job.options, job.source.model.config
    sizes = head_sizes(target, options, config)
    geometry = CacheGeometry.of(config, options.max_loops, options.context, options.kv_policy, sizes)
    quantization = _quantization(job, quantized)
    fused = FUSED if options.portable and options.compute == "fp32" and quantization.tensors else ""
    floors = least_runtimes(target.name, options.portable, options.kv_dtype)
    return Manifest(
        artifact="draft",
        model=source.name,
        weights_sha256=source.weights_sha256,
        target=target.name,
        loops="dynamic" if options.loops == DYNAMIC else int(options.loops),
        max_loops=options.max_loops,
        trained_loops=config.mean_recurrence,
        loop_form=options.loop_form,
        portable=options.portable,
        last_logits=options.last_logits,
        graphs={str(count): name for count, name in options.graphs.items()},
        compute=options.compute,
        promise=PROMISES[options.compute] + fused,
        geometry=Geometry(
            layers=geometry.layers,
            heads=geometry.heads,
            head_size=geometry.head_size,
            state_width=geometry.state_width,
            vocab_size=config.vocab_size,
            padded_vocab_size=config.padded_vocab_size,
            context=config.context,
        ),
        signature=signature,
        bos=None if source.tokenizer is None else source.tokenizer.bos,
        eos=None if source.tokenizer is None else source.tokenizer.eos,
        stops=[] if source.tokenizer is None else list(source.tokenizer.stops),
        kv=_cache(job, geometry),
        quantization=quantization,
        certificate=certificate,
        lowering=Verdict(passed=None, by_loops={}),
        compression=Verdict(passed=None, by_loops={}),
        reference=None,
        verified_by="not verified",
        memory_bytes=_memory_bytes(job, quantized, geometry),
        minimum_runtime={name: floor.version for name, floor in floors.items()},
        tools={package: _version(package) for package in ("parcae-mobile", *target.packages)},
        files={},
    )


def _cache(job: Job, geometry: CacheGeometry) -> KV:
    """The cache's contract, and what `--kv auto` measured."""
    options, choice = job.options, job.kv_choice
    item = KV_BYTES[options.kv_dtype]
    return KV(
        policy=cast(Any, options.kv_policy),
        slots=geometry.slots,
        dtype=cast(Any, options.kv_dtype),
        bytes_per_token={str(count): geometry.bytes_per_token(count, item) for count in options.verified_loops()},
        context=geometry.context,
        measured={} if choice is None else {name: cost.to_dict() for name, cost in choice.measured.items()},
        measured_at_loops=None if choice is None else choice.loops,
        note="" if choice is None else choice.note,
    )


def _quantization(job: Job, quantized: QuantizedModel) -> Quantization:
    """How each matrix is stored."""
    recipe = quantized.recipe
    table = {
        name: QuantEntry(bits=t.bits, group_size=t.group_size, symmetric=t.symmetric, shape=list(t.shape))
        for name, t in quantized.tensors.items()
    }
    for name, palette in quantized.palettes.items():
        rows = palette.rows_per_palette
        shape = list(palette.shape)
        table[name] = QuantEntry(bits=palette.bits, group_size=0, symmetric=False, shape=shape, palette_rows=rows)
    layout = [job.target.layout] if table and job.target.layout and not job.options.portable else []
    return Quantization(
        recipe=recipe.name,
        recipe_sha256=recipe.sha256,
        budget={"kl_mean": recipe.budget.kl, "top1": recipe.budget.top1},
        own_budget=is_looser(recipe, job.source.model),
        algorithm=quantized.algorithm if table else "none",
        tensors=table,
        halves=sorted(quantized.halves) if job.target.stores_fp16 else [],
        notes=[*quantized.notes, *layout],
    )


def _memory_bytes(job: Job, quantized: QuantizedModel, geometry: CacheGeometry) -> int:
    """Weights, and a full cache at the trained loop count."""
    model, options = job.source.model, job.options
    weights = sum(tensor.nbytes for tensor in quantized.stored.values())
    weights += sum(p.numel() * 4 for name, p in model.named_parameters() if name not in quantized.stored)
    typical = min(model.config.mean_recurrence, options.max_loops)
    return weights + geometry.bytes_per_token(typical, KV_BYTES[options.kv_dtype]) * geometry.context


def _version(package: str) -> str:
    try:
        return version(package).split("+")[0]
    except PackageNotFoundError:
        return "not installed"
