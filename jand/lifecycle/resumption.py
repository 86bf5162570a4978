"""Which models to start with the daemon: those that say so (`metadata.autostart`), and those that ran when it ended, by whatever end.

What runs is noted as it changes, so that a daemon that was killed has noted it as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from jand.errors import JandError
from jand.model.record import PublicState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jand.lifecycle.actor import Actor
    from jand.lifecycle.notes import Notes
    from jand.model.record import Record

log = structlog.get_logger(__name__)

RAN: Final = "ran"
"""The section of the notes with the paths of the models that run."""


class Resumption:
    """*restore* false forgets what ran before."""

    def __init__(self, notes: Notes, *, restore: bool) -> None:
        self._notes = notes
        self._restore = restore

    def note(self, record: Record) -> None:
        """Keep in mind whether a model runs; not to be called any more once the daemon is stopping its models."""
        if record.transition is None:
            self._notes.note(RAN, record.path, True if record.state is PublicState.RUNNING else None)

    def forget(self, record: Record) -> None:
        """Let a model whose JSON is gone not be started when one comes to its place."""
        self._notes.note(RAN, record.path, None)

    async def start(self, actors: Iterable[Actor]) -> None:
        """Start, one after the other, what is to run: pinned ones first, so that they have their memory, then by path. A failure is the model's own."""
        wanted = [
            actor
            for actor in actors
            if actor.found.spec.metadata.autostart or (self._restore and self._notes.find(RAN, actor.found.path))
        ]
        for actor in sorted(wanted, key=lambda actor: (not actor.pinned, actor.found.path)):
            try:
                await actor.start()
            except JandError as error:
                log.warning("model not started with the daemon", model=actor.id, reason=error.message)
