"""From the bytes of tokens to text that may be shown: whole characters only, and nothing that may yet turn out to be a stop string."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class TextStream:
    """Feed it pieces; what it returns is final. After `stopped` is true it returns nothing more.

    A character may be spread over several tokens, and a stop string may begin in one and end in another, or in none: its beginning is then text after all.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.stopped: str | None = None

    def feed(self, piece: bytes) -> str:
        return self._release(self._decoder.decode(piece), last=False)

    def end(self) -> str:
        """Return what was held back, without the beginning of a character that the end has cut off: llama.cpp's server drops it too."""
        self._decoder.reset()
        return self._release("", last=True)

    def _release(self, text: str, *, last: bool) -> str:
        if self.stopped is not None:
            return ""
        if not self._stops:
            return text
        self._held += text
        if found := self._find_stop():
            start, self.stopped = found
            shown, self._held = self._held[:start], ""
            return shown
        keep = 0 if last else self._possible_beginning()
        shown = self._held[: len(self._held) - keep]
        self._held = self._held[len(shown) :]
        return shown

    def _find_stop(self) -> tuple[int, str] | None:
        """Return the stop string that begins first, the longer one where two begin together."""
        places = [(self._held.find(stop), -len(stop), stop) for stop in self._stops]
        found = [place for place in places if place[0] >= 0]
        return (min(found)[0], min(found)[2]) if found else None

    def _possible_beginning(self) -> int:
        """Count the characters at the end that may be the beginning of a stop string."""
        longest = min(len(self._held), max(len(stop) for stop in self._stops) - 1)
        for count in range(longest, 0, -1):
            tail = self._held[-count:]
            if any(stop.startswith(tail) for stop in self._stops):
                return count
        return 0
