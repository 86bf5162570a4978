"""Which models to start with the daemon: those that say so (`metadata.autostart`), and those that ran when it ended, by whatever end.

What runs is noted as it changes, so that a daemon that was killed has noted it as well. The order says who gets the memory: pinned models first, then those that say so, then those that ran,
each by `metadata.priority` (more first; none is 0) and path. Nobody is stopped for one that comes later; it stays as it is, and its first request starts it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from jand.errors import JandError
from jand.model.record import PublicState
from jand.model.state import State

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jand.lifecycle.actor import Actor
    from jand.lifecycle.admission import Admission
    from jand.lifecycle.notes import Notes
    from jand.model.record import Record

log = structlog.get_logger(__name__)

RAN: Final = "ran"
"""The section of the notes with the paths of the models that run."""


class Resumption:
    """*restore* false forgets what ran before."""

    def __init__(self, notes: Notes, admission: Admission, *, restore: bool) -> None:
        self._notes = notes
        self._admission = admission
        self._restore = restore

    def note(self, record: Record) -> None:
        """Keep in mind whether a model runs; not to be called any more once the daemon is stopping its models."""
        if record.transition is None:
            self._notes.note(RAN, record.path, True if record.state is PublicState.RUNNING else None)

    def forget(self, record: Record) -> None:
        """Let a model whose JSON is gone not be started when one comes to its place."""
        self._notes.note(RAN, record.path, None)

    async def start(self, actors: Iterable[Actor]) -> None:
        """Start what is to run, one after the other. A failure is the model's own."""
        wanted = [
            actor
            for actor in actors
            if actor.found.spec.metadata.autostart or (self._restore and self._notes.find(RAN, actor.found.path))
        ]
        for actor in sorted(wanted, key=_rank):
            try:
                if not actor.found.spec.is_remote and actor.state is State.DOWNLOADED:
                    self._admission.check_room(actor, self._admission.need_of(actor.found, actor.found.spec))
                await actor.start()
            except JandError as error:
                log.warning("model not started with the daemon", model=actor.id, reason=error.message)


def _rank(actor: Actor) -> tuple[bool, bool, float, str]:
    metadata = actor.found.spec.metadata
    return not actor.pinned, not metadata.autostart, -(metadata.priority or 0), actor.found.path
