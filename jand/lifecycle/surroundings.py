"""What an actor needs of the daemon around it, as a type: the manager has it, and so do the tests' stand-ins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from jand.lifecycle.actor import Actor
    from jand.lifecycle.admission import Admission
    from jand.lifecycle.running import Launch
    from jand.lifecycle.tally import Tally
    from jand.tasks import TaskSet


class Surroundings(Protocol):
    """Times in seconds."""

    @property
    def tasks(self) -> TaskSet: ...

    @property
    def start_on_request(self) -> bool: ...

    @property
    def stop_timeout_s(self) -> float: ...

    @property
    def keep_alive_s(self) -> float: ...

    @property
    def admission(self) -> Admission: ...

    @property
    def tally(self) -> Tally: ...

    @property
    def launch(self) -> Launch: ...

    def changed(self, actor: Actor) -> None:
        """Take note that the actor's record may differ from the last one."""
