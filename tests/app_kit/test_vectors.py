"""This repository's own tokenizer, sampler, stops, scheduler, cache and manifest reader pass the kit's vectors."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from app_kit.manifest_vectors import text_of
from export.targets.host import CacheGeometry, Chunk, Host
from export.targets.onnx.runtime.host import OnnxHost
from parcae_mobile import Parcae
from parcae_mobile.app_checks import check_files, check_runtime, is_at_least, read_app_manifest
from parcae_mobile.app_manifest import APP_MANIFEST, APP_SIGNATURE, Cache, Loops, Memory
from parcae_mobile.errors import AppManifestError, InputError, PromptTooLongError, SignatureError, UsageError
from parcae_mobile.kv_cache import KVCache
from parcae_mobile.loops import check_threshold, policy_slots
from parcae_mobile.manifest import sha256_of
from parcae_mobile.sampling import Random, Sampler, Sampling
from parcae_mobile.signature import check_signature
from parcae_mobile.stopping import StopTexts
from parcae_mobile.text import EMBEDDED_MODEL
from parcae_mobile.tokenizer import TextTokenizer

Vectors = Callable[[str], dict[str, Any]]
KIT = Path(__file__).parents[2] / "app_kit"


@pytest.fixture(scope="module")
def tokenizers(vectors: Vectors) -> dict[str, TextTokenizer]:
    found = {}
    for name, facts in vectors("tokenizer")["tokenizers"].items():
        path = EMBEDDED_MODEL / "tokenizer.json" if name == "embedded" else KIT / facts["file"]
        assert sha256_of(path) == facts["sha256"]
        found[name] = TextTokenizer.read(path)
    return found


def test_signatures_are_taken_and_refused(vectors: Vectors, tmp_path: Path) -> None:
    for case in vectors("signature")["cases"]:
        (tmp_path / APP_MANIFEST).write_bytes(case["manifest"].encode())
        (tmp_path / APP_SIGNATURE).unlink(missing_ok=True)
        if case["signature"] is not None:
            (tmp_path / APP_SIGNATURE).write_bytes(bytes.fromhex(case["signature"]))
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(case["key"]))
        if case["valid"]:
            check_signature(tmp_path, key)
        else:
            with pytest.raises(SignatureError):
                check_signature(tmp_path, key)


def test_texts_become_the_ids_and_ids_become_the_texts(vectors: Vectors, tokenizers: dict[str, TextTokenizer]) -> None:
    for case in vectors("tokenizer")["encode"]:
        tokenizer = tokenizers[case["tokenizer"]]
        assert tokenizer.encode(case["text"]) == case["ids"], case
        assert tokenizer.decode(case["ids"]) == case["decoded"], case
    for case in vectors("tokenizer")["decode"]:
        assert tokenizers[case["tokenizer"]].decode(case["ids"]) == case["decoded"], case


def test_lone_halves_of_pairs_are_replaced(vectors: Vectors, tokenizers: dict[str, TextTokenizer]) -> None:
    for case in vectors("tokenizer")["encode_utf16"]:
        data = b"".join(unit.to_bytes(2, "little") for unit in case["utf16"])
        text = data.decode("utf-16-le", errors="surrogatepass")  # halves stay what they are, as in a JSON text
        assert tokenizers[case["tokenizer"]].encode(text) == case["ids"], case


def test_a_stream_never_shows_half_a_character(vectors: Vectors, tokenizers: dict[str, TextTokenizer]) -> None:
    for case in vectors("tokenizer")["stream"]:
        tokenizer = tokenizers[case["tokenizer"]]
        pieces = tokenizer.pieces(case["ids"])
        assert case["pieces"] is None or pieces == case["pieces"], case
        assert "".join(pieces) == "".join(tokenizer.stream(iter(case["ids"]))) == case["text"], case


def test_the_generator_gives_the_words_and_fractions(vectors: Vectors) -> None:
    for case in vectors("sampler")["random"]:
        words, fractions = Random(case["seed"]), Random(case["seed"])
        assert [words.word() for _ in case["words"]] == case["words"]
        assert [fractions.uniform() for _ in case["uniforms"]] == case["uniforms"]


def test_every_setting_draws_the_tokens(vectors: Vectors) -> None:
    for case in vectors("sampler")["choose"]:
        given = case["logits"]
        if isinstance(given, dict):
            random = Random(given["seed"])
            logits = np.array([random.uniform() * 20 - 10 for _ in range(given["count"])]).astype(np.float32)
        else:
            logits = np.array([-np.inf if value is None else value for value in given], np.float32)
        sampler, history = Sampler(Sampling(**case["settings"])), list(case["history"])
        for expected in case["tokens"]:
            history.append(sampler.choose(logits, history))
            assert history[-1] == expected, case["case"]


def test_settings_and_logits_that_cannot_be_are_refused(vectors: Vectors) -> None:
    for case in vectors("sampler")["bad_settings"]:
        with pytest.raises(UsageError):
            Sampling(**case["settings"])
    for case in vectors("sampler")["bad_logits"]:
        with pytest.raises(InputError):
            Sampler(Sampling()).choose(np.array([float(value) for value in case["logits"]], np.float32))


def test_stops_end_the_text_wherever_it_is_cut(vectors: Vectors) -> None:
    for case in vectors("stop")["texts"]:
        for pieces, shown in ((case["pieces"], case["shown"]), (list("".join(case["pieces"])), None)):
            stop = StopTexts(case["stops"])
            found = [stop.feed(piece) for piece in pieces]
            assert shown is None or found == shown, case
            assert "".join(found) + stop.finish() == "".join(case["shown"]) + case["rest"], case
            assert stop.found == case["found"], case
    for case in vectors("stop")["bad"]:
        with pytest.raises(UsageError):
            StopTexts(case["stops"])


def test_a_message_gets_its_loops(vectors: Vectors) -> None:
    for case in vectors("loops")["choose"]:
        loops = Loops.model_validate(case["loops"] | {"early_exit": False})
        if case["chosen"] is None:
            with pytest.raises(UsageError):
                loops.choose(case["asked"])
        else:
            assert loops.choose(case["asked"]) == case["chosen"], case
    for case in vectors("loops")["bad_thresholds"]:
        with pytest.raises(UsageError):
            check_threshold(case["threshold"])


def test_a_token_leaves_the_loop_when_it_stands_still(vectors: Vectors) -> None:
    for case in vectors("loops")["exit"]:
        before, used = np.zeros_like(np.array(case["states"][0], np.float32))[None], case["loops"]
        for loop, state in enumerate(case["states"][: case["loops"]], start=1):
            after = np.array(state, np.float32)[None]
            if loop >= case["exit_from"] and case["threshold"] and Host.converged(before, after, case["threshold"]):
                used = loop
                break
            before = after
        assert used == case["used"], case["case"]


class Symbols(OnnxHost):
    """The ONNX host's cache without sessions: one number stands for the keys and values of a place."""

    def __init__(self, geometry: CacheGeometry) -> None:
        Host.__init__(self, geometry)
        self._kv_dtype, self._caches = np.float32, {}
        self._capacity = self._slots = 0
        self._step = None

    def store(self, tokens: int, loops: int, used: int, tag: float) -> list[tuple[int, list[float]]]:
        """Write as `run` does; returns the slot and the past that each loop reads."""
        self._reserve(self.length + tokens, loops)
        reads = []
        cache = self._cache("core_block", 0, "key")
        for loop in range(used):
            slot = cache[self.slot_of("core_block", loop), 0, 0, :, 0]
            slot[self.length : self.length + tokens] = tag + (loop + 1) / 16
            reads.append((self.slot_of("core_block", loop), slot[: self.length].tolist()))
        return reads

    def finish(self, tokens: int, used: int) -> None:
        self._fill_above(used, self.length, self.length + tokens)
        self.length += tokens

    def held(self) -> list[list[float]]:
        return [slot[0, 0, : self.length, 0].tolist() for slot in self._cache("core_block", 0, "key")]


