"""Memory vectors: what an app estimates before it loads anything, in whole numbers."""

from __future__ import annotations

from typing import Any

from parcae_mobile.app_manifest import Memory

from .files import Cases

SHARED = {"weights": 96_000_000, "cache_per_token": 24_576, "cache_per_token_and_slot": 12_288, "slots": 1}
FULL = SHARED | {"slots": 16}
WORK = {"work_per_chunk_token": 24_576, "work": 131_072, "overhead_percent": 0}
LARGE = {"weights": 3_000_000_000, "cache_per_token": 262_144, "cache_per_token_and_slot": 131_072, "slots": 16}
SIZES = ((1, 0, 0), (1, 1024, 128), (4, 256, 128), (8, 1024, 128), (16, 1024, 64), (32, 8, 1))


def memory_vectors() -> Cases:
    """Cases: a manifest's memory part, loops, tokens that the caches hold, tokens of the longest chunk, bytes."""
    cases: list[dict[str, Any]] = []
    for name, memory in [("shared", SHARED | WORK), ("full", FULL | WORK), ("above 32 bits", LARGE | WORK)] + [
        ("overhead", FULL | WORK | {"overhead_percent": 25}),
        ("nothing but weights", dict.fromkeys(SHARED | WORK, 0) | {"weights": 7, "slots": 1, "overhead_percent": 50}),
    ]:
        for loops, tokens, chunk in SIZES:
            need = Memory.model_validate(memory).estimate(loops, tokens, chunk)
            size = {"loops": loops, "tokens": tokens, "chunk": chunk}
            cases.append({"case": name, "memory": memory, **size, "bytes": need})
    return {"estimates": cases}
