"""What an actor needs of the daemon around it, for tests of one actor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jand.lifecycle.admission import Admission
from jand.lifecycle.notes import Notes
from jand.lifecycle.tally import Tally
from jand.tasks import TaskSet

if TYPE_CHECKING:
    from jand.lifecycle.actor import Actor
    from jand.model.record import PublicState, Transition
    from tests.fakes.engine import FakeEngine


class Around:
    """The surroundings of an actor; keeps the public states that it went through."""

    def __init__(self, engine: FakeEngine, *, start_on_request: bool = True) -> None:
        self.tasks = TaskSet()
        self.start_on_request = start_on_request
        self.stop_timeout_s = 30.0
        self.keep_alive_s = -1.0
        self.admission = Admission(10**12, Notes(Path("/nowhere/state.json")))
        self.tally = Tally()
        self.launch = engine.launch
        self.seen: list[tuple[PublicState, Transition | None]] = []

    def changed(self, actor: Actor) -> None:
        record = actor.record()
        if not self.seen or self.seen[-1] != (record.state, record.transition):
            self.seen.append((record.state, record.transition))
