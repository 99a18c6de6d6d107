"""Cache vectors: the slots of each policy, what they hold after each chunk, and how a prompt is cut into chunks.

An entry of a slot is written "piece.loop": the keys and values that loop `loop` of the piece `piece` gave that place.
`docs/kv-cache.md` is the contract in words.
"""

from __future__ import annotations

from typing import Any

from parcae_mobile.loops import KV_POLICIES, policy_slots

from .files import Cases

# "run": tokens, loops; "exit": loops asked, loops used; "rewind": length; "cancel": tokens, loops done when it stopped
Step = tuple[str, int, int]


class SymbolicCache:
    """One recurrent layer's slots, with names in place of keys and values."""

    def __init__(self, policy: str, max_loops: int) -> None:
        self.slots: list[list[str]] = [[] for _ in range(policy_slots(policy, max_loops))]
        self.pieces = self.length = 0

    def slot_of(self, loop: int) -> int:
        """Slot (from 0) of a loop (from 1)."""
        return min(loop, len(self.slots)) - 1

    def run(self, tokens: int, loops: int) -> list[dict[str, Any]]:
        """Store a piece that ran `loops` loops; returns what each of them read of the past."""
        self.pieces += 1
        reads = []
        for loop in range(1, loops + 1):
            slot = self.slots[self.slot_of(loop)]
            slot[self.length :] = [f"{self.pieces}.{loop}"] * tokens
            reads.append({"loop": loop, "slot": self.slot_of(loop), "past": slot[: self.length]})
        last = self.slot_of(loops)
        for slot in self.slots[last + 1 :]:
            slot[self.length :] = self.slots[last][self.length :]
        self.length += tokens
        return reads

    def rewind(self, length: int) -> None:
        """Forget what follows the first `length` tokens."""
        self.length = length
        self.slots = [slot[:length] for slot in self.slots]


STORIES: dict[str, list[Step]] = {
    "one loop count": [("run", 4, 3), ("run", 1, 3), ("run", 1, 3)],
    "a message at more loops": [("run", 3, 2), ("run", 1, 2), ("run", 2, 5), ("run", 1, 5)],
    "a message at fewer loops": [("run", 3, 5), ("run", 1, 5), ("run", 2, 1), ("run", 1, 1)],
    "up, down and up": [("run", 2, 1), ("run", 2, 6), ("run", 1, 2), ("run", 1, 4), ("run", 1, 6)],
    "early exit": [("run", 3, 6), ("exit", 6, 2), ("exit", 6, 4), ("exit", 6, 6), ("run", 1, 6)],
    "the same answer at another T": [("run", 3, 2), ("run", 1, 2), ("run", 1, 2), ("rewind", 3, 0), ("run", 1, 6)],
    "stopped inside of a token": [("run", 3, 4), ("run", 1, 4), ("cancel", 1, 2), ("run", 1, 4)],
}
MAX_LOOPS = 6


def cache_vectors() -> Cases:
    """Slot maps, stories and chunk plans."""
    layouts = [
        {"policy": policy, "max_loops": most, "slots": policy_slots(policy, most)}
        | {"slot_of_loop": [SymbolicCache(policy, most).slot_of(loop) for loop in range(1, most + 1)]}
        for policy in KV_POLICIES
        for most in (1, 2, 3, 8)
    ]
    stories = [
        {"policy": policy, "max_loops": MAX_LOOPS, "case": name, "steps": story(policy, steps)}
        for policy in KV_POLICIES
        for name, steps in STORIES.items()
    ]
    chunks = [
        chunk_case(*given)
        for given in [
            (0, 1, 128, 1024, 64),
            (0, 127, 128, 1024, 64),
            (0, 128, 128, 1024, 64),
            (0, 129, 128, 1024, 64),
            (0, 300, 128, 1024, 64),
            (200, 300, 128, 1024, 64),
            (1000, 24, 128, 1024, 1),
            (0, 1024, 256, 1024, 1),
            (0, 7, 3, 16, 10),
            (0, 7, 3, 16, 11),
            (10, 7, 3, 16, 1),
            (16, 1, 3, 16, 1),
            (0, 0, 3, 16, 1),
        ]
    ]
    return {"layouts": layouts, "stories": stories, "chunks": chunks, "may_run": may_run_cases()}


def may_run_cases() -> list[dict[str, Any]]:
    """Whether a chunk may run so many loops after tokens that ran others, where slots can be copied and where not."""
    cases = []
    for policy in KV_POLICIES:
        slots = policy_slots(policy, MAX_LOOPS)
        for fill_above in (True, False):
            for held, loops in (([], 6), ([6, 6], 6), ([2, 2], 2), ([2, 2], 3), ([6, 2, 6], 4), ([1], 2), ([4], 1)):
                reached = min([slots, *held])  # slots that every held token has written
                allowed = fill_above or min(loops, slots) <= reached
                cases.append(
                    {"policy": policy, "slots": slots, "fill_above": fill_above, "held": held, "loops": loops}
                    | {"allowed": allowed}
                )
    return cases


def story(policy: str, steps: list[Step]) -> list[dict[str, Any]]:
    """What each step reads, and what the slots hold after it (places beyond the length hold anything)."""
    cache, told = SymbolicCache(policy, MAX_LOOPS), []
    for kind, first, second in steps:
        step: dict[str, Any] = {"step": kind}
        if kind == "run":
            step |= {"tokens": first, "loops": second, "reads": cache.run(first, second)}
        elif kind == "exit":
            step |= {"tokens": 1, "loops": first, "used": second, "reads": cache.run(1, second)}
        elif kind == "cancel":
            cache.pieces += 1
            step |= {"tokens": first, "loops_done": second}
        else:
            cache.rewind(first)
            step |= {"length": first}
        told.append(step | {"held": cache.length, "slots": [list(slot) for slot in cache.slots]})
    return told


def chunk_case(held: int, prompt: int, chunk: int, context: int, new: int) -> dict[str, Any]:
    """The calls that give a prompt of `prompt` tokens; null where it is empty or does not fit with `new` more.

    The last new token is shown and not given, so it needs no place. A call's inputs are `total` (places filled after
    it) and `positions` (of the logits that are wanted).
    """
    case = {"held": held, "prompt": prompt, "chunk": chunk, "context": context, "new_tokens": new}
    if not prompt or held + prompt + new > context + 1:
        return case | {"calls": None}
    calls = []
    for start in range(0, prompt, chunk):
        length = min(chunk, prompt - start)
        calls.append({"from": start, "length": length, "total": held + start + length, "positions": [length - 1]})
    return case | {"calls": calls}
