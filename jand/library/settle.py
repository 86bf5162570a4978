"""When to scan which entry, and when an entry has settled: decided from touches and a clock that the caller hands in.

No I/O, no clock and no asyncio of its own. The first touch of an entry is answered at once (after `debounce_s`), a storm of touches by a bounded number of scans, and the last touch
always by a scan that begins after it. Touches go before queued work (what a sweep found, the first scan), and one entry is never in two hands.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

Key: TypeAlias = tuple[str, str]
"""The label of a tree and the name of an entry in it."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How eager to be.

    *debounce_s* gathers the events that one operation gives. An entry may be scanned *burst* times at once, and then once every *refill_s*. Touches by mere growth (*flow*) are answered
    every *flow_s* alone. After a scan that took t seconds the entry rests for *rest_factor* times t, at most *longest_rest_s*, so that a folder of 20,000 files cannot take a whole core.
    """

    settle_s: float = 2.0
    debounce_s: float = 0.002
    burst: int = 8
    refill_s: float = 0.1
    flow_s: float = 0.5
    rest_factor: float = 2.0
    longest_rest_s: float = 1.0


@dataclass(slots=True)
class _Entry:
    changed_at: float
    tokens: float
    refilled_at: float
    due_at: float | None = None
    recheck_at: float | None = None
    scanned_at: float | None = None
    rest_until: float = 0.0
    in_hand: bool = False
    queue_again: bool = False
    pending: tuple[bool, ...] = ()
    """Touches that came while it was in hand: whether each was flow. Never more than two are kept, one of a kind."""


class Settler:
    """The touched and the queued entries of all trees. Times are seconds of one monotonic clock."""

    def __init__(self, pace: Pace, *, started_at: float) -> None:
        self._pace = pace
        self._started_at = started_at
        self._entries: dict[Key, _Entry] = {}
        self._heap: list[tuple[float, Key]] = []
        self._queue: dict[Key, None] = {}
        self._touched = 0

    def settle_after(self, settle_s: float) -> None:
        """Let a folder have settled after *settle_s* of quiet from now on."""
        self._pace = replace(self._pace, settle_s=settle_s)

    @property
    def touched(self) -> int:
        """How many entries are waiting to be scanned because somebody touched them."""
        return self._touched

    @property
    def queued(self) -> int:
        return len(self._queue)

    def touch(self, key: Key, now: float, *, flow: bool = False) -> None:
        """Something happened in *key*; *flow* where a file merely grew."""
        entry = self._get(key, now)
        entry.changed_at = now
        if entry.in_hand:
            if flow not in entry.pending:
                entry.pending += (flow,)
            return
        self._set_due(key, entry, self._answer_at(entry, now, flow=flow))

    def note_change(self, key: Key, now: float) -> None:
        """*key* was seen to differ, so it is not settled; nothing is scanned for that."""
        self._get(key, now).changed_at = now

    def queue(self, keys: Iterable[Key]) -> None:
        """Scan *keys* when there is time."""
        for key in keys:
            entry = self._entries.get(key)
            if entry is not None and entry.in_hand:
                entry.queue_again = True
            else:
                self._queue[key] = None

    def take_touched(self, now: float) -> Key | None:
        """Take the touched entry that has been due for longest, now in the caller's hand until `done`."""
        while self._heap and self._heap[0][0] <= now:
            due_at, key = heapq.heappop(self._heap)
            entry = self._entries.get(key)
            if entry is not None and due_at in {entry.due_at, entry.recheck_at}:
                self._take(key, entry, now)
                return key
        return None

    def take_queued(self, now: float, limit: int) -> list[Key]:
        """Take at most *limit* queued entries, in the order of queueing."""
        keys = list(islice(self._queue, limit))
        for key in keys:
            if key in self._entries:
                self._take(key, self._entries[key], now)
            else:
                del self._queue[key]
                self._entries[key] = _Entry(self._started_at, self._pace.burst - 1.0, now, in_hand=True)
        return keys

    def give_back(self, key: Key) -> None:
        """*key* was taken but not scanned after all: it goes to the end of the queue, which answers its touches too."""
        entry = self._entries[key]
        entry.in_hand, entry.queue_again = False, False
        entry.pending = ()
        self._queue[key] = None

    def done(self, key: Key, now: float, *, cost_s: float = 0.0, recheck_after_s: float | None = None) -> None:
        """Take note that the scan of *key* has ended after *cost_s*; look again after *recheck_after_s* whatever happens."""
        entry = self._get(key, now)
        entry.in_hand = False
        entry.scanned_at = now
        entry.rest_until = now + min(cost_s * self._pace.rest_factor, self._pace.longest_rest_s)
        if entry.queue_again:
            entry.queue_again = False
            self._queue[key] = None
        pending, entry.pending = entry.pending, ()
        for flow in pending:
            self._set_due(key, entry, self._answer_at(entry, now, flow=flow))
        if recheck_after_s is not None:
            entry.recheck_at = max(now + recheck_after_s, entry.rest_until)
            heapq.heappush(self._heap, (entry.recheck_at, key))

    def next_due_at(self) -> float | None:
        """When `take_touched` has something to give; None while nothing is waiting."""
        while self._heap:
            due_at, key = self._heap[0]
            entry = self._entries.get(key)
            if entry is not None and due_at in {entry.due_at, entry.recheck_at}:
                return due_at
            heapq.heappop(self._heap)
        return None

    def settled_at(self, key: Key) -> float:
        """When *key* will have been quiet for `settle_s`, if nothing more happens; nothing is known from before the start."""
        entry = self._entries.get(key)
        changed_at = self._started_at if entry is None else max(entry.changed_at, self._started_at)
        return changed_at + self._pace.settle_s

    def busy(self, key: Key) -> bool:
        """Whether a scan of *key* is under way, or due because of a touch."""
        entry = self._entries.get(key)
        return entry is not None and (entry.in_hand or entry.due_at is not None)

    def is_queued(self, key: Key) -> bool:
        return key in self._queue

    def collapse(self, label: str) -> None:
        """Forget the touches in one tree, because all of it is about to be looked at; rechecks stay."""
        for key, entry in self._entries.items():
            if key[0] == label and entry.due_at is not None:
                entry.due_at = None
                self._touched -= 1

    def forget_quiet(self, now: float) -> None:
        """Give up the memory of entries with which nothing is going on."""
        quiet = max(self._pace.settle_s, self._pace.flow_s, self._pace.burst * self._pace.refill_s)
        for key, entry in list(self._entries.items()):
            idle = entry.due_at is None and entry.recheck_at is None and not entry.in_hand and key not in self._queue
            if idle and now >= max(entry.changed_at, entry.scanned_at or 0.0) + quiet and now >= entry.rest_until:
                del self._entries[key]

    def _get(self, key: Key, now: float) -> _Entry:
        entry = self._entries.get(key)
        if entry is None:
            # What is only queued or scanned was not seen to change: its clock is that of the start.
            entry = _Entry(changed_at=self._started_at, tokens=float(self._pace.burst), refilled_at=now)
            self._entries[key] = entry
        return entry

    def _take(self, key: Key, entry: _Entry, now: float) -> None:
        self._refill(entry, now)
        entry.tokens = max(0.0, entry.tokens - 1.0)
        if entry.due_at is not None:
            entry.due_at = None
            self._touched -= 1
        entry.recheck_at = None
        entry.in_hand = True
        self._queue.pop(key, None)

    def _answer_at(self, entry: _Entry, now: float, *, flow: bool) -> float:
        earliest = max(now + self._pace.debounce_s, entry.rest_until)
        if flow:
            return earliest if entry.scanned_at is None else max(earliest, entry.scanned_at + self._pace.flow_s)
        self._refill(entry, now)
        if entry.tokens >= 1.0:
            return earliest
        return max(earliest, now + (1.0 - entry.tokens) * self._pace.refill_s)

    def _refill(self, entry: _Entry, now: float) -> None:
        gained = max(0.0, now - entry.refilled_at) / self._pace.refill_s
        entry.tokens = min(float(self._pace.burst), entry.tokens + gained)
        entry.refilled_at = now

    def _set_due(self, key: Key, entry: _Entry, due_at: float) -> None:
        if entry.due_at is None:
            self._touched += 1
        elif entry.due_at <= due_at:
            return
        entry.due_at = due_at
        heapq.heappush(self._heap, (due_at, key))
