"""Daemon threads for calls that block on the disk.

Not `asyncio.to_thread`: the interpreter joins those threads when it ends, and a call that hangs on a dead network disk would then keep the daemon from ending. A call that takes longer than
`STUCK_S` costs its thread, not the next call: one more thread is lent for as long as it lasts.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

STUCK_S: Final = 5.0
MOST_LENT: Final = 16
CLOSE_S: Final = 1.0


@dataclass(slots=True, eq=False)
class _Job:
    call: Callable[[], Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    ended: Callable[[_Job], None]
    stuck: asyncio.TimerHandle | None = None

    def run(self) -> None:
        try:
            result, error = self.call(), None
        except BaseException as caught:
            result, error = None, caught
        # The loop is closed when the daemon ended meanwhile.
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._finish, result, error)

    def _finish(self, result: object, error: BaseException | None) -> None:
        self.ended(self)
        if self.future.cancelled():
            return
        if error is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(error)


@dataclass(slots=True)
class Threads:
    """At most *count* threads, and one more for each call that has taken *stuck_s* seconds; started when they are needed. Used from one event loop."""

    count: int
    name: str
    stuck_s: float = STUCK_S
    close_s: float = CLOSE_S
    _jobs: queue.SimpleQueue[_Job | None] = field(default_factory=queue.SimpleQueue)
    _threads: list[threading.Thread] = field(default_factory=list)
    _under_way: set[_Job] = field(default_factory=set)
    _lent: set[_Job] = field(default_factory=set)

    def submit(self, call: Callable[[], T]) -> asyncio.Future[T]:
        """Have *call* done; cancelling the future leaves the call to end by itself."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        job = _Job(call, loop, future, self._ended)
        job.stuck = loop.call_later(self.stuck_s, self._lend, job)
        self._under_way.add(job)
        self._ensure_threads()
        self._jobs.put(job)
        return future

    async def run(self, call: Callable[[], T]) -> T:
        """Return what *call* returns."""
        return await self.submit(call)

    async def close(self) -> None:
        """End the threads; one that hangs is left behind, as a daemon thread."""
        for _ in self._threads:
            self._jobs.put(None)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.close_s
        while any(thread.is_alive() for thread in self._threads) and loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.002)

    def _lend(self, job: _Job) -> None:
        if len(self._lent) < MOST_LENT:
            self._lent.add(job)
            self._ensure_threads()

    def _ended(self, job: _Job) -> None:
        if job.stuck is not None:
            job.stuck.cancel()
        self._under_way.discard(job)
        self._lent.discard(job)

    def _ensure_threads(self) -> None:
        if len(self._threads) < min(len(self._under_way), self.count + len(self._lent)):
            thread = threading.Thread(target=self._work, name=f"{self.name} {len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.run()
