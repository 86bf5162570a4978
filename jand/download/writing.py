"""What came goes to the disk and into the digest: two threads for each transfer, one at the partial, the other a few pieces behind it with the digest.

Writing 2 GiB and hashing them take about as long as each other, so one thread would take twice the time. The digest never runs ahead of the disk: only what was written is hashed, so that
after a refused write both still agree on where to go on.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from jand.download.threads import see_through

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from concurrent.futures import Future

    from jand.download.body import Body
    from jand.download.pace import Bandwidth
    from jand.download.partial import Partial

T = TypeVar("T")


class Writing:
    """The threads of one attempt at *partial*, which they alone touch until `close` is done."""

    def __init__(self, partial: Partial) -> None:
        self._partial = partial
        self._loop = asyncio.get_running_loop()
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="jand-download")
        self._digest = ThreadPoolExecutor(1, thread_name_prefix="jand-digest")
        self._outstanding = 0
        self._refusal: BaseException | None = None
        self._all_done = asyncio.Event()

    async def run(self, work: Callable[[], T]) -> T:
        """Return what *work* returns in the thread at the partial. While pieces are on their way it may not touch the digest."""
        return await self._loop.run_in_executor(self._disk, work)

    async def close(self, on_cancel: Callable[[], object]) -> None:
        """Close the partial and let the threads go; wait for that however often this is cancelled, and tell *on_cancel* then."""
        try:
            await see_through(self._loop.run_in_executor(self._disk, self._partial.close), on_cancel)
        finally:
            self._disk.shutdown(wait=False)
            self._digest.shutdown(wait=False)

    @asynccontextmanager
    async def pieces_of(
        self, body: Body, bandwidth: Bandwidth, on_part: Callable[[int], None]
    ) -> AsyncIterator[Callable[[memoryview], Awaitable[None]]]:
        """Yield what hands on a piece of *body*, at the pace that is allowed, and raises what an earlier one met; *on_part* is told the bytes.

        At the end, whatever ended it, all that was handed on is written and hashed, or refused, and the first refusal is raised where nothing else is.
        """

        async def hand_on(piece: memoryview) -> None:
            for start in range(0, len(piece), bandwidth.most):
                if self._refusal is not None:
                    raise self._refusal
                part = piece[start : start + bandwidth.most]
                self._put(part, body, piece if start + len(part) == len(piece) else None)
                on_part(len(part))
                await bandwidth.take(len(part))

        self._refusal = None
        try:
            yield hand_on
        except Exception:
            await self._settle()
            raise
        except BaseException:
            await self._settled()
            raise
        await self._settle()

    def _put(self, part: memoryview, body: Body, last_of: memoryview | None) -> None:
        """Have *part* written and hashed, and *last_of*, the piece that ends with it, given back then: one turn of the loop for each, since there are thousands a second."""
        writing: Future[None] = self._disk.submit(self._partial.write, part)

        def follow() -> None:
            refusal = writing.exception()
            try:
                self._partial.hash(part)
            except BaseException as error:
                refusal = refusal or error
            self._loop.call_soon_threadsafe(self._done, refusal, body, last_of)

        self._outstanding += 1
        self._digest.submit(follow)

    def _done(self, refusal: BaseException | None, body: Body, last_of: memoryview | None) -> None:
        self._outstanding -= 1
        self._refusal = self._refusal or refusal
        if last_of is not None:
            body.give_back(last_of)
        if not self._outstanding:
            self._all_done.set()

    async def _settle(self) -> None:
        """Wait for what is on its way; raise the first refusal."""
        await self._settled()
        if self._refusal is not None:
            raise self._refusal

    async def _settled(self) -> None:
        self._all_done.clear()
        if self._outstanding:
            # Left out, a piece would be a gap in the middle of the file.
            await see_through(asyncio.ensure_future(self._all_done.wait()), lambda: None)
