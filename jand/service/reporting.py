"""What systemd is told while the daemon runs: when it is ready, what it does, that it lives; and that it needs more time.

READY comes when the socket answers and the first scan is done. The watchdog is fed by the event loop itself, so a loop that hangs is found out, and only while somebody looks after the watch.
Trouble that the watch mends by itself (`library.supervisor`) is none: a restart would mend no disk.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Final

import structlog

from jand.library.status import Mode
from jand.model.record import PublicState, Transition

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Protocol

    from jand.library.status import WatchStatus
    from jand.lifecycle.events import EventLog
    from jand.model.state import Standing
    from jand.service.notify import Listener

    class Manager(Protocol):
        """What is asked of the manager; satisfied by `lifecycle.manager.Manager`."""

        @property
        def ready(self) -> asyncio.Event: ...

        @property
        def events(self) -> EventLog: ...

        @property
        def watch(self) -> Watch: ...

        def standings(self) -> Iterable[Standing]: ...

    class Watch(Protocol):
        """What is asked of the watch; satisfied by `library.library.Library`."""

        @property
        def status(self) -> WatchStatus: ...

        def unwatched_s(self) -> float: ...


log = structlog.get_logger(__name__)

BEAT_S: Final = 2.0
EXTENSION_S: Final = 30.0
"""What systemd is asked for at each beat of a start that takes long (`EXTEND_TIMEOUT_USEC`)."""

NEGLECTED_S: Final = 300.0
"""A watch that nobody has looked after for so long is stuck; it is looked after every few seconds, and a disk that does not answer is given up after ten."""

NAMED: Final = 3
"""So many models are named in the status, at most."""


class Reporter:
    """Tells *listener* how *manager* is. *watchdog_s* is how often it wants to hear that we live, None where it does not; *beats*: whether it wants to hear anything after READY."""

    def __init__(self, manager: Manager, listener: Listener, *, beats: bool, watchdog_s: float | None = None) -> None:
        self._manager = manager
        self._listener = listener
        self._beats = beats
        self._watchdog_s = watchdog_s
        self._told = ""
        self._seen = -1
        self._neglected = False
        self._asked_at = -1
        self._loading = False

    async def run(self) -> None:
        """Report until cancelled; without beats, until READY was told."""
        if self._beats:
            self._listener.send("STATUS=scanning the models")
            async with asyncio.TaskGroup() as group:
                group.create_task(self._beat(), name="service manager")
                group.create_task(self._say_ready(), name="ready")
        else:
            await self._say_ready()

    def ready_again(self) -> None:
        """Say that a reload has ended."""
        self._listener.send("READY=1", self._status())

    def stopping(self) -> None:
        self._listener.send("STOPPING=1", "STATUS=stopping: running answers end, then the models")

    async def _say_ready(self) -> None:
        await self._manager.ready.wait()
        # By itself: who waits for it need not wait until thousands of models are counted.
        self._listener.send("READY=1")
        self._listener.send(self._status())

    async def _beat(self) -> None:
        period_s = min(BEAT_S, self._watchdog_s or BEAT_S)
        while True:
            fields = [*self._news(), *self._extension(), *self._sign_of_life()]
            if fields:
                self._listener.send(*fields)
            await asyncio.sleep(period_s)

    def _news(self) -> list[str]:
        """Return the status, where something has happened that changes it."""
        last = self._manager.events.last_id
        if last == self._seen or not self._manager.ready.is_set():
            return []
        self._seen = last
        before, status = self._told, self._status()
        return [status] if status != before else []

    def _extension(self) -> list[str]:
        if self._manager.ready.is_set() and not self._is_loading():
            return []
        return [f"EXTEND_TIMEOUT_USEC={int(EXTENSION_S * 1e6)}"]

    def _is_loading(self) -> bool:
        """Whether a model starts; no model begins or ends to without an event, and to ask ten thousand at every beat costs more than all else in a quiet minute."""
        last = self._manager.events.last_id
        if last != self._asked_at:
            self._asked_at = last
            self._loading = any(model.transition is Transition.STARTING for model in self._manager.standings())
        return self._loading

    def _sign_of_life(self) -> list[str]:
        if self._watchdog_s is None:
            return []
        neglected_s = self._manager.watch.unwatched_s()
        neglected = self._manager.ready.is_set() and neglected_s > NEGLECTED_S
        if neglected and not self._neglected:
            log.error("nobody looks after the watch, so the watchdog is not fed", seconds=round(neglected_s))
        self._neglected = neglected
        return [] if neglected else ["WATCHDOG=1"]

    def _status(self) -> str:
        self._told = f"STATUS={describe(self._manager.standings(), self._manager.watch.status.modes)}"
        return self._told


def describe(models: Iterable[Standing], modes: Mapping[str, Mode]) -> str:
    """Return one line for people: how many models, what is going on with which, and how the watch is where it is not as it should be."""
    states: Counter[PublicState] = Counter()
    doing: dict[str, list[str]] = {}
    total = 0
    for model in models:
        total += 1
        states[model.state] += 1
        if model.transition is not None:
            doing.setdefault(model.transition.value, []).append(model.id)
    parts = [f"{total} model{'' if total == 1 else 's'}"]
    parts += [
        f"{states[state]} {state.value}" for state in (PublicState.RUNNING, PublicState.DOWNLOADING) if states[state]
    ]
    for what, names in doing.items():
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        parts.append(f"{what} {', '.join(names[:NAMED])}{more}")
    parts += [f"{label} is {mode.value}" for label, mode in modes.items() if mode in {Mode.DEGRADED, Mode.OFFLINE}]
    return ", ".join(parts)
