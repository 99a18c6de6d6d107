"""Generation on a host that is a table: sampling, stop tokens, characters of several bytes, refusals, reports."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.run.generation import Step, generate
from export.run.session import Completion
from export.targets.host import CacheGeometry, Chunk, Host
from parcae_mobile import Parcae
from parcae_mobile.errors import PromptTooLongError, UsageError
from parcae_mobile.sampling import Sampler, Sampling
from parcae_mobile.stopping import StopTexts
from parcae_mobile.text import EMBEDDED_MODEL
from parcae_mobile.tokenizer import TextTokenizer

Cli = Callable[..., Any]
CONTEXT = 600


class Table(Host):
    """Gives token n + 1 after token n, with n + 2 close behind, and keeps what it was asked."""

    def __init__(self, geometry: CacheGeometry) -> None:
        super().__init__(geometry)
        self.calls: list[tuple[list[int], int, float]] = []

    def _run(self, chunk: Chunk) -> np.ndarray:
        ids = chunk.tokens[0].tolist()
        self.calls.append((ids, chunk.loops, chunk.exit_threshold))
        self.loops_used = 2 if chunk.exit_threshold else chunk.loops
        logits = np.full((1, 64), -9.0, np.float32)
        logits[0, [(ids[-1] + 1) % 60, (ids[-1] + 2) % 60]] = 3.0, 2.5
        logits[0, 62] = 99.0  # padding, which is no token
        return logits


@pytest.fixture
def table(small: Callable[..., Parcae]) -> Table:
    return Table(CacheGeometry.of(small(block_size=CONTEXT).config, 8))


def tokens_of(steps: Any) -> list[int]:
    return [step.token for step in steps]


def test_greedy_takes_the_likeliest_and_never_padding(table: Table) -> None:
    assert tokens_of(generate(table, [1, 2, 3], Sampling(), 4, 5)) == [4, 5, 6, 7, 8]


def test_a_stop_token_is_the_last_one_and_needs_no_step_of_its_own(table: Table) -> None:
    assert tokens_of(generate(table, [3], Sampling(), 4, 50, stop=frozenset([6]))) == [4, 5, 6]
    assert [ids for ids, _, _ in table.calls] == [[3], [4], [5]]


def test_a_long_prompt_is_given_in_chunks_at_all_loops(table: Table) -> None:
    chunk = table.prefill_chunk
    prompt = [7] * (2 * chunk + 5)
    steps = list(generate(table, prompt, Sampling(), 8, 3, exit_threshold=0.1))
    assert [len(ids) for ids, _, _ in table.calls] == [chunk, chunk, 5, 1, 1]
    assert [threshold for _, _, threshold in table.calls] == [0.0, 0.0, 0.0, 0.1, 0.1]
    assert [step.loops for step in steps] == [8, 2, 2]
    assert all(step.seconds > 0 for step in steps)


def test_a_seed_repeats_itself_and_another_one_does_not(table: Table) -> None:
    def drawn(seed: int, **more: Any) -> list[int]:
        table.reset()
        return tokens_of(generate(table, [1], Sampling(temperature=1.0, seed=seed, **more), 2, 40))

    assert drawn(1) == drawn(1) != drawn(2)
    assert {after - before for before, after in zip(drawn(3, top_k=2), drawn(3, top_k=2)[1:], strict=False)} <= {
        1,
        2,
        -58,
        -59,
    }
    assert drawn(4, top_k=1) == [(2 + place) % 60 for place in range(40)] == drawn(4, top_p=0.01)


def test_temperature_and_the_cuts_draw_as_often_as_they_should() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))

    def share(sampling: dict[str, Any]) -> list[float]:
        sampler = Sampler(Sampling(**sampling))
        drawn = [sampler.choose(logits) for _ in range(4000)]
        return [drawn.count(token) / len(drawn) for token in range(4)]

    def near(*expected: float) -> Any:
        return pytest.approx(expected, abs=0.03)

    assert share({"temperature": 1.0}) == near(0.5, 0.3, 0.15, 0.05)
    assert share({"temperature": 1.0, "top_k": 2}) == near(0.625, 0.375, 0, 0)
    assert share({"temperature": 1.0, "top_p": 0.75}) == near(0.625, 0.375, 0, 0)
    assert share({"temperature": 1.0, "min_p": 0.25}) == near(0.526, 0.316, 0.158, 0)
    assert share({"temperature": 0.5}) == near(0.685, 0.247, 0.062, 0.007)
    assert share({"temperature": 1.0, "top_k": 3, "top_p": 0.5}) == near(1, 0, 0, 0)


def test_what_cannot_be_generated_is_refused_before_any_work(table: Table) -> None:
    for arguments, error in (
        (([], Sampling(), 4, 5), UsageError),
        (([1] * CONTEXT, Sampling(), 4, 2), PromptTooLongError),
        (([1], Sampling(), 4, 5, frozenset(), 1.0), UsageError),
    ):
        with pytest.raises(error):
            generate(table, *arguments)
    assert table.calls == []


def completion_of(text: str, tokenizer: TextTokenizer, ids: list[int] | None = None) -> Completion:
    steps = (Step(token, 0.25, loops) for loops, token in enumerate(tokenizer.encode(text) if ids is None else ids, 1))
    return Completion(8, steps, tokenizer, frozenset([tokenizer.eos]), StopTexts([]))


def test_no_piece_ends_inside_of_a_character() -> None:
    tokenizer = TextTokenizer.load(EMBEDDED_MODEL)
    assert tokenizer is not None
    text = "naïve — 漢字 🙂 e\u0301"
    completion = completion_of(text, tokenizer)
    pieces = list(completion)
    assert "".join(pieces) == completion.text == text
    assert len(pieces) < len(completion.steps) and all("\ufffd" not in piece for piece in pieces)
    ids = tokenizer.encode("漢字")
    cut = completion_of("", tokenizer, ids[:-1])  # ends inside of the last character
    assert "".join(cut) == "漢" and len(cut.steps) == len(ids) - 1


def test_a_completion_tells_what_it_used() -> None:
    tokenizer = TextTokenizer.load(EMBEDDED_MODEL)
    assert tokenizer is not None
    ids = tokenizer.encode("import os")
    completion = completion_of("", tokenizer, [*ids, tokenizer.eos])
    assert "".join(completion) == "import os" and completion.stopped
    count = len(ids) + 1
    assert completion.tokens_per_second == pytest.approx(4.0)
    assert completion.average_loops == pytest.approx((count + 1) / 2)
    assert f"{count - 1} tokens and an end of text at T=8" in completion.summary
    assert "first after 250 ms, then 4 tokens/s" in completion.summary and "loops on average" in completion.summary
    assert completion.to_dict()["loops_by_token"] == list(range(1, count + 1))


def test_loop_counts_are_shown_side_by_side(cli: Cli, exported: tuple[Path, Any]) -> None:
    arguments = ("generate", exported[0], "--prompt", "def f", "--tokens", 6, "--compare-loops", "1,2,8")
    ran = cli(*arguments)
    assert ran.code == 0 and ran.err == ""
    header = next(line for line in ran.out.splitlines() if "T=1" in line)
    assert "T=2" in header and "T=8" in header
    results = cli(*arguments, "--json").json["by_loops"]
    assert [result["loops"] for result in results] == [1, 2, 8]
    for result in results:
        alone = cli("generate", exported[0], "--prompt", "def f", "--tokens", 6, "--loops", result["loops"], "--json")
        assert alone.json["tokens"] == result["tokens"] and alone.json["text"] == result["text"]


def test_more_than_twice_the_trained_loops_warns(cli: Cli, exported: tuple[Path, Any]) -> None:
    plain = ("generate", exported[0], "--tokens", 2)  # trained at 4
    assert cli(*plain, "--loops", 8).err == ""
    warned = cli(*plain, "--loops", 9)
    assert warned.code == 0 and "9 loops are more than twice the 4 of training" in warned.err
    assert "more than twice" in cli(*plain, "--loops", 9, "--json").json["warnings"][0]


def test_a_stop_text_ends_the_answer_before_it(cli: Cli, exported: tuple[Path, Any]) -> None:
    settings = ("--tokens", 32, "--temperature", 0.9, "--repetition-penalty", 1.2, "--min-p", 0.01, "--seed", 5)
    ran = cli("generate", exported[0], *settings, "--json")
    assert ran.code == 0, ran.err
    whole = ran.json["text"]
    stop = whole[8:12]
    ran = cli("generate", exported[0], *settings, "--stop", "not in there", "--stop", stop, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["text"] == whole[: whole.index(stop)] and ran.json["stop_text"] == stop
    assert len(ran.json["tokens"]) < 32 and not ran.json["stopped"]
    ran = cli("generate", exported[0], *settings, "--stop", stop)
    assert ran.code == 0 and " up to " in ran.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--compare-loops", "1,x"], "--compare-loops 1,x"),
        (["--compare-loops", "1,0"], "--compare-loops 1,0"),
        (["--compare-loops", "1,17"], "above the maximum of 16"),
        (["--compare-loops", "1,2", "--loops", "4"], "give one of the two"),
        (["--exit-threshold", "1"], "--exit-threshold 1"),
        (["--exit-threshold", "-0.1"], "--exit-threshold -0.1"),
        (["--min-p", "1.5"], "--min-p 1.5"),
        (["--repetition-penalty", "0"], "--repetition-penalty 0.0"),
        (["--seed", "-1"], "--seed -1"),
        (["--stop", ""], "--stop ''"),
    ],
)
def test_a_request_that_cannot_be_is_one_line_and_prints_no_prompt(
    cli: Cli, exported: tuple[Path, Any], arguments: list[str], words: str
) -> None:
    ran = cli("generate", exported[0], *arguments)
    assert ran.code == 2 and words in ran.line and ran.out == ""


@pytest.mark.parametrize("temperature", [1e-310, 5e-324])
def test_a_temperature_of_almost_nothing_is_greedy(table: Table, temperature: float) -> None:
    with warnings.catch_warnings(action="error"):
        assert tokens_of(generate(table, [1], Sampling(temperature=temperature), 4, 4)) == [2, 3, 4, 5]
