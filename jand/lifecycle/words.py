"""What workers have written lately, by model: a ring for each that outlives its worker, so that a death can be read about.

Bounded in lines, in bytes and in models. Prompts and answers are in none of it, because workers do not write them; what is a known secret is masked.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Final

from jand.log import SECRETS
from jand.tasks import Bell

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MOST_LINES: Final = 2000
MOST_CHARS: Final = 256 * 1024
MOST_MODELS: Final = 64


@dataclass(frozen=True, slots=True)
class Line:
    """*number* grows over all models; *at* is a time of day in Unix seconds; *level* is debug, info, warning or error."""

    number: int
    at: float
    level: str
    text: str


class _Ring:
    def __init__(self) -> None:
        self.lines: deque[Line] = deque(maxlen=MOST_LINES)
        self.chars = 0

    def add(self, line: Line) -> None:
        if len(self.lines) == MOST_LINES:
            self.chars -= len(self.lines[0].text)
        self.lines.append(line)
        self.chars += len(line.text)
        while self.chars > MOST_CHARS and len(self.lines) > 1:
            self.chars -= len(self.lines.popleft().text)


class Words:
    """The rings of all models. Belongs to the event loop."""

    def __init__(self) -> None:
        self._rings: OrderedDict[str, _Ring] = OrderedDict()
        # Numbers go on growing over a restart, so that whoever resumes after one is not given what it has seen.
        self._numbers = count(int(time.time() * 1000))
        self._bell = Bell()

    def add(self, model_id: str, text: str, level: str = "info") -> None:
        """Keep a line; the model that has been silent for longest is forgotten where there are too many."""
        ring = self._rings.setdefault(model_id, _Ring())
        self._rings.move_to_end(model_id)
        ring.add(Line(next(self._numbers), time.time(), level, str(SECRETS.masked(text))))
        if len(self._rings) > MOST_MODELS:
            self._rings.popitem(last=False)
        self._bell.ring()

    def last(self, model_id: str, most: int) -> list[Line]:
        """Return the last *most* lines of a model, oldest first."""
        ring = self._rings.get(model_id)
        return [] if ring is None or most == 0 else list(ring.lines)[-most:]

    async def follow(self, model_id: str, after: int) -> AsyncIterator[Line]:
        """Yield what is kept beyond the line *after*, then what comes, until cancelled. Who is too slow misses what the ring has lost."""
        while True:
            ring = self._rings.get(model_id)
            fresh = [line for line in ring.lines if line.number > after] if ring is not None else []
            for line in fresh:
                yield line
                after = line.number
            if not fresh:
                await self._bell.heard()
