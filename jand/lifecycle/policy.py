"""Decisions about what may run, as pure functions of what runs now: who makes room for whom, and when what died may be started again.

A model that is busy or pinned is never chosen to make room. Fairness: whoever waits for room held by busy models waits at most until their turn is over; then those take no new
request, finish what they have, and make room. A model that was used a moment ago counts as busy within its turn. So memory changes hands at most once a moment, and under steady
load once a turn, and nobody waits for ever. Who waits is passed only by what fits into memory that is free and would not have been enough for it (`may_pass`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

CRASH_WINDOW_S: Final = 300.0
CRASHES_IN_LOOP: Final = 5
"""So many deaths or failed starts within the window are a crash loop: nothing but a person's start tries again, however long ago they are by then."""

MOST_WEIGHED: Final = 12
"""With more residents nobody passes: there are twice as many ways to make room with each."""

FIRST_BACKOFF_S: Final = 1.0
LONGEST_BACKOFF_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Resident:
    """A model that holds memory: *need* in bytes, *used_at* when its last request ended (or it became ready), on any one clock."""

    name: str
    need: int
    used_at: float
    busy: bool = False
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class Room:
    """It fits once *victims* have been stopped; none where it fits already."""

    victims: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wait:
    """It will fit when *holders*, which are busy now, have made room."""

    holders: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """It cannot fit: *free* bytes are what could be had, *holders* what holds the rest and may not be stopped."""

    free: int
    holders: tuple[str, ...] = ()


def make_room(need: int, budget: int, residents: Sequence[Resident]) -> Room | Wait | Refusal:
    """Decide how *need* bytes can be had of *budget*.

    Idle models go first, least recently used first, and only as many as it takes; of those a smaller set is kept to where one alone frees enough.
    """
    missing = need - (budget - sum(resident.need for resident in residents))
    if missing <= 0:
        return Room()
    free = [resident for resident in residents if not resident.busy and not resident.pinned]
    idle = _enough(sorted(free, key=lambda resident: resident.used_at), missing)
    if idle is not None:
        return Room(tuple(resident.name for resident in idle))
    unpinned = [resident for resident in residents if not resident.pinned]
    if _enough(unpinned, missing) is None:
        pinned = tuple(resident.name for resident in residents if resident.pinned)
        return Refusal(budget - sum(resident.need for resident in residents if resident.pinned), pinned)
    return Wait(tuple(resident.name for resident in unpinned))


def may_pass(need: int, first: int, budget: int, residents: Sequence[Resident]) -> bool:
    """Whether *need* bytes may be given out before the *first* bytes that somebody waits for at the head of the line.

    They must be free now, and must not postpone the head: whichever of the residents stop, in whatever order, it fits as soon as it would have without them.
    """
    free = budget - sum(resident.need for resident in residents)
    if need > free or len(residents) > MOST_WEIGHED:
        return False
    missing = first - free
    # What stops frees one of these sums; with one between, the head would have fitted, and now would not.
    sums = {0}
    for resident in residents:
        sums |= {known + resident.need for known in sums}
    return not any(missing <= freed < missing + need for freed in sums)


def _enough(candidates: Iterable[Resident], missing: int) -> list[Resident] | None:
    """Take *candidates* in order until they free *missing* bytes, then leave out those that were not needed after all."""
    taken: list[Resident] = []
    freed = 0
    for candidate in candidates:
        taken.append(candidate)
        freed += candidate.need
        if freed >= missing:
            break
    else:
        return None
    for candidate in reversed(taken[:-1]):
        if freed - candidate.need >= missing:
            taken.remove(candidate)
            freed -= candidate.need
    return taken


@dataclass(slots=True)
class Crashes:
    """The deaths and failed starts of one model; times in seconds of a monotonic clock that the caller hands in."""

    times: list[float] = field(default_factory=list)
    is_loop: bool = False

    def note(self, now: float) -> None:
        self.times = [*self._recent(now), now]
        self.is_loop = self.is_loop or len(self.times) >= CRASHES_IN_LOOP

    def forget(self) -> None:
        self.times = []
        self.is_loop = False

    def wait_s(self, now: float) -> float:
        """Return how long a start for a request has to wait: nothing after the first death, then 1 s, doubling with each."""
        recent = self._recent(now)
        if len(recent) < 2:
            return 0.0
        backoff = min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** (len(recent) - 2))
        return max(0.0, recent[-1] + backoff - now)

    def _recent(self, now: float) -> list[float]:
        return [time for time in self.times if now - time < CRASH_WINDOW_S]
