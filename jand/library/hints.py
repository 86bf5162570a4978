"""What a watch has to say, on its way from foreign threads to the event loop.

Of any number of events there is one wake-up and a bounded set of names; where that is not enough, the hint is to look at everything.
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

MOST_NAMES: Final = 4096


class Alarm(StrEnum):
    """What makes a watch worth nothing; the word is the code of the problem."""

    OVERFLOW = "watch-overflow"
    DIED = "watch-died"


@dataclass(slots=True)
class Hints:
    """What was heard since the last time.

    *touched* are names of entries, *grown* those in which files merely got longer. *everything*: too much or too little is known to name entries. *root*: the tree's own directory went
    away. *rights*: those of a folder changed, so it may be watched now or no longer. *moved*: a
    folder was moved or removed, after which watchdog may take one folder for another.
    """

    touched: set[str] = field(default_factory=set)
    grown: set[str] = field(default_factory=set)
    cookies: set[str] = field(default_factory=set)
    alarms: set[Alarm] = field(default_factory=set)
    everything: bool = False
    root: bool = False
    rights: bool = False
    moved: bool = False

    def touch(self, name: str, *, flow: bool = False) -> None:
        names = self.grown if flow else self.touched
        if len(names) < MOST_NAMES:
            names.add(name)
        else:
            self.everything = True


class Mailbox:
    """Carries hints to the event loop's thread. Its methods may be called in any thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, deliver: Callable[[Hints], None]) -> None:
        self._loop = loop
        self._deliver = deliver
        self._lock = threading.Lock()
        self._hints = Hints()
        self._called = False
        self._closed = False

    @contextlib.contextmanager
    def open(self) -> Iterator[Hints]:
        """Give the hints to add to."""
        with self._lock:
            yield self._hints
            if self._called:
                return
            self._called = True
        # The loop is closed when the daemon ended while an event was on its way.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._empty)

    def alarm(self, alarm: Alarm) -> None:
        with self.open() as hints:
            hints.alarms.add(alarm)

    def close(self) -> None:
        """Deliver nothing more."""
        self._closed = True

    def _empty(self) -> None:
        with self._lock:
            hints, self._hints = self._hints, Hints()
            self._called = False
        if not self._closed:
            self._deliver(hints)
