"""Makes the app kit: tokenizers, vectors and schemas, into this folder or another.

python -m app_kit.make                                 # what is checked in; make app-kit does the same
python -m app_kit.make --out /elsewhere
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from pydantic import BaseModel

from parcae_mobile.app_manifest import AppManifest, Models

from .cache_vectors import cache_vectors
from .files import write_vectors
from .loop_vectors import loop_vectors
from .manifest_vectors import manifest_vectors
from .memory_vectors import memory_vectors
from .model_vectors import model_vectors
from .sampler_vectors import sampler_vectors
from .signature_vectors import signature_vectors
from .stop_vectors import stop_vectors
from .tiny_tokenizers import write_tokenizers
from .tokenizer_vectors import tokenizer_vectors

HERE = Path(__file__).parent
SCHEMAS: dict[str, type[BaseModel]] = {"app": AppManifest, "models": Models}


def write_definitions(folder: Path) -> None:
    """Write what follows from definitions alone: the same bytes on every machine."""
    vectors = folder / "vectors"
    write_tokenizers(folder / "tokenizers")
    cases, facts = tokenizer_vectors(folder / "tokenizers")
    write_vectors(vectors / "tokenizer.json", "encode, decode, and decoding in a stream", cases, **facts)
    cases, facts = sampler_vectors()
    write_vectors(vectors / "sampler.json", "the random generator, and tokens drawn by each setting", cases, **facts)
    write_vectors(vectors / "stop.json", "texts and token ids that end an answer", stop_vectors())
    cases, facts = loop_vectors()
    write_vectors(vectors / "loops.json", "T of a message, the calls it makes, early exit", cases, **facts)
    write_vectors(vectors / "cache.json", "slots of each policy, what they hold, chunks of a prompt", cache_vectors())
    cases, facts = manifest_vectors()
    write_vectors(vectors / "manifest.json", "manifests that an app takes and refuses", cases, **facts)
    write_vectors(vectors / "signature.json", "signatures of a manifest, taken and refused", signature_vectors())
    write_vectors(vectors / "memory.json", "bytes that an app estimates before loading", memory_vectors())
    (folder / "schema").mkdir(parents=True, exist_ok=True)
    for name, model in SCHEMAS.items():
        text = json.dumps(model.model_json_schema(), indent=1, sort_keys=True)
        (folder / "schema" / f"{name}.schema.json").write_text(text + "\n", encoding="utf-8")


def write_measured(folder: Path) -> None:
    """Write what the embedded model answers; the last digits of its logits are those of this machine."""
    cases, facts = model_vectors()
    about = "the embedded model in fp32: logits, answers, conversations"
    write_vectors(folder / "vectors" / "model.json", about, cases, **facts)


def main() -> None:
    """Read the arguments and write the kit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE, help="folder that receives the kit")
    folder = parser.parse_args().out
    write_definitions(folder)
    write_measured(folder)


if __name__ == "__main__":
    main()
