"""Tasks that are named, kept and watched: nothing is started that nobody waits for."""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Coroutine

log = structlog.get_logger(__name__)


class TaskSet:
    """Background tasks of one owner.

    Keeps a reference to each (asyncio itself holds only weak ones), logs the traceback of one that fails, and cancels and awaits all of them in `close`.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def start(self, work: Coroutine[None, None, None], *, name: str, apart: bool = False) -> asyncio.Task[None]:
        """Run *work* in the background; after `close` it is dropped without being run, as a cancelled task.

        *apart*: what it logs does not count as done for the request that it was begun in, which it outlives.
        """
        task = asyncio.create_task(work, name=name, context=contextvars.Context() if apart else None)
        if self._closed:
            task.cancel()
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def spawn(self, work: Coroutine[None, None, None], *, name: str, apart: bool = False) -> None:
        """Run *work* in the background as `start` does, for those who never await it themselves."""
        _ = self.start(work, name=name, apart=apart)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task failed", task=task.get_name(), exc_info=error)

    async def close(self) -> None:
        """Cancel what still runs and wait until it has ended; errors were logged as they came."""
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Bell:
    """Wakes everybody who waits, each time it rings; who comes later waits for the next time. Belongs to the event loop's thread."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()

    def ring(self) -> None:
        if not self._waiting:
            return
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
        self._waiting.clear()

    async def heard(self, timeout_s: float | None = None) -> None:
        """Return at the next ring, or after *timeout_s* seconds. Cancel-safe."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await asyncio.wait([future], timeout=timeout_s)
        finally:
            self._waiting.discard(future)
