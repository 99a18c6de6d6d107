"""A manifest from what is known about an artifact: geometry, cache contract, quantization table, versions."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any, cast

from export.kv.choice import PolicyChoice
from export.source import Source
from export.targets.host import CacheGeometry
from export.targets.registry import DYNAMIC, Target, WriteOptions
from export.targets.runtimes import least_runtimes
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

KV_BYTES = {"fp32": 4, "fp16": 2, "int8": 1}  # of one number in a cache
PROMISES = {
    "fp32": "token parity: fp32 arithmetic gives the same greedy tokens on every CPU",
    "fp16": "agreement is a rate: activations are fp16",
    "int8": "agreement is a rate: activations are rounded to int8 at each matrix product",
}

FUSED = ", in onnxruntime with session.qdq_matmulnbits_accuracy_level 1"  # it rounds to int8 where it is not told so


def assemble(
    source: Source,
    quantized: QuantizedModel,
    target: Target,
    options: WriteOptions,
    signature: dict[str, Signature],
    certificate: Certificate,
    compression: Verdict,
    choice: PolicyChoice | None,
) -> Manifest:
    """The manifest before the gates ran and the files were hashed; those fields are filled in afterwards."""
    config = source.model.config
    geometry = CacheGeometry.of(config, options.max_loops, options.context, options.kv_policy)
    item = KV_BYTES[options.kv_dtype]
    per_token = {str(count): geometry.bytes_per_token(count, item) for count in options.verified_loops()}
    table = {
        name: QuantEntry(bits=t.bits, group_size=t.group_size, symmetric=t.symmetric, shape=list(t.shape))
        for name, t in quantized.tensors.items()
    }
    for name, palette in quantized.palettes.items():
        rows = palette.rows_per_palette
        shape = list(palette.shape)
        table[name] = QuantEntry(bits=palette.bits, group_size=0, symmetric=False, shape=shape, palette_rows=rows)
    stored = sum(tensor.nbytes for tensor in quantized.stored.values())
    stored += sum(p.numel() * 4 for name, p in source.model.named_parameters() if name not in quantized.stored)
    floors = least_runtimes(target.name, options.portable, options.kv_dtype)
    typical = min(config.mean_recurrence, options.max_loops)
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
        promise=PROMISES[options.compute] + (FUSED if options.portable and options.compute == "fp32" and table else ""),
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
        kv=KV(
            policy=cast(Any, options.kv_policy),
            dtype=options.kv_dtype,
            bytes_per_token=per_token,
            context=geometry.context,
            measured={} if choice is None else {name: cost.to_dict() for name, cost in choice.measured.items()},
            measured_at_loops=None if choice is None else choice.loops,
        ),
        quantization=Quantization(
            recipe=quantized.recipe.name,
            algorithm=quantized.algorithm if table else "none",
            tensors=table,
            notes=[*quantized.notes, *([target.layout] if table and target.layout and not options.portable else [])],
        ),
        certificate=certificate,
        lowering=Verdict(passed=None, by_loops={}),
        compression=compression,
        reference=None,
        verified_by="not verified",
        memory_bytes=stored + geometry.bytes_per_token(typical, item) * geometry.context,
        minimum_runtime={name: floor.version for name, floor in floors.items()},
        tools={package: _version(package) for package in ("parcae-mobile", *target.packages)},
        files={},
    )


def _version(package: str) -> str:
    try:
        return version(package).split("+")[0]
    except PackageNotFoundError:
        return "not installed"
