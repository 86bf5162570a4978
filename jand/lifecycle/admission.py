"""Memory for what is to run: each start reserves what it will need, and idle models are stopped to make room.

Starts that compete stand in one line, first come first served, so that a small model cannot for ever overtake a large one; one that postpones nobody may pass (`policy.may_pass`). What a model needs is estimated from its files and header, and
corrected by what its last run really took.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from jand.download.recommend import Use, beside_weights, gb
from jand.errors import NoRoomError
from jand.library.findings import Role
from jand.lifecycle import policy, portrait
from jand.tasks import Bell

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from jand.library.findings import Found
    from jand.lifecycle.notes import Notes
    from jand.model.spec import Spec

log = structlog.get_logger(__name__)

TURN_S: Final = 10.0
"""How long a model may go on taking requests from when it became ready, while another waits for its memory."""

LINGER: Final = 0.05
"""The part of a turn for which a model that was just used still counts as in use, so that it is not stopped between two requests of one client."""

NEGLIGIBLE: Final = 0.02
"""A change of what a model takes, as a part of it, that is not noted."""

LEARNED: Final = "memory"
"""The section of the notes with what models really took, in bytes."""


DECIDING: Final = ("ngl", "embedding", "n_batch", "cache_type_k", "cache_type_v")
"""What of `init`, beside the context, decides how much memory a model takes."""


class Holder(Protocol):
    """What admission asks of a model that holds memory; satisfied by `actor.Actor`."""

    @property
    def id(self) -> str: ...

    @property
    def busy(self) -> bool: ...

    @property
    def pinned(self) -> bool: ...

    @property
    def used_at(self) -> float: ...

    @property
    def ready_at(self) -> float | None: ...

    def yield_turn(self) -> bool:
        """Take no more requests; those that come wait until it has stopped and can start again. Return whether it does: not before those that it was started for had their turn of the loop."""

    def keep_turn(self) -> None:
        """Take requests again, where it still runs: nobody waits for its memory any more."""

    async def make_room(self) -> None:
        """Stop, unless it has become busy in the meantime."""


class Admission:
    """The memory of all local models. *budget* in bytes; *turn_s* see `TURN_S`."""

    def __init__(self, budget: int, notes: Notes, *, turn_s: float = TURN_S) -> None:
        self.budget = budget
        self._notes = notes
        self._turn_s = turn_s
        self._reserved: dict[Holder, int] = {}
        self._most: dict[Holder, int] = {}
        self._line: deque[object] = deque()
        self._head: int | None = None
        """The bytes for which the first of the line waits, while it waits."""
        self._bell = Bell()

    @property
    def reserved(self) -> int:
        """The bytes that are promised now; never more than the budget, but for what models really take beyond their promise."""
        return sum(self._reserved.values())

    def reserved_for(self, holder: Holder) -> int:
        return self._reserved.get(holder, 0)

    def need_of(self, found: Found, spec: Spec) -> int:
        """Return the bytes that *found* will take with the parameters of *spec*: what it took last time, else an estimate."""
        learned = self._notes.find(LEARNED, _key(found, spec))
        return learned if isinstance(learned, int) and learned > 0 else estimate(found, spec)

    def learn(self, holder: Holder, found: Found, spec: Spec, taken: int) -> bool:
        """Keep that *holder* takes *taken* bytes now; return whether that is more than was promised, which then counts at once: `relieve` should follow.

        The most of a run counts: pages of weights that the kernel drops for a while are read again. Small changes are not worth the write to the disk that this
        costs at the end of a request.
        """
        if taken <= 0 or holder not in self._reserved:
            return False
        most = self._most[holder] = max(taken, self._most.get(holder, 0))
        known = self._notes.find(LEARNED, _key(found, spec))
        if not (isinstance(known, int) and abs(most - known) <= known * NEGLIGIBLE):
            self._notes.note(LEARNED, _key(found, spec), most)
        if most <= self._reserved[holder]:
            return False
        self._reserved[holder] = most
        return True

    async def relieve(self, holder: Holder) -> None:
        """Let others make room for what *holder* takes beyond its promise, as far as they are idle; it is not stopped itself."""
        async with self._in_line():
            residents = [resident for resident in self._residents() if resident.name != holder.id]
            match policy.make_room(self._reserved.get(holder, 0), self.budget, residents):
                case policy.Room(victims=victims) if victims:
                    await self._evict(victims, holder)

    def check_room(self, holder: Holder, need: int) -> None:
        """Raise NoRoomError where *need* bytes cannot be had for *holder* without that another model is stopped."""
        free = self.budget - self.reserved
        if need > free:
            raise self._refusal(holder, need, policy.Refusal(free, tuple(other.id for other in self._reserved)))

    async def reserve(self, holder: Holder, need: int) -> None:
        """Return when *need* bytes are kept for *holder*, until `release`. Cancel-safe.

        Raises NoRoomError where they cannot be had whatever is stopped.
        """
        async with self._in_line(lambda: self._may_pass(holder, need)) as is_first:
            if is_first:
                try:
                    await self._make_room(holder, need)
                finally:
                    self._head = None
                    for other in self._reserved:
                        other.keep_turn()
            self._reserved[holder] = need

    @contextlib.asynccontextmanager
    async def _in_line(self, may_pass: Callable[[], bool] = lambda: False) -> AsyncIterator[bool]:
        """Wait until it is our turn (True), or until we may pass whoever is before us (False), and keep our place within the context."""
        place = object()
        self._line.append(place)
        try:
            while (is_first := self._line[0] is place) is False and not may_pass():
                await self._bell.heard()
            yield is_first
        finally:
            self._line.remove(place)
            self.changed()

    def _may_pass(self, holder: Holder, need: int) -> bool:
        """Whether *holder* may have its memory before the first of the line; never one that could not be stopped again for it."""
        if self._head is None or holder.pinned:
            return False
        return policy.may_pass(need, self._head, self.budget, self._residents())

    def release(self, holder: Holder) -> None:
        """Give back what was kept for *holder*, whose process is gone. Idempotent."""
        self._reserved.pop(holder, None)
        self._most.pop(holder, None)
        self.changed()

    def changed(self) -> None:
        """Wake whoever waits for room: a request ended, or a model stopped."""
        self._bell.ring()

    async def _make_room(self, holder: Holder, need: int) -> None:
        while True:
            decision = policy.make_room(need, self.budget, self._residents())
            match decision:
                case policy.Room(victims=()):
                    return
                case policy.Room(victims=victims):
                    await self._evict(victims, holder)
                case policy.Wait(holders=holders):
                    if self._head is None:
                        self._head = need
                        self.changed()  # those behind may pass from now on
                    await self._wait_for(holders)
                case policy.Refusal():
                    raise self._refusal(holder, need, decision)

    def _residents(self) -> list[policy.Resident]:
        now = time.monotonic()
        return [
            policy.Resident(
                holder.id,
                need,
                holder.used_at,
                busy=holder.busy or now < self._in_use_until(holder),
                pinned=holder.pinned,
            )
            for holder, need in self._reserved.items()
        ]

    def _turn_over_at(self, holder: Holder) -> float:
        return (holder.ready_at if holder.ready_at is not None else time.monotonic()) + self._turn_s

    def _in_use_until(self, holder: Holder) -> float:
        """Until when *holder*, idle as it may be, counts as in use: never beyond its turn."""
        return min(holder.used_at + LINGER * self._turn_s, self._turn_over_at(holder))

    def _named(self, names: Iterable[str]) -> list[Holder]:
        wanted = set(names)
        return [holder for holder in self._reserved if holder.id in wanted]

    async def _evict(self, names: Iterable[str], for_whom: Holder) -> None:
        victims = self._named(names)
        log.info("making room", model=for_whom.id, victims=[victim.id for victim in victims])
        await asyncio.gather(*(victim.make_room() for victim in victims))

    async def _wait_for(self, names: Iterable[str]) -> None:
        """Wait until something changes, at most until the next holder is out of use or its turn is over; those whose turn is over take no more requests."""
        now = time.monotonic()
        left = []
        for holder in self._named(names):
            if self._turn_over_at(holder) <= now:
                if not holder.yield_turn():
                    left.append(0.0)
            elif holder.busy:
                left.append(self._turn_over_at(holder) - now)
            else:
                left.append(self._in_use_until(holder) - now)
        await self._bell.heard(max(0.001, min(left)) if left else None)

    def _refusal(self, holder: Holder, need: int, refusal: policy.Refusal) -> NoRoomError:
        held = f", {' and '.join(refusal.holders)} may not be stopped" if refusal.holders else ""
        return NoRoomError(
            f'cannot start "{holder.id}": it needs {gb(need)}, and of {gb(self.budget)} only {gb(refusal.free)} can be had{held}',
            hint="choose a smaller ctx_len or quantisation, stop what is pinned, or raise memory_budget",
            needed=need,
            free=refusal.free,
            budget=self.budget,
            held_by=list(refusal.holders),
        )


def estimate(found: Found, spec: Spec) -> int:
    """Return what *found* should take, in bytes: weights, KV cache for all conversations, buffers, projector."""
    weights = sum(binary.size for binary in found.binaries if binary.role in {Role.WEIGHTS, Role.ADAPTER})
    projector = sum(binary.size for binary in found.binaries if binary.role is Role.PROJECTOR)
    init = spec.parameters.init
    use = Use(
        ctx_len=init.ctx_len,
        n_parallel=init.n_parallel or 1,
        cache_type_k=init.cache_type_k or "f16",
        cache_type_v=init.cache_type_v or "f16",
    )
    return weights + beside_weights(portrait.weights_header(found.binaries), use, projector)


def _key(found: Found, spec: Spec) -> str:
    """Name a way of running it: its path, its files, and what of `init` decides about memory."""
    init = spec.parameters.init
    more = "".join(f" {name}={value}" for name in DECIDING if (value := getattr(init, name)) is not None)
    return f"{found.path} {init.ctx_len} {init.n_parallel} {sum(binary.size for binary in found.binaries)}{more}"
