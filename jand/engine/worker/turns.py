"""The engine's thread: it owns every context of llama.cpp in this process and takes turns between what uses them, a step at a time."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from jand.errors import QueueFullError, ShuttingDownError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TOGETHER_S: Final = 0.03
"""How long a first request waits, at most, for others that came with it: templates and tokens of eight take about as long."""
NEXT_S: Final = 0.002
"""How long after the last of several another one may come; one that is alone does not wait."""


@dataclass(slots=True)
class Counters:
    """What the engine has done since it began; read by /metrics without a lock."""

    requests: int = 0
    cancelled: int = 0
    failed: int = 0
    steps: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    embedded_tokens: int = 0
    images: int = 0
    images_encoded: int = 0
    images_s: float = 0.0
    reading_s: float = 0.0
    generating_s: float = 0.0
    slot_steps: int = 0
    most_tokens: int = 0

    def note_step(self, held: Sequence[int]) -> None:
        """Count a call of llama_decode after which the conversations that took part hold so many tokens each."""
        self.steps += 1
        self.slot_steps += len(held)
        self.most_tokens = max(self.most_tokens, *held)


class Part(Protocol):
    """One user of the thread. *active* counts what is in work, *queued* what waits for it."""

    @property
    def active(self) -> int: ...

    @property
    def queued(self) -> int: ...

    def step(self) -> None:
        """Do a bounded amount of work; called while there is any, and once more after a forced stop, to tell whoever waits."""


class Turns:
    """Parts join before `run`; their `submit` and `cancel`, on any thread, hold *changed* and notify it."""

    def __init__(self, *, together_s: float = TOGETHER_S) -> None:
        self._together_s = together_s
        self.changed = threading.Condition()
        self.counters = Counters()
        self.stepped_at = time.monotonic()
        self.forced = False
        self._closing = False
        self._promised = 0
        self._parts: list[Part] = []

    @property
    def active(self) -> int:
        return sum(part.active for part in self._parts)

    @property
    def queued(self) -> int:
        return sum(part.queued for part in self._parts)

    def join(self, part: Part) -> None:
        self._parts.append(part)

    @contextlib.contextmanager
    def promised(self) -> Iterator[None]:
        """Take a request in that is not ready to be queued: a stop that begins meanwhile waits for it, and what it submits inside is accepted."""
        with self.changed:
            self.check_open((), 0, 1)
            self._promised += 1
            self.changed.notify()
        try:
            yield
        finally:
            with self.changed:
                self._promised -= 1
                self.changed.notify()

    def check_open(self, waiting: Sequence[object], more: int, limit: int, *, promised: bool = False) -> None:
        """Raise where *more* requests cannot join those *waiting*; hold *changed*. What was *promised* is taken until a stop is forced."""
        if self.forced or (self._closing and not promised):
            raise ShuttingDownError("cannot answer: the model is being stopped", retry_after_s=1)
        if len(waiting) + more > limit:
            raise QueueFullError(
                f"cannot answer: {len(waiting)} requests wait already", hint="try again later", retry_after_s=1
            )

    def close(self, *, force: bool) -> None:
        """Take nothing new and end `run` when all is answered; with *force* cut what runs."""
        with self.changed:
            self._closing = True
            self.forced = self.forced or force
            self.changed.notify()

    def close_forced(self) -> None:
        self.close(force=True)

    def run(self) -> None:
        """Work until `close`; returns when the last answer is delivered."""
        while self._wait_for_work():
            for part in self._parts:
                if part.active or part.queued:
                    part.step()
            self.stepped_at = time.monotonic()

    def _wait_for_work(self) -> bool:
        with self.changed:
            idle = False
            while not self.active and not self.queued:
                if self._closing and (self.forced or not self._promised):
                    return False
                self.changed.wait()
                self.stepped_at = time.monotonic()
                idle = True
            if idle:
                self._let_others_come()
            return True

    def _let_others_come(self) -> None:
        """Wait a moment for requests that are on their way beside the first: read together they are all answered sooner than one after the other."""
        until = time.monotonic() + self._together_s
        while (left := until - time.monotonic()) > 0 and not self._closing:
            if self._promised:
                self.changed.wait(left)
            elif self.queued < 2 or not self.changed.wait(NEXT_S):
                return
