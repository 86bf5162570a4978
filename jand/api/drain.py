"""Requests under way, and how they end when the daemon stops: patient ones get their time, endless ones end at once.

To cut a request is to cancel its task after noting that it was us; so a handler that is cancelled can tell a stop from a client that went away, and pays
nothing for it while it runs.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

from jand.errors import ShuttingDownError

if TYPE_CHECKING:
    from collections.abc import Iterator


class Drain:
    def __init__(self) -> None:
        self._patient: set[asyncio.Task[object]] = set()
        self._endless: set[asyncio.Task[object]] = set()
        self._cut: set[asyncio.Task[object]] = set()
        self._left: asyncio.Event = asyncio.Event()
        self._draining = False

    @contextmanager
    def entered(self, *, endless: bool) -> Iterator[None]:
        """Count the current task as a request under way. Raises ShuttingDownError once draining has begun."""
        if self._draining:
            raise stopping()
        task = asyncio.current_task()
        assert task is not None
        requests = self._endless if endless else self._patient
        requests.add(task)
        try:
            yield
        finally:
            requests.discard(task)
            self._cut.discard(task)
            self._left.set()

    def begin(self) -> None:
        """Take no further requests and cut the endless ones. Idempotent."""
        self._draining = True
        self._end(self._endless)

    def cut(self) -> None:
        """Cut whatever is under way."""
        self._end(self._patient | self._endless)

    def _end(self, tasks: set[asyncio.Task[object]]) -> None:
        for task in tasks - self._cut:
            self._cut.add(task)
            task.cancel()

    async def wait_empty(self, timeout_s: float) -> bool:
        """Wait until no request is under way; False if some still were after *timeout_s*."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._patient or self._endless:
                    self._left.clear()
                    await self._left.wait()
        except TimeoutError:
            return False
        return True

    def was_cut(self) -> bool:
        """Whether the CancelledError that the current task has just caught is a cut; then it counts as dealt with."""
        task = asyncio.current_task()
        if task is None or task not in self._cut:
            return False
        task.uncancel()
        return True


def stopping() -> ShuttingDownError:
    return ShuttingDownError("cannot answer: the daemon is stopping", hint="ask again when it is back")
