"""The record of every model as it was last told, by its actor.

What the first scan finds is only expected: its records are made in one's own time after it, or when somebody asks, for at 10,000 models they take a tenth of a start and nobody can have seen an
earlier one.
"""

from __future__ import annotations

import asyncio
from operator import attrgetter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from jand.lifecycle.actor import Actor
    from jand.model.record import PublicState, Record

STROKES: Final = 32
"""Records made before others get a turn: about a millisecond."""

_BY_ID: Final = attrgetter("id")


class Records:
    """Belongs to the event loop's thread."""

    def __init__(self) -> None:
        self._made: dict[Actor, Record | None] = {}
        self._sorted: list[Record] | None = None

    def __contains__(self, actor: Actor) -> bool:
        return actor in self._made

    def expect(self, actor: Actor) -> None:
        """Know of *actor*, and make its record later."""
        self._made[actor] = None
        self._sorted = None

    def find(self, actor: Actor) -> Record | None:
        """Return what was last told of *actor*; None where nothing was."""
        return self._made.get(actor)

    def make(self, actor: Actor) -> Record:
        """Return the record of *actor* as it is now, and keep it where it differs from the last one."""
        before, after = self._made.get(actor), actor.record()
        if after == before:
            return before
        self._made[actor] = after
        self._sorted = None
        return after

    def drop(self, actor: Actor) -> Record:
        """Forget *actor*; return what was last told of it."""
        self._sorted = None
        return self._made.pop(actor) or actor.record()

    def all(self, state: PublicState | None = None) -> list[Record]:
        """Every record, by id; those in *state* alone if it is given."""
        if self._sorted is None:
            self._sorted = sorted((made or self.make(actor) for actor, made in list(self._made.items())), key=_BY_ID)
        return [record for record in self._sorted if state is None or record.state is state]

    async def make_all(self) -> None:
        """Make what is only expected, with many turns for others in between."""
        for number, actor in enumerate(list(self._made), 1):
            if actor in self._made and self._made[actor] is None:
                self.make(actor)
            if number % STROKES == 0:
                await asyncio.sleep(0)