def number(name: str) -> float:
    piece, loop = name.split(".")
    return int(piece) + int(loop) / 16


def test_the_slots_hold_what_each_policy_says(vectors: Vectors, small: Callable[..., Parcae]) -> None:
    config = small().config
    for case in vectors("cache")["layouts"]:
        assert policy_slots(case["policy"], case["max_loops"]) == case["slots"]
        cache = KVCache(config, case["max_loops"], policy=case["policy"], context=2)
        assert [cache.slot_of(loop) for loop in range(case["max_loops"])] == case["slot_of_loop"]
    for case in vectors("cache")["stories"]:
        host = Symbols(CacheGeometry.of(config, case["max_loops"], policy=case["policy"]))
        eager = KVCache(config, case["max_loops"], policy=case["policy"])
        for piece, step in enumerate([s for s in case["steps"] if s["step"] != "rewind"], start=1):
            step["piece"] = piece
        for step in case["steps"]:
            told(step, host, eager)
            assert host.length == eager.length == step["held"], case
            expected = [[number(name) for name in slot] for slot in step["slots"]]
            held = host.held()  # a host makes a slot when a loop first needs it, as a copy of the last one
            held += [held[-1]] * (len(expected) - len(held))
            assert held == expected, case
            assert [slot[0, 0, 0, : eager.length, 0].tolist() for slot in eager.keys["core_block"]] == expected, case


