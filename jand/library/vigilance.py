"""The two ways in which a watch that looks healthy is found out: a cookie that does not come back, and folders that the kernel does not watch.

Decides when to try and what a result means; placing the cookie and asking the kernel are the watcher's. Clocks are handed in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from jand.library.stamps import read_stamps
from jand.library.watcher import try_to_watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from jand.library.roots import Root
    from jand.library.watcher import ObserverLike, Refusal, Watch


REFRESH_REST: Final = 50.0
"""A refreshment that took t seconds is not repeated for this many times t."""


@dataclass(frozen=True, slots=True)
class Vigilance:
    """How closely a watch is watched, in seconds.

    The tree's directory and the threads are looked at every *check_s*, and it has *answer_s* to answer; a cookie is placed *cookie_s* after something happened, less often while nothing does, and at least every
    *cookie_idle_s*; it has *cookie_timeout_s* to come back. The kernel's list of watches is compared every *audit_s*. When folders were moved, the watch is opened anew after *refresh_s* of
    quiet. A watch that fails again soon is opened again after *pause_s*, then twice
    as long, up to *longest_pause_s*.
    """

    check_s: float = 2.0
    answer_s: float = 10.0
    cookie_s: float = 5.0
    cookie_idle_s: float = 60.0
    cookie_timeout_s: float = 5.0
    audit_s: float = 600.0
    refresh_s: float = 0.5
    pause_s: float = 0.1
    longest_pause_s: float = 30.0


@dataclass(slots=True)
class CookieProbe:
    """Whether what happens in the tree still arrives here."""

    vigilance: Vigilance
    _due_at: float = 0.0
    _active_at: float = 0.0
    _out: tuple[str, float] | None = None
    _back: set[str] = field(default_factory=set)

    def begin(self, now: float) -> None:
        """Try a watch that was opened just now."""
        self._out = None
        self._due_at = self._active_at = now

    def note_activity(self, now: float) -> None:
        self._active_at = now
        self._due_at = min(self._due_at, now + self.vigilance.cookie_s)

    def hurry(self, now: float) -> None:
        self._due_at = min(self._due_at, now)

    def is_due(self, now: float) -> bool:
        return self._out is None and now >= self._due_at

    def is_overdue(self, now: float) -> bool:
        return self._out is not None and now > self._out[1]

    def plan_next(self, now: float) -> None:
        """Decide when the next one is due, this one being placed now: every one is a write, so an idle tree gets fewer and fewer."""
        self._back.clear()
        quiet_s = (now - self._active_at) / 2
        self._due_at = now + min(max(quiet_s, self.vigilance.cookie_s), self.vigilance.cookie_idle_s)

    def placed(self, name: str, now: float) -> None:
        """Expect *name* back, unless its event was faster than this note of it."""
        if name not in self._back:
            self._out = (name, now + self.vigilance.cookie_timeout_s)

    def came_back(self, names: set[str]) -> None:
        self._back |= names
        if self._out is not None and self._out[0] in names:
            self._out = None


@dataclass(slots=True)
class Pauses:
    """How long to wait before a watch is opened again: not at all at first, longer the sooner it fails."""

    vigilance: Vigilance
    _pause_s: float = 0.0
    _last_at: float = float("-inf")

    def note(self, now: float) -> None:
        """Decide how long the next opening has to wait, one being made now."""
        lasted_s = now - self._last_at
        shortest = self.vigilance.pause_s
        if lasted_s > max(10 * self._pause_s, 50 * shortest):
            self._pause_s = shortest
        else:
            self._pause_s = min(max(2 * self._pause_s, shortest), self.vigilance.longest_pause_s)
        self._last_at = now

    def left(self, now: float) -> float:
        return max(0.0, self._last_at + self._pause_s - now)


@dataclass(slots=True)
class Refreshment:
    """When a watch that works is opened anew all the same.

    watchdog follows folders that move by tables of its own, which are soon wrong: events then come under a path that is another folder's by now, and later kill its reader. It is told of no fault,
    so nothing but a new watch mends it. Costs little, and is done when moves have ended, or have gone on for long.
    """

    vigilance: Vigilance
    _due_at: float | None = None
    _latest_at: float = 0.0
    _not_before: float = 0.0

    def note_move(self, now: float) -> None:
        if self._due_at is None:
            self._latest_at = now + 10 * self.vigilance.refresh_s
        self._due_at = max(self._not_before, min(now + self.vigilance.refresh_s, self._latest_at))

    def left(self, now: float) -> float | None:
        """Return the seconds until it is due; None where there is no need."""
        return None if self._due_at is None else max(0.0, self._due_at - now)

    def done(self, now: float, cost_s: float) -> None:
        self._due_at = None
        self._not_before = now + REFRESH_REST * cost_s


@dataclass(frozen=True, slots=True)
class Gaps:
    """Entries with folders that are not watched, and why: refused, or *forgotten* by the watcher, which a new one mends."""

    entries: frozenset[str] = frozenset()
    refusals: tuple[tuple[str, Refusal], ...] = ()
    forgotten: bool = False


@dataclass(slots=True)
class Audit:
    """Which folders are missing among those that the kernel watches. A folder that was made this instant is watched the next, so only what is missing twice is a gap."""

    vigilance: Vigilance
    _due_at: float = 0.0
    _suspects: frozenset[str] = frozenset()

    def begin(self, now: float) -> None:
        self._suspects = frozenset()
        self._due_at = now + self.vigilance.check_s / 2

    def hurry(self, now: float) -> None:
        self._due_at = min(self._due_at, now + self.vigilance.check_s / 2)

    def is_due(self, now: float) -> bool:
        return now >= self._due_at

    def plan_next(self, now: float, gaps: Gaps) -> None:
        """Decide when to look again: soon where something is missing that is no known gap yet."""
        soon = bool(self._suspects - gaps.entries)
        self._due_at = now + (self.vigilance.check_s / 2 if soon else self.vigilance.audit_s)

    def sift(self, missing: frozenset[str]) -> frozenset[str]:
        """Return what of *missing* was missing the last time as well."""
        lasting, self._suspects = missing & self._suspects, missing
        return lasting


def find_unwatched(watch: Watch, root: Root, folders: Mapping[str, tuple[int, ...]]) -> frozenset[str]:
    """Return the entries, of those whose folders' inodes are in *folders*, that are not watched as they are now. Blocks."""
    watched = watch.watched_folders()
    if not watched or root.inode not in watched:
        # Not told, or on a file system whose inode numbers are others inside the kernel.
        return frozenset()
    stale = sorted(entry for entry, inodes in folders.items() if not watched.issuperset(inodes))
    stamps = zip(stale, read_stamps(root.path, stale), strict=True)
    return frozenset(entry for entry, stamp in stamps if stamp is not None and not watched.issuperset(stamp.folders))


def explain_gaps(root: Root, entries: Iterable[str], observer: Callable[[], ObserverLike], *, most: int = 8) -> Gaps:
    """Find out why *entries* are not watched, by trying the first few. Blocks."""
    names = sorted(entries)
    tried = [(name, try_to_watch(f"{root.path}/{name}", observer)) for name in names[:most]]
    refusals = tuple((name, refusal) for name, refusal in tried if refusal is not None)
    return Gaps(frozenset(names), refusals, forgotten=len(refusals) < len(tried))
