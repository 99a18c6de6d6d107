"""Random models over every option of the original, exported to every target: verified, or refused by name and at once.

    make shapes                                        # 300 shapes x 3 targets: hours
    python -m tests.random_shapes --count 12 --first 40 --target onnx

A shape is drawn from its number alone, so a line that failed can be run again by it. The exit code is 1 if any export
ended otherwise than verified or refused.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from export.pipeline import run_export
from export.request import ExportRequest
from parcae_mobile.config import ParcaeConfig
from parcae_mobile.errors import ConfigError, GateError, ParcaeError
from parcae_mobile.gpt_config import as_gpt
from parcae_mobile.random_weights import random_model

TARGETS = ("onnx", "executorch", "coreml")
REFUSED_WITHIN = 3.0  # seconds
HEADS = (2, 4, 6, 8, 10, 12, 16, 20, 24, 32, 40, 64)


@dataclass(frozen=True)
class Outcome:
    """How one export ended: `kind` is verified, refused, failed (a gate) or broken."""

    shape: int
    target: str
    kind: str
    said: str
    seconds: float

    @property
    def fine(self) -> bool:
        return self.kind == "verified" or (self.kind == "refused" and self.seconds <= REFUSED_WITHIN)


def drawn_values(number: int) -> dict[str, Any]:
    """The saved fields of shape `number`: a looped model, or for every fifth a plain baseline."""
    while True:
        values = _draw(random.Random(f"shape {number}"), number)
        try:
            ParcaeConfig.from_dict(values)
        except ConfigError:
            number += 1_000_000  # a combination that the original cannot run either
            continue
        return values


def _draw(rng: random.Random, number: int) -> dict[str, Any]:
    rope = rng.random() < 0.75
    size = rng.choice(HEADS) if rope else rng.choice((*HEADS, 3, 5, 9))
    heads = rng.choice((1, 2, 3, 4))
    kv_heads = rng.choice([count for count in range(1, heads + 1) if heads % count == 0])
    state_heads = heads if rng.random() < 0.6 else rng.choice((1, 2, 3, 5))
    state_size = size if rope or rng.random() < 0.5 else rng.choice(HEADS)
    width = size * heads
    vocabulary = rng.randint(20, 150)
    values: dict[str, Any] = {
        "name": f"shape-{number}",
        "block_size": rng.choice((1, 2, 3, 4, 5, 8, 16, 31, 48, 64)),
        "n_embd": width,
        "intermediate_size": rng.choice((None, width, 2 * width, 3 * width + 2, 50)),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocabulary,
        "padding_multiple": rng.choice((1, 8, 64)),
        "rope_settings": {"use_rope": rope, "rope_base": rng.choice((500, 10_000, 50_000))},
        "norm_class_name": rng.choice(("RMSNorm", "LayerNorm")),
        "mlp_class_name": rng.choice(("BaseMLP", "GatedMLP")),
        "nonlin_name": rng.choice(("ReLU2", "GELU", "SiLU", "ReLU")),
        "bias": rng.random() < 0.3,
        "qk_bias": rng.random() < 0.3,
        "qk_norm": rng.random() < 0.6,
        "clip_qkv": rng.choice((None, None, 1.5, 8)),
        "logit_softcap": rng.choice((None, None, 15.0)),
        "init_strategy": rng.choice(("scaled-zero", "takase", "takase-scaled", "llama-by-dim-ls", "scaled")),
        "use_fused_head": rng.choice(("pytorch", "cce", "full-triton", False, None)),
        "simple_ops": rng.random() < 0.2,
        "tie_embeddings": rng.random() < 0.6,
        "randomize_positions_from": rng.choice((None, None, None, 96)),
        "injection_type": rng.choice(("diagonal", "diagonal", "linear", "add")),
        "n_layers_in_prelude": rng.randint(0, 2),
        "n_layers_in_recurrent_block": rng.randint(1, 3),
        "n_layers_in_coda": rng.randint(0, 2),
        "recurrent_embedding_dimension": state_size * state_heads,
        "recurrent_intermediation_embedding_dimension": rng.choice((32, 50, 96)),
        "recurrent_num_attention_heads": state_heads,
        "prelude_norm": rng.random() < 0.5,
        "mean_recurrence": rng.randint(1, 8),
        "mean_backprop_depth": rng.randint(1, 4),
    }
    if number % 5 == 0:
        layers = rng.randint(1, 4)
        return as_gpt({**values, "n_layers_in_prelude": layers - 1})
    return values


def write_shape(number: int, folder: Path) -> Path:
    """A checkpoint of shape `number` with seeded weights, as the original saves it; returns the folder."""
    values = drawn_values(number)
    config = ParcaeConfig.from_dict(values)
    model = random_model(config, number)
    tensors = {name: tensor.clone() for name, tensor in model.named_parameters()}
    if config.transposed_head:
        tensors["lm_head.weight"] = tensors["lm_head.weight"].T.contiguous()
    if config.plain:
        last = config.n_layers_in_prelude
        tensors = {_gpt_name(name, last): tensor for name, tensor in tensors.items()}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
    save_file(tensors, folder / "model.safetensors")
    return folder


def _gpt_name(name: str, last: int) -> str:
    return name.replace("transformer.prelude.", "transformer.h.").replace(
        "transformer.core_block.0.", f"transformer.h.{last}."
    )


def attempt(number: int, target: str, folder: Path) -> Outcome:
    """Export shape `number` to a target with its gates. Form and quantization depend on the number."""
    checkpoint = folder / f"shape-{number}"
    if not checkpoint.exists():
        write_shape(number, checkpoint)
    rng = random.Random(f"options {number}")
    plain = number % 5 == 0
    loops = ["dynamic"] if rng.random() < 0.5 else ["1" if plain else rng.choice(("1", "2", "3"))]
    request = ExportRequest(
        model=str(checkpoint),
        target=[target],
        loops=loops,
        max_loops=3,
        portable=target == "onnx" and rng.random() < 0.3,
        quant="int8" if target == "onnx" and rng.random() < 0.5 else "fp32",
        compute="fp32",
        out=folder / f"out-{number}-{target}",
        threads=1,
    )
    started = time.perf_counter()
    try:
        (result,) = run_export(request)
        kind, said = ("verified", "") if result.passed else ("failed", "; ".join(result.problems))
    except GateError as error:
        kind, said = "failed", str(error)
    except ParcaeError as error:
        kind, said = "refused", str(error)
    except Exception as error:  # what a user would see as a traceback
        kind, said = "broken", f"{type(error).__name__}: {error}"
    return Outcome(number, target, kind, " ".join(said.split()), time.perf_counter() - started)


def main() -> None:
    """Run a range of shapes and print a line for each export that was not verified, then the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--target", action="append", choices=TARGETS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    outcomes = []
    for number in range(asked.first, asked.first + asked.count):
        with tempfile.TemporaryDirectory() as name:
            for target in asked.target or TARGETS:
                outcome = attempt(number, target, Path(name))
                outcomes.append(outcome)
                if outcome.kind != "verified":
                    print(f"{number} {target} {outcome.kind} {outcome.seconds:.1f}s {outcome.said}", flush=True)
    for target in asked.target or TARGETS:
        kinds = [outcome.kind for outcome in outcomes if outcome.target == target]
        print(target, {kind: kinds.count(kind) for kind in sorted(set(kinds))})
    sys.exit(not all(outcome.fine for outcome in outcomes))


if __name__ == "__main__":
    main()
