"""From the engine's thread to whom an answer is for: at once, or by one wake-up of the event loop for all that a step has brought."""

from __future__ import annotations

import ctypes
import os
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from jand.engine.worker.answer import Answer, Delta
    from jand.engine.worker.embedder import Job


class Delivery:
    """Tells answers their deltas; *loop* wakes up by a pipe for those who hear there.

    `loop.call_soon_threadsafe` lets go of the interpreter while it writes to the loop's own: the loop takes it, makes text of all the news, and the engine, which has nothing left to do
    but to begin the next step, waits for that (0.3 ms with eight answers). This writes with the interpreter in hand.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._unheard: deque[Answer] = deque()
        self._told = False
        self._reading, self._writing = os.pipe()
        for end in (self._reading, self._writing):
            os.set_blocking(end, False)
        self._write: Callable[[int, bytes, int], int] = ctypes.PyDLL(None).write
        loop.call_soon_threadsafe(loop.add_reader, self._reading, self._take)

    def __call__(self, answer: Answer, delta: Delta) -> None:
        """Tell *answer*, on any thread but the loop's; where the loop must hear of it, after `flush`."""
        if not answer.tell(delta):
            self._unheard.append(answer)

    def flush(self) -> None:
        if self._unheard and not self._told:
            self._told = True
            self._write(self._writing, b"\0", 1)

    def _take(self) -> None:
        os.read(self._reading, 64)
        self._told = False  # before the last look: what comes after it is told anew
        while self._unheard:
            self._unheard.popleft().hear()


def settle_on(loop: asyncio.AbstractEventLoop) -> Any:
    """Return what the embedder calls when a job has ended."""

    def put(job: Job, error: Exception | None) -> None:
        if job.result.done():
            return
        if error is None:
            job.result.set_result(job.vectors)
        else:
            job.result.set_exception(error)

    def settle(job: Job, error: Exception | None) -> None:
        loop.call_soon_threadsafe(put, job, error)

    return settle
