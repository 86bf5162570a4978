"""Looks at the whole of one tree by stamps, and queues for scanning what differs: on demand at full speed, by itself slowly enough to cost nothing.

The back-up for every hint that did not come, and where hints do not come at all, the way in which changes are found.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import structlog

from jand.errors import JandError
from jand.library.findings import LOOSE
from jand.library.stamps import read_stamps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from jand.library.findings import Tree
    from jand.library.picture import Picture
    from jand.library.settle import Key, Settler
    from jand.library.stamps import EntryStamp
    from jand.library.supervisor import Supervisor
    from jand.library.threads import Threads

log = structlog.get_logger(__name__)

CHUNK: Final = 100

SHARE_IDLE: Final = 0.0006
SHARE_LINKED: Final = 0.004
SHARE_POLLING: Final = 0.02
"""What part of one core the looking may take: as a back-up, for links and the like, and where there is no other way."""


@dataclass(slots=True, eq=False)
class Ticket:
    """One sweep that somebody waits for: done when everything that it queued was looked at."""

    force: bool
    done: asyncio.Event = field(default_factory=asyncio.Event)
    listed: bool = False
    scanned: int = 0
    changed: list[Key] = field(default_factory=list)
    pending: set[Key] = field(default_factory=set)

    def note(self, key: Key, *, news: bool) -> None:
        if key in self.pending:
            self.pending.discard(key)
            self.scanned += 1
            if news:
                self.changed.append(key)
            self.check()

    def check(self) -> None:
        if self.listed and not self.pending:
            self.done.set()


@dataclass(frozen=True, slots=True)
class Rhythm:
    """In seconds: how often a tree is looked at as a back-up, and how often where changes are not told."""

    rescan_s: float
    poll_s: float


@dataclass(slots=True)
class _Round:
    """One walk over many keys, in chunks with rests in between."""

    begun_at: float
    rest: list[Key] = field(default_factory=list)
    chunk_at: float = 0.0

    def begin(self, now: float, keys: list[Key]) -> None:
        """Start over; what the last round left undone comes first, for with many keys it may take longer than its period."""
        self.begun_at = now
        left = set(self.rest)
        self.rest += [key for key in keys if key not in left]

    def due_at(self, period_s: float) -> float:
        return min(self.chunk_at, self.begun_at + period_s) if self.rest else self.begun_at + period_s

    def take(self) -> list[Key]:
        chunk, self.rest = self.rest[:CHUNK], self.rest[CHUNK:]
        return chunk


class Sweeper:
    """*queued* is called after something was queued for scanning."""

    def __init__(
        self,
        tree: Tree,
        rhythm: Rhythm,
        supervisor: Supervisor,
        *,
        settler: Settler,
        picture: Picture,
        threads: Threads,
        list_entries: Callable[[Tree], list[str]],
        queued: Callable[[], None],
    ) -> None:
        self._tree = tree
        self._rhythm = rhythm
        self._supervisor = supervisor
        self._settler = settler
        self._picture = picture
        self._threads = threads
        self._list_entries = list_entries
        self._queued = queued
        self._waiting: Ticket | None = None
        self._tickets: set[Ticket] = set()
        self._wake = asyncio.Event()
        now = asyncio.get_running_loop().time()
        self._backup = _Round(now)
        self._polled = _Round(now)
        self._first = True

    def set_rhythm(self, rhythm: Rhythm) -> None:
        """Keep *rhythm* from now on."""
        self._rhythm = rhythm
        self._wake.set()

    def request(self, *, force: bool = False) -> Ticket:
        """Have the whole tree looked at from now on; with *force* everything is scanned, whatever its stamp. Requests that have not begun are one."""
        if self._waiting is None:
            self._waiting = Ticket(force)
            self._tickets.add(self._waiting)
        self._waiting.force = self._waiting.force or force
        self._wake.set()
        return self._waiting

    def note(self, key: Key, *, news: bool) -> None:
        """Count a scan of *key* for those who wait, unless it is to be scanned once more."""
        if not self._settler.is_queued(key):
            for ticket in list(self._tickets):
                ticket.note(key, news=news)
                self._drop_done(ticket)

    def wake(self) -> None:
        """Find out again what is due: the tree is to be polled from now on, or no longer."""
        self._wake.set()

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            self._wake.clear()
            ticket, self._waiting = self._waiting, None
            if ticket is not None:
                await self._sweep(ticket)
            elif not await self._go_on():
                await self._pause()

    async def _go_on(self) -> bool:
        """Do what is due by itself, a little at a time; return whether anything was."""
        now = asyncio.get_running_loop().time()
        for walk, period_s, share in self._rounds():
            if now >= walk.begun_at + period_s:
                walk.begin(now, await self._find_keys(walk))
                self._settler.forget_quiet(now)
                return True
            if walk.rest and now >= walk.chunk_at:
                cost_s = await self._compare(walk.take())
                walk.chunk_at = asyncio.get_running_loop().time() + cost_s / share
                return True
        return False

    def _rounds(self) -> tuple[tuple[_Round, float, float], tuple[_Round, float, float]]:
        polling = self._supervisor.must_poll
        period_s = min(self._rhythm.rescan_s, self._rhythm.poll_s) if polling else self._rhythm.rescan_s
        share = SHARE_POLLING if polling else SHARE_IDLE
        return (self._polled, self._rhythm.poll_s, SHARE_LINKED), (self._backup, period_s, share)

    async def _pause(self) -> None:
        now = asyncio.get_running_loop().time()
        due_at = min(walk.due_at(period_s) for walk, period_s, _ in self._rounds())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, due_at - now)):
                await self._wake.wait()

    async def _find_keys(self, walk: _Round) -> list[Key]:
        label = self._tree.label
        if walk is self._polled:
            unwatched = {(label, entry) for entry in self._supervisor.unwatched}
            return sorted(key for key in self._picture.polled | unwatched if key[0] == label)
        return await self._list(None) or []

    async def _sweep(self, ticket: Ticket) -> None:
        """Look at everything at full speed."""
        now = asyncio.get_running_loop().time()
        keys = await self._list(ticket)
        self._backup = _Round(now)
        if keys is not None:
            if ticket.force or self._first:
                self._queue(keys, ticket)
            else:
                walk = _Round(now, keys)
                while walk.rest:
                    await self._compare(walk.take(), ticket)
        self._first = False
        ticket.listed = True
        ticket.check()
        self._drop_done(ticket)

    async def _list(self, ticket: Ticket | None) -> list[Key] | None:
        """Return all keys in their order, and queue those that are gone or held; None where the tree cannot be listed."""
        if self._supervisor.root is None:
            return None
        try:
            names = await self._threads.run(functools.partial(self._list_entries, self._tree))
        except (OSError, JandError) as error:
            log.warning("tree not listed", tree=self._tree.label, reason=str(error))
            self._supervisor.check_now()
            return None
        label = self._tree.label
        keys = [(label, name) for name in (LOOSE, *names)]
        # What is held has to be looked at in any case: its stamp is that of a disk that is away.
        self._queue(
            {*self._picture.keys(label).difference(keys), *(key for key in self._picture.held if key[0] == label)},
            ticket,
        )
        return keys

    async def _compare(self, keys: list[Key], ticket: Ticket | None = None) -> float:
        """Queue those of *keys* that are new or whose stamps differ; return the seconds of computing that it took."""
        root = self._supervisor.root
        if root is None:
            return 0.0
        known = [key for key in keys if key in self._picture.scans]
        differing = [key for key in keys if key not in self._picture.scans]
        cost_s = 0.0
        if known:
            stamps, cost_s = await self._threads.run(functools.partial(_read, root.path, [entry for _, entry in known]))
            differing += [
                key for key, stamp in zip(known, stamps, strict=True) if self._picture.stamps.get(key) != stamp
            ]
        if not self._first:
            # What lay there before the first look was not to be heard of.
            self._note_unheard(differing)
        self._queue(differing, ticket)
        return cost_s

    def _note_unheard(self, differing: Iterable[Key]) -> None:
        """Suspect the watch where something has changed without a hint, unless hints are not to be had for it."""
        now = asyncio.get_running_loop().time()
        unheard = False
        for key in differing:
            expected = self._settler.busy(key) or key in self._picture.polled or key in self._picture.held
            unheard = unheard or not expected
            self._settler.note_change(key, now)
        if unheard and not self._supervisor.must_poll:
            self._supervisor.suspect()

    def _queue(self, keys: Iterable[Key], ticket: Ticket | None) -> None:
        wanted = list(keys)
        if ticket is not None:
            ticket.pending.update(wanted)
        if wanted:
            self._settler.queue(wanted)
            self._queued()

    def _drop_done(self, ticket: Ticket) -> None:
        if ticket.done.is_set():
            self._tickets.discard(ticket)


def _read(root: str, entries: list[str]) -> tuple[list[EntryStamp | None], float]:
    began = time.thread_time()
    stamps = list(read_stamps(root, entries))
    return stamps, time.thread_time() - began
