"""The body of a streamed answer, written without waiting.

aiohttp's `StreamResponse.write` is a coroutine: whoever has a piece must be a task, which wakes up for it in another turn of the loop. A stream brings a piece for each token of each answer, and
mostly after a decode has put a whole model through the processor's caches, so that what counts is how much code that takes. This is for callbacks.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final, Protocol

from aiohttp import hdrs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp import web
    from aiohttp.abc import AbstractStreamWriter

FULL: Final = 64 * 1024
"""Bytes that the other side has not taken, above which whoever writes should wait: asyncio's own mark."""


class Taker(Protocol):
    """Takes pieces as they come. Where it *is_full* nothing more shall come before it has *drained*."""

    @property
    def is_full(self) -> bool: ...

    def write(self, piece: bytes) -> None: ...

    async def drained(self) -> None: ...


async def pour(read: Callable[[], Awaitable[bytes]], taker: Taker) -> None:
    """Give *taker* all that *read* returns, until it returns nothing; errors and cancelling come through."""
    while piece := await read():
        taker.write(piece)
        if taker.is_full:
            await taker.drained()


class Outflow:
    """What `begin` returns. The answer ends by `write_eof` of its response."""

    def __init__(
        self, transport: asyncio.Transport | None, writer: AbstractStreamWriter | None, *, chunked: bool
    ) -> None:
        self._transport = transport
        self._writer = writer
        self._chunked = chunked

    @property
    def is_full(self) -> bool:
        """Whether to wait for `drained` before more is written."""
        transport = self._transport
        return transport is not None and not transport.is_closing() and transport.get_write_buffer_size() > FULL

    @property
    def descriptor(self) -> int | None:
        """The number of the socket that all of what comes now may be written to; None where there is none, or something waits before it."""
        if self._transport is None or self._transport.is_closing() or self._transport.get_write_buffer_size():
            return None
        found = self._transport.get_extra_info("socket")
        return None if found is None or self._transport.get_extra_info("sslcontext") else int(found.fileno())

    def frame(self, piece: bytes) -> bytes:
        """Return *piece*, which is not empty, as it goes over the wire."""
        return b"%x\r\n%b\r\n" % (len(piece), piece) if self._chunked else piece

    def write(self, piece: bytes) -> None:
        """Send *piece*, which is not empty. Once the client has gone nothing happens: aiohttp cancels its handler then."""
        self.write_framed(self.frame(piece))

    def write_framed(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    async def drained(self) -> None:
        """Return when the client has taken most of what was written, or has gone; never before the loop has had a turn."""
        await asyncio.sleep(0)
        if self._writer is not None:
            with contextlib.suppress(ConnectionError):
                await self._writer.drain()


async def begin(request: web.Request, response: web.StreamResponse) -> Outflow:
    """Send the head of *response*, which must have no length and no compression."""
    writer = await response.prepare(request)
    if request.transport is not None:
        request.transport.set_write_buffer_limits(high=FULL)  # that of TLS is else eight times as high
    return Outflow(request.transport, writer, chunked=response.headers.get(hdrs.TRANSFER_ENCODING) == "chunked")
