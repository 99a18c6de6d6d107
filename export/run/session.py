"""A conversation with an artifact: verified folder, tokenizer and host runtime together.

session = Session.open(folder)
completion = session.complete("import os", Sampling(), loops=8, tokens=64)
for piece in completion: ...
completion.tokens_per_second
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.run.generation import Step, generate
from export.targets.host import Host
from export.targets.registry import find_target, load_host
from parcae_mobile.errors import InputError, UsageError
from parcae_mobile.loops import check_loops
from parcae_mobile.manifest import Manifest, verify_files
from parcae_mobile.sampling import Sampling
from parcae_mobile.stopping import StopTexts
from parcae_mobile.tokenizer import TextTokenizer


@dataclass
class Session:
    """An opened artifact."""

    manifest: Manifest
    tokenizer: TextTokenizer
    host: Host

    @classmethod
    def open(cls, folder: Path, threads: int = 0) -> Session:
        """Check the folder's files and open it. Raises for a damaged folder or one without a tokenizer."""
        manifest = verify_files(folder)
        tokenizer = TextTokenizer.load(folder)
        if tokenizer is None:
            raise InputError(f"{folder} has no tokenizer.json, so it cannot read a prompt")
        if manifest.bos is not None and manifest.eos is not None:  # what the export found beside the model counts
            tokenizer.bos, tokenizer.stops = manifest.bos, tuple(manifest.stops or [manifest.eos])
        return cls(manifest, tokenizer, load_host(find_target(manifest.target))(folder, manifest, threads))

    def loops(self, asked: int | None) -> int:
        """The loop count to use: the one asked for, the built one, or the trained one."""
        built = self.manifest.loops
        if built != "dynamic":
            counts = [int(count) for count in self.manifest.graphs] or [built]
            if asked is not None and asked not in counts:
                raise UsageError(f"--loops {asked}: this artifact was built for {', '.join(map(str, counts))} loops")
            return asked or built
        if asked is None:
            return min(self.manifest.trained_loops, self.manifest.max_loops)
        why = self.manifest.closed.get(str(asked))
        if why is not None:
            least, most = self.manifest.min_loops, self.manifest.max_loops
            raise UsageError(f"--loops {asked} is closed ({why}); this artifact runs {least} to {most}")
        check_loops(asked, self.manifest.max_loops, self.manifest.min_loops)
        return asked

    def warnings(self, loops: int) -> list[str]:
        """What a user should know before running this many loops."""
        trained = self.manifest.trained_loops
        if loops > 2 * trained:
            return [f"{loops} loops are more than twice the {trained} of training; nothing is known to improve there"]
        return []

    def complete(
        self,
        prompt: str,
        sampling: Sampling,
        loops: int,
        tokens: int,
        exit_threshold: float = 0.0,
        stop: Sequence[str] = (),
    ) -> Completion:
        """A continuation of `prompt`, generated as it is iterated, from an empty cache. Raises before any work.

        It ends before the first of the `stop` texts.
        """
        if exit_threshold and self.manifest.loop_form != "stages":
            raise UsageError(
                f"--exit-threshold {exit_threshold:g}: early exit needs a host that runs the loop; this artifact's "
                f"loop form is {self.manifest.loop_form}"
            )
        self.host.reset()
        ids = self.tokenizer.prompt(prompt)
        if max(ids) >= self.manifest.geometry.padded_vocab_size:
            raise InputError(f"the prompt has the id {max(ids)}, beyond the model's token table; leave that token out")
        texts, ends = StopTexts(stop), frozenset(self.tokenizer.stops)
        steps = generate(self.host, ids, sampling, loops, tokens, ends, exit_threshold)
        return Completion(loops, steps, self.tokenizer, ends, texts)


class Completion:
    """Text pieces as they are complete, and what was used so far: `for piece in session.complete(...)`.

    A piece never ends inside of a character: its bytes wait for the tokens that complete it.
    """

    def __init__(
        self,
        loops: int,
        steps: Iterator[Step],
        tokenizer: TextTokenizer,
        ends: frozenset[int],
        texts: StopTexts,
    ) -> None:
        self.loops, self.text = loops, ""
        self.steps: list[Step] = []
        self._incoming, self._tokenizer, self._ends, self._texts = steps, tokenizer, ends, texts

    def __iter__(self) -> Iterator[str]:
        for piece in self._pieces():
            if piece:
                self.text += piece
                yield piece

    def _pieces(self) -> Iterator[str]:
        for piece in self._tokenizer.stream(self._tokens()):
            yield self._texts.feed(piece)
            if self._texts.found is not None:
                return
        yield self._texts.finish()

    def _tokens(self) -> Iterator[int]:
        for step in self._incoming:
            self.steps.append(step)
            if step.token not in self._ends:
                yield step.token

    @property
    def stopped(self) -> bool:
        """Whether a stop token ended it."""
        return bool(self.steps) and self.steps[-1].token in self._ends

    @property
    def stop_text(self) -> str | None:
        """The stop text that ended it."""
        return self._texts.found

    @property
    def tokens_per_second(self) -> float:
        """Of the tokens after the first; 0 where there are none."""
        decode = [step.seconds for step in self.steps[1:]]
        return len(decode) / sum(decode) if decode else 0.0

    @property
    def average_loops(self) -> float:
        """Per token; the first one's are the prompt's."""
        return sum(step.loops for step in self.steps) / max(1, len(self.steps))

    @property
    def summary(self) -> str:
        """One line for a reader."""
        average = "" if self.average_loops == self.loops else f", {self.average_loops:.2f} loops on average"
        end = " and an end of text" if self.stopped else ""
        end = end if self.stop_text is None else f" up to {self.stop_text!r}"
        return (
            f"{len(self.steps) - self.stopped} tokens{end} at T={self.loops}{average}: first after "
            f"{self.steps[0].seconds * 1e3:.0f} ms, then {self.tokens_per_second:.0f} tokens/s"
        )

    def to_dict(self) -> dict[str, Any]:
        """The object of `generate --json`."""
        return {
            "text": self.text,
            "tokens": [step.token for step in self.steps],
            "stopped": self.stopped,
            "stop_text": self.stop_text,
            "loops": self.loops,
            "loops_by_token": [step.loops for step in self.steps],
            "average_loops": self.average_loops,
            "first_token_seconds": self.steps[0].seconds,
            "tokens_per_second": self.tokens_per_second,
        }
