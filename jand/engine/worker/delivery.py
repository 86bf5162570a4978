"""From the engine's thread to the event loop: one wake-up for all that a step has brought."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

    from jand.engine.worker.answer import Answer, Delta
    from jand.engine.worker.embedder import Job


def deliver_to(loop: asyncio.AbstractEventLoop) -> Any:
    """Return what the engine calls with all deltas of a step: one wake-up of *loop* for all of them."""

    def put(news: list[tuple[Answer, Delta]]) -> None:
        for answer, delta in news:
            answer.deltas.put_nowait(delta)

    def deliver(news: list[tuple[Answer, Delta]]) -> None:
        loop.call_soon_threadsafe(put, news)

    return deliver


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
