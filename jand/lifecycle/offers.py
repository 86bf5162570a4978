"""What the catalogue has, each entry with what it would download: asked of the hub in the background and remembered, so that nobody waits for it long.

Knows nothing of HTTP and writes nothing; an entry whose plan is not known says why.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from jand.errors import JandError
from jand.model.problem import ErrorNote

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from jand.download.plan import Plan
    from jand.lifecycle.catalog import Catalog, CatalogEntry
    from jand.model.spec import Spec
    from jand.tasks import TaskSet

FRESH_S: Final = 3600.0
"""How long a plan is believed: repositories of the catalogue hardly ever change."""

FAILED_S: Final = 30.0
"""How long a reason why there is none is."""

PATIENCE_S: Final = 3.0
AT_ONCE: Final = 4


@dataclass(frozen=True, slots=True)
class Offer:
    """One entry; either *plan* or the reason *unknown* why there is none is given."""

    entry: CatalogEntry
    plan: Plan | None = None
    unknown: ErrorNote | None = None


class Offers:
    """*make_plan* asks the hub what an entry would download on this machine; *patience_s* is how long a list waits for plans that are not known yet."""

    def __init__(
        self,
        catalog: Catalog,
        make_plan: Callable[[CatalogEntry], Awaitable[Plan]],
        tasks: TaskSet,
        *,
        patience_s: float = PATIENCE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._catalog = catalog
        self._make_plan = make_plan
        self._tasks = tasks
        self._patience_s = patience_s
        self._clock = clock
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._looks: dict[str, _Look] = {}

    async def list(self) -> Sequence[Offer]:
        """Return all entries by id."""
        entries = await asyncio.to_thread(self._catalog.entries)
        self._looks = {entry.id: self._look_at(entry) for entry in entries}
        looks = list(self._looks.values())
        if looks:
            await asyncio.wait([look.answer for look in looks], timeout=self._patience_s)
        return [look.offer() for look in looks]

    def _look_at(self, entry: CatalogEntry) -> _Look:
        """Return the look at *entry* that is under way or still fresh, else begin a new one."""
        known = self._looks.get(entry.id)
        if known is not None and known.holds_for(entry.spec, self._clock()):
            return known
        look = _Look(entry)
        self._tasks.spawn(self._ask(look), name=f"plan for {entry.id} of the catalogue")
        return look

    async def _ask(self, look: _Look) -> None:
        try:
            async with self._turn:
                look.answer.set_result(await self._make_plan(look.entry))
        except JandError as error:
            look.answer.set_result(ErrorNote(error.code, error.message, error.hint, at=time.time()))
        finally:
            look.asked_at = self._clock()
            # Whoever waits learns of a fault or of the daemon's end by this; without an answer the next list asks anew.
            look.answer.cancel()


class _Look:
    """One question to the hub about one entry, with its answer once that is there."""

    def __init__(self, entry: CatalogEntry) -> None:
        self.entry = entry
        self.asked_at = 0.0
        self.answer: asyncio.Future[Plan | ErrorNote] = asyncio.get_running_loop().create_future()

    def holds_for(self, spec: Spec, now: float) -> bool:
        if self.entry.spec != spec or self.answer.cancelled():
            return False
        if not self.answer.done():
            return True
        return now - self.asked_at < (FAILED_S if isinstance(self.answer.result(), ErrorNote) else FRESH_S)

    def offer(self) -> Offer:
        if not self.answer.done() or self.answer.cancelled():
            note = ErrorNote("not-known-yet", "the hub has not answered yet", "ask again in a moment", at=time.time())
            return Offer(self.entry, unknown=note)
        answer = self.answer.result()
        if isinstance(answer, ErrorNote):
            return Offer(self.entry, unknown=answer)
        return Offer(self.entry, answer)
