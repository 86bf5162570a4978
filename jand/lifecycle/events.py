"""What happened, in order, for those who listen: a ring of the last events that every subscriber reads at its own pace.

A subscriber holds only a position, so a slow one costs nothing and delays nobody. One that falls behind the ring, or comes back with an id that the ring no longer
has, gets the present picture (every model as `model.updated`) and goes on from there.
"""

from __future__ import annotations

import itertools
from collections import deque
from typing import TYPE_CHECKING, Final

from jand.model.immutable import immutable
from jand.model.record import Record
from jand.tasks import Bell

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from jand.model.problem import Problem

RING: Final = 4096
"""Events kept for resumption; at some 100 bytes of references each it stays small, and it covers a burst of 1,000 drops."""


@immutable()
class ProblemRecord:
    """A problem and the Unix time in seconds at which it was first seen."""

    problem: Problem
    since: float


@immutable()
class Event:
    """*type* is one of the contract's (`model.registered`, ..., `problem.cleared`); *id* grows by one with each event of this daemon's life."""

    id: int
    type: str
    data: Record | ProblemRecord

    @property
    def model(self) -> str | None:
        return self.data.id if isinstance(self.data, Record) else None


class EventLog:
    """The ring. All methods belong to the event loop's thread."""

    def __init__(self, *, picture: Callable[[], Iterable[Record]], first_id: int = 1, ring: int = RING) -> None:
        self._ring: deque[Event] = deque(maxlen=ring)
        self._next_id = first_id
        self._picture = picture
        self._bell = Bell()
        self._closed = False

    @property
    def last_id(self) -> int:
        return self._next_id - 1

    def publish(self, kind: str, data: Record | ProblemRecord) -> None:
        self._ring.append(Event(self._next_id, kind, data))
        self._next_id += 1
        self._bell.ring()

    def close(self) -> None:
        """End every subscription after what it has not read yet."""
        self._closed = True
        self._bell.ring()

    async def subscribe(self, after_id: int | None = None, model: str | None = None) -> AsyncIterator[Event]:
        """Yield events as they come, from the one after *after_id* (None: from now on), those of *model* alone if it is given.

        Ends when the log is closed. Cancel-safe: a subscriber that goes away leaves nothing behind.
        """
        position = self.last_id if after_id is None else after_id
        while True:
            for event in self._after(position):
                position = event.id
                if model is None or event.model == model:
                    yield event
            if position >= self.last_id:
                if self._closed:
                    return
                await self._bell.heard()

    def _after(self, position: int) -> list[Event]:
        oldest = self._next_id - len(self._ring)
        if position + 1 < oldest or position > self.last_id:
            return [Event(self.last_id, "model.updated", record) for record in self._picture()]
        return list(itertools.islice(self._ring, position + 1 - oldest, None))
