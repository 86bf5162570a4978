"""What `jand status` shows: the daemon's numbers at a glance. It looks at what is known and touches no disk."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jand.model.record import PublicState

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from jand.library.status import WatchStatus
    from jand.lifecycle.actor import Actor
    from jand.lifecycle.admission import Admission


@dataclass(frozen=True, slots=True)
class Load:
    """What one model takes: requests that are answered or wait for its start, and bytes that are kept for it and that it really has."""

    model_id: str
    in_flight: int
    waiting: int
    reserved: int
    resident: int


def describe(
    states: Iterable[PublicState], actors: Collection[Actor], admission: Admission, watch: WatchStatus
) -> dict[str, Any]:
    """Count models by state, the requests that are answered and those that wait for a start, and the bytes that models may take, are promised, and have."""
    counts = Counter(states)
    return {
        "models": {state.value: counts[state] for state in PublicState},
        "watch": {label: str(mode) for label, mode in watch.modes.items()},
        "memory": {
            "budget": admission.budget,
            "reserved": admission.reserved,
            "resident": sum(actor.running.memory() for actor in actors if actor.running is not None),
        },
        "in_flight": sum(actor.in_flight for actor in actors),
        "waiting": sum(actor.waiting for actor in actors),
    }
