"""What has happened to each model since the daemon began, as numbers that only grow; counted where it happens, read by `/metrics`.

What a worker did itself (tokens, steps) comes with its heartbeats and its last words before it ends: of one that is killed, what came after its last heartbeat is not known.
"""

from __future__ import annotations

import bisect
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

FIRST_BYTE_S: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
LOAD_S: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class Histogram:
    """*bounds* are upper ones, in seconds, growing; what is above the last counts in *counts* too, as one more."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.sum += value


@dataclass(slots=True)
class ModelTally:
    """*answers* by status; *first_byte* by whether the answer was a stream; *work* by the names of the worker's counters. *processing* and *queued* are as of the last heartbeat."""

    loads: Histogram = field(default_factory=lambda: Histogram(LOAD_S))
    failed_loads: int = 0
    deaths: int = 0
    restarts: int = 0
    evictions: int = 0
    answers: Counter[int] = field(default_factory=Counter)
    first_byte: dict[bool, Histogram] = field(default_factory=dict)
    work: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    processing: int = 0
    queued: int = 0
    is_down: bool = False


class Tally:
    """All models that were ever loaded or asked, by id."""

    def __init__(self) -> None:
        self.models: dict[str, ModelTally] = {}

    def of(self, model_id: str) -> ModelTally:
        return self.models.setdefault(model_id, ModelTally())

    def loaded(self, model_id: str, seconds: float) -> None:
        tally = self.of(model_id)
        tally.loads.observe(seconds)
        if tally.is_down:
            tally.restarts += 1
            tally.is_down = False

    def load_failed(self, model_id: str) -> None:
        self.of(model_id).failed_loads += 1

    def died(self, model_id: str) -> None:
        tally = self.of(model_id)
        tally.deaths += 1
        tally.is_down = True

    def evicted(self, model_id: str) -> None:
        self.of(model_id).evictions += 1

    def answered(self, model_id: str, *, status: int, stream: bool, first_byte_s: float) -> None:
        """Count an answer when its first byte came, *first_byte_s* after the request; how long an error took is not of interest."""
        tally = self.of(model_id)
        tally.answers[status] += 1
        if status < 400:
            tally.first_byte.setdefault(stream, Histogram(FIRST_BYTE_S)).observe(first_byte_s)

    def forget(self, model_id: str) -> None:
        """Drop what is known of a model that is gone for good."""
        self.models.pop(model_id, None)


LARGEST: Final = frozenset({"most_tokens"})
"""What of a worker's numbers is the largest value of something, and no count."""


class Meter:
    """Adds up what one worker says of itself."""

    def __init__(self, tally: Tally, model_id: str) -> None:
        self._tally = tally
        self._model_id = model_id
        self._before: Mapping[str, float] = {}

    def heard(self, *, processing: int, queued: int, work: Mapping[str, float]) -> None:
        """Take what a heartbeat says; *work* counts from the worker's beginning."""
        tally = self._tally.of(self._model_id)
        tally.processing, tally.queued = processing, queued
        for name, value in work.items():
            if name in LARGEST:
                tally.work[name] = max(tally.work[name], value)
            else:
                tally.work[name] += max(0.0, value - self._before.get(name, 0.0))
        self._before = work

    def ended(self) -> None:
        tally = self._tally.of(self._model_id)
        tally.processing = tally.queued = 0
