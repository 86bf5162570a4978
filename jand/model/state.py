"""The machine that every model goes through, as one table.

Inside there are five states; outside there are the three of model-specs.md and a transition beside them. The table is all there is: a pair that is not in it is an error for a
command (`cannot start what is being downloaded`) and is dropped, with a line in the log, for a fact that comes too late.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

from jand.model.record import PublicState, Transition


class State(StrEnum):
    DOWNLOADING = "downloading"
    DOWNLOADED = "downloaded"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"


class Happening(StrEnum):
    """What moves a model: facts from the disk (WHOLE, NOT_WHOLE) and the worker (READY, FAILED, DIED, GONE), and commands (START, STOP)."""

    WHOLE = "whole"
    NOT_WHOLE = "not-whole"
    START = "start"
    READY = "ready"
    FAILED = "failed"
    STOP = "stop"
    DIED = "died"
    GONE = "gone"


TABLE: Final[dict[tuple[State, Happening], State]] = {
    (State.DOWNLOADING, Happening.WHOLE): State.DOWNLOADED,
    (State.DOWNLOADED, Happening.NOT_WHOLE): State.DOWNLOADING,
    (State.DOWNLOADED, Happening.START): State.STARTING,
    (State.STARTING, Happening.READY): State.RUNNING,
    (State.STARTING, Happening.FAILED): State.DOWNLOADED,
    (State.STARTING, Happening.STOP): State.STOPPING,
    (State.RUNNING, Happening.STOP): State.STOPPING,
    (State.RUNNING, Happening.DIED): State.DOWNLOADED,
    (State.STOPPING, Happening.GONE): State.DOWNLOADED,
}
"""Facts from the disk do not move a model that runs: what is running has its files open. They are looked at again when it has stopped."""

_PUBLIC: Final[dict[State, tuple[PublicState, Transition | None]]] = {
    State.DOWNLOADING: (PublicState.DOWNLOADING, None),
    State.DOWNLOADED: (PublicState.DOWNLOADED, None),
    State.STARTING: (PublicState.DOWNLOADED, Transition.STARTING),
    State.RUNNING: (PublicState.RUNNING, None),
    State.STOPPING: (PublicState.RUNNING, Transition.STOPPING),
}


class Standing(NamedTuple):
    """One model at a glance."""

    id: str
    state: PublicState
    transition: Transition | None


def find_next(state: State, happening: Happening) -> State | None:
    """Return the state after *happening*, or None where it does not fit *state*."""
    return TABLE.get((state, happening))


def public(state: State) -> tuple[PublicState, Transition | None]:
    """Return what the API shows of *state*."""
    return _PUBLIC[state]
