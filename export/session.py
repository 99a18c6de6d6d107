"""A conversation with an artifact: verified folder, tokenizer and host runtime together.

session = Session.open(folder)
for piece in session.stream("import os", Sampling(), loops=8, tokens=64): ...
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from parcae_mobile.config import check_loops
from parcae_mobile.errors import InputError, UsageError
from parcae_mobile.manifest import Manifest, verify_files
from parcae_mobile.tokenizer import TextTokenizer

from .generation import Sampling, Step, generate
from .hosts.base import Host
from .target import find_target, load_host


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
        return cls(manifest, tokenizer, load_host(find_target(manifest.target))(folder, manifest, threads))

    def loops(self, asked: int | None) -> int:
        """The loop count to use: the one asked for, the built one, or the trained one."""
        built = self.manifest.loops
        if built != "dynamic":
            if asked not in (None, built):
                raise UsageError(f"--loops {asked}: this artifact was built for {built} loops")
            return built
        if asked is None:
            return min(self.manifest.trained_loops, self.manifest.max_loops)
        check_loops(asked, self.manifest.max_loops)
        return asked

    def warnings(self, loops: int) -> list[str]:
        """What a user should know before running this many loops."""
        trained = self.manifest.trained_loops
        if loops > 2 * trained:
            return [f"{loops} loops are more than twice the {trained} of training; nothing is known to improve there"]
        return []

    def stream(
        self,
        prompt: str,
        sampling: Sampling,
        loops: int,
        tokens: int,
        exit_threshold: float = 0.0,
        steps: list[Step] | None = None,
    ) -> Iterator[str]:
        """Text pieces as they are complete; `steps` collects what was generated. The cache starts empty."""
        self.host.reset()
        ids = [self.tokenizer.bos, *self.tokenizer.encode(prompt)]
        stop = frozenset([self.tokenizer.eos])
        collected = steps if steps is not None else []

        def generated() -> Iterator[int]:
            for step in generate(self.host, ids, sampling, loops, tokens, stop, exit_threshold):
                collected.append(step)
                if step.token not in stop:
                    yield step.token

        yield from self.tokenizer.stream(generated())