def test_no_slot_is_read_that_a_token_never_wrote(vectors: Vectors) -> None:
    stage = {"layers": 1, "heads": 1, "head_size": 1, "slots": 1}
    for case in vectors("cache")["may_run"]:
        recur = stage | {"slots": case["slots"]}
        values = {"policy": case["policy"], "dtype": "fp32", "context": 8, "prefill_chunk": 8}
        values |= {"prelude": stage, "recur": recur, "coda": stage, "fill_above": case["fill_above"]}
        assert Cache.model_validate(values).may_run(case["held"], case["loops"]) == case["allowed"], case


def told(step: dict[str, Any], host: Symbols, eager: KVCache) -> None:
    """One step of a story, on the host's cache and on the eager one."""
    if step["step"] == "rewind":
        host.rewind(step["length"])
        eager.length = step["length"]
        return
    tokens = step["tokens"]
    used = step.get("used", step.get("loops_done", step.get("loops")))
    reads = host.store(tokens, step.get("loops", used), used, float(step["piece"]))
    for loop in range(used):
        place = (eager.slot_of(loop), ..., slice(eager.length, eager.length + tokens), slice(None))
        eager.keys["core_block"][place] = step["piece"] + (loop + 1) / 16
    if step["step"] == "cancel":
        return
    for (slot, past), expected in zip(reads, step["reads"], strict=True):
        assert (slot, past) == (expected["slot"], [number(name) for name in expected["past"]])
    host.finish(tokens, used)
    eager.advance(tokens, used)


class Recorder(Host):
    """Remembers how it was called."""

    def __init__(self, context: int, held: int, chunk: int) -> None:
        stages = {"prelude": 1, "core_block": 1, "coda": 1}
        super().__init__(CacheGeometry(stages, stages, stages, 1, context, 16, 1, 4, 2048))
        self.length, self.prefill_chunk = held, chunk
        self.calls: list[dict[str, Any]] = []

    def _run(self, chunk: Chunk) -> np.ndarray:
        first, positions = int(chunk.tokens[0, 0]), chunk.positions.tolist()
        self.calls.append({"from": first, "length": chunk.length, "total": chunk.total, "positions": positions})
        return np.zeros((1, 4), np.float32)


def test_a_prompt_is_given_in_these_chunks(vectors: Vectors) -> None:
    from export.run.generation import generate

    for case in vectors("cache")["chunks"]:
        host, prompt = Recorder(case["context"], case["held"], case["chunk"]), list(range(case["prompt"]))
        if case["calls"] is None:
            with pytest.raises((UsageError, PromptTooLongError)):
                generate(host, prompt, Sampling(), 1, case["new_tokens"])
            assert not host.calls
        else:
            generate(host, prompt, Sampling(), 1, case["new_tokens"])
            host.prefill(prompt, 1)
            assert host.calls == case["calls"], case


def test_manifests_are_taken_and_refused(vectors: Vectors, tmp_path: Path) -> None:
    given = vectors("manifest")
    app = given["app"]
    for place, case in enumerate(given["cases"]):
        folder = tmp_path / str(place)
        for name, content in {**given["contents"], **case.get("files", {})}.items():
            if content is not None:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(base64.b64decode(content))
        kind = where = None
        try:
            manifest = read_app_manifest(text_of(given["base"], case))
            check_runtime(manifest, app["platform"], app["runtime"], app["version"])
            check_files(manifest, folder)
        except AppManifestError as error:
            kind, where = error.kind, error.where
            assert "\n" not in str(error)
        assert kind == case["kind"], case
        assert "where" not in case or where == case["where"], case
    for case in given["versions"]:
        assert is_at_least(case["version"], case["minimum"]) == case["enough"], case


def test_memory_is_estimated_in_whole_numbers(vectors: Vectors) -> None:
    for case in vectors("memory")["estimates"]:
        memory = Memory.model_validate(case["memory"])
        assert memory.estimate(case["loops"], case["tokens"], case["chunk"]) == case["bytes"], case
