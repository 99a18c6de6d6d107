"""Where an answer ends: texts that stop it, wherever the pieces that it arrives in happen to be cut.

    stop = StopTexts(["\\n\\n", "User:"])
    for piece in pieces:
        print(stop.feed(piece))                            # what can no longer be part of a stop
        if stop.found is not None: break
    print(stop.finish())                                   # what was held back, if nothing stopped it

An answer ends with the first character that completes a stop. If several are completed by it, the longest counts. What
is shown ends before the stop's first character. So the result depends on the text alone and not on its pieces.
"""

from __future__ import annotations

from collections.abc import Sequence

from .errors import UsageError


class StopTexts:
    """Holds back the shortest end of the text that may still become a stop. Characters are compared as they are."""

    def __init__(self, stops: Sequence[str]) -> None:
        if not all(stops):
            raise UsageError("--stop '': give a text of at least one character")
        self.found: str | None = None
        self._stops = sorted(stops, key=len, reverse=True)
        self._held = ""

    def feed(self, piece: str) -> str:
        """What of the text so far can be shown and was not. After a stop: nothing."""
        if self.found is not None:
            return ""
        shown = ""
        for character in piece:
            self._held += character
            self.found = next((stop for stop in self._stops if self._held.endswith(stop)), None)
            if self.found is not None:
                shown += self._held[: -len(self.found)]
                self._held = ""
                break
            waiting = self._kept()
            shown, self._held = shown + self._held[: len(self._held) - waiting], self._held[len(self._held) - waiting :]
        return shown

    def finish(self) -> str:
        """What was held back when the answer ended otherwise."""
        rest, self._held = self._held, ""
        return rest

    def _kept(self) -> int:
        """Characters at the end of the held text that begin a stop."""
        longest = max((len(stop) for stop in self._stops), default=1)
        for length in range(min(len(self._held), longest - 1), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stops):
                return length
        return 0
