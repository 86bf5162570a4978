"""How the body of an answer comes in: received straight into a few blocks of memory that are used again and again.

aiohttp hands out a body as new `bytes` that were copied twice on their way, which costs more than the network and the digest together. So once its parser has read the headers of an
answer with a plain Content-Length, the connection's transport is given another protocol, which reads into our blocks; it works for TLS and through proxies all the same. What has no
length, or comes in chunks, stays with aiohttp.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

import aiohttp
from typing_extensions import override

if TYPE_CHECKING:
    from asyncio.trsock import TransportSocket

BLOCK: Final = 512 << 10
"""Few enough bytes that a block is still in the processor's cache when it is written and hashed: three of 1 MiB took a fifth longer than six of these, and smaller ones cost more turns between
the loop and the threads. Not less than asyncio decrypts at once (256 KiB): its TLS drops what does not fit into one block when a connection ends."""

BLOCKS: Final = 6
"""One being filled, one written, one hashed, and one waiting for each of these. A kill loses what is in those that are not written, 3 MiB at most."""

LOW_WATER: Final = BLOCK
"""While blocks fill fast, the loop is woken once for so many bytes, and not for every few packets."""

HOLD_S: Final = 0.05
"""For how long bytes may wait, in a block or below the low water, until they are handed on: a slow line is written and shown as it comes."""


class Body(Protocol):
    """Pieces of a body, in order. Each is to be given back once it is done with: while too many are out, the sender has to wait."""

    async def take(self) -> memoryview:
        """Return the next piece; an empty one at the end. Raises aiohttp.ClientError where the connection broke or nothing came, after all that came before was taken."""

    def give_back(self, piece: memoryview) -> None: ...


def body_of(response: aiohttp.ClientResponse, stall_s: float) -> Body:
    """Return the body of *response*, of which nothing was read yet; a connection that is silent for *stall_s* is given up."""
    connection, length = response.connection, response.content_length
    transport = connection.transport if connection is not None else None
    content = response.content
    if length is None or transport is None or transport.is_closing() or content.exception() is not None:
        return _Parsed(content)
    if "chunked" in response.headers.get("Transfer-Encoding", "").lower():
        return _Parsed(content)
    first = bytearray()
    while piece := content.read_nowait():
        # Reading lets the parser go on with what it holds back.
        first += piece
    handler = transport.get_protocol()
    if response.connection is None or content.is_eof() or not isinstance(handler, asyncio.Protocol):
        return _Parsed(content, bytes(first))
    return _Received(transport, handler, bytes(first), length - len(first), stall_s)


class _Parsed:
    """What aiohttp's parser hands out."""

    def __init__(self, content: aiohttp.StreamReader, first: bytes = b"") -> None:
        self._content = content
        self._first = first
        self._room = asyncio.Semaphore(BLOCKS)

    async def take(self) -> memoryview:
        await self._room.acquire()
        first, self._first = self._first, b""
        return memoryview(first or await self._content.read(BLOCK // 2))

    def give_back(self, piece: memoryview) -> None:
        del piece
        self._room.release()


class _Received(asyncio.BufferedProtocol):
    """*remaining* bytes are to come over *transport*, behind those of *first*. *handler* is aiohttp's own protocol, which is told when the connection ends."""

    def __init__(
        self, transport: asyncio.Transport, handler: asyncio.Protocol, first: bytes, remaining: int, stall_s: float
    ) -> None:
        self._transport = transport
        self._handler = handler
        self._remaining = remaining
        self._stall_s = stall_s
        self._loop = asyncio.get_running_loop()
        self._free = [memoryview(bytearray(BLOCK)) for _ in range(BLOCKS)]
        self._block: memoryview | None = None
        self._filled = 0
        self._ready: deque[memoryview] = deque([memoryview(first)] if first else [])
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._error: aiohttp.ClientError | None = None
        self._socket: TransportSocket | None = transport.get_extra_info("socket")
        self._low_water = 1
        transport.set_protocol(self)
        self._begin_block(self._free.pop())
        transport.resume_reading()

    async def take(self) -> memoryview:
        while not self._ready:
            if not self._remaining:
                return memoryview(b"")
            if self._error is not None:
                raise self._error
            self._waiter = self._loop.create_future()
            try:
                async with asyncio.timeout(self._stall_s):
                    await self._waiter
            except TimeoutError as error:
                raise aiohttp.SocketTimeoutError("Timeout on reading data from socket") from error
            finally:
                self._waiter = None
        return self._ready.popleft()

    def give_back(self, piece: memoryview) -> None:
        if not isinstance(piece.obj, bytearray):
            return
        self._free.append(memoryview(piece.obj))
        # Each pause and each end of one costs as much as a block: none for every single block where the disk or the digest is what is waited for.
        enough = len(self._free) >= BLOCKS // 2
        if self._block is None and enough and self._remaining and not self._transport.is_closing():
            self._begin_block(self._free.pop())
            self._transport.resume_reading()

    # What the transport calls.

    @override
    def get_buffer(self, sizehint: int) -> memoryview:
        assert self._block is not None
        return self._block[self._filled : min(BLOCK, self._filled + self._remaining)]

    @override
    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        self._remaining -= nbytes
        if self._filled == BLOCK or not self._remaining:
            self._hand_over()
            self._wake_at(LOW_WATER if self._remaining >= BLOCK else 1)
        elif self._timer is None:
            self._timer = self._loop.call_later(HOLD_S, self._hold_no_longer)

    def _hold_no_longer(self) -> None:
        self._timer = None
        self._wake_at(1)
        self._hand_over()

    def _hand_over(self) -> None:
        if self._block is None or not self._filled:
            return
        self._ready.append(self._block[: self._filled])
        self._block = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._free and self._remaining:
            self._begin_block(self._free.pop())
        else:
            self._transport.pause_reading()
        self._wake()

    def _begin_block(self, block: memoryview) -> None:
        self._block = block
        self._filled = 0
        if self._low_water > 1:
            self._timer = self._loop.call_later(HOLD_S, self._hold_no_longer)

    def _wake_at(self, count: int) -> None:
        """Let the system tell of bytes only once *count* of them are there, or the connection ends."""
        if count != self._low_water and self._socket is not None and sys.platform == "linux":
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)
                self._low_water = count

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    @override
    def eof_received(self) -> bool | None:
        return self._handler.eof_received()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._hand_over()
        cause = "the server closed it" if exc is None else str(exc) or type(exc).__name__
        self._error = aiohttp.ClientPayloadError(cause)
        self._wake()
        self._handler.connection_lost(exc)
