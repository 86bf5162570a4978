"""HTTP with a worker over its socket: a request goes out, and the answer comes in, pulled piece by piece or poured, as it arrives, into whoever takes it.

aiohttp's client brings each piece through a reader to a task; that is 0.2 ms of the daemon's time for each token of each answer while both cores decode, more than anything else that is done
for it. Here the piece goes on in the same turn of the loop. llhttp (httptools) reads the protocol, for a worker that runs a hostile model is not trusted.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, cast

import httptools
from multidict import CIMultiDict
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jand.outflow import Taker

CONNECT_TIMEOUT_S: Final = 10.0
"""A worker's socket is local: one that takes longer to accept is hung."""
IDLE_S: Final = 30.0
"""A connection unused for longer is not used again: the worker's end (aiohttp) closes it after 75 s, which must not meet a request on its way."""
READ_BYTES: Final = 64 * 1024
MOST_HELD: Final = 256 * 1024
"""Bytes of an answer that wait for whoever reads it before the worker must wait."""
MOST_HEAD: Final = 64 * 1024
"""Bytes that bring nothing of a body, such as headers; no answer of ours has a hundredth of that."""


class CannotConnectError(ConnectionError):
    """The worker's socket takes no connection. Its text says why, without the socket's path."""


class WorkerClient:
    """The connections to the worker that listens at *socket*: as many as there are requests, used again."""

    def __init__(self, socket: str, *, idle_s: float = IDLE_S) -> None:
        self._socket = socket
        self._idle_s = idle_s
        self.buffer = memoryview(bytearray(READ_BYTES))
        """What all lines read into, one after the other."""
        self._idle: list[Line] = []
        self._lines: set[Line] = set()
        self._closed = False

    async def ask(self, path: str, body: bytes, headers: Mapping[str, str]) -> WorkerAnswer:
        """POST *body* and return the answer when its head has come. Raises ConnectionError; cancelling ends the connection."""
        line = self._idle_line() or await self._connect()
        try:
            line.send(_request(path, body, headers))
            await line.head()
        except BaseException:
            line.hang_up()
            raise
        return WorkerAnswer(line)

    def close(self) -> None:
        """Break all connections; whoever still reads an answer is told that it broke off."""
        self._closed = True
        for line in list(self._lines):
            line.hang_up()

    def forget(self, line: Line) -> None:
        self._lines.discard(line)
        if line in self._idle:
            self._idle.remove(line)

    def give_back(self, line: Line) -> None:
        self._idle.append(line)

    def _idle_line(self) -> Line | None:
        while self._idle:
            line = self._idle.pop()
            if line.is_usable(self._idle_s):
                return line
            line.hang_up()
        return None

    async def _connect(self) -> Line:
        self._check_open()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                _, line = await loop.create_unix_connection(lambda: Line(self), self._socket)
        except TimeoutError:
            raise CannotConnectError("it does not accept connections") from None
        except OSError as error:
            raise CannotConnectError(error.strerror or "no connection") from error
        self._lines.add(line)
        try:
            self._check_open()
        except CannotConnectError:
            line.hang_up()
            raise
        return line

    def _check_open(self) -> None:
        if self._closed:
            raise CannotConnectError("it was stopped")


class Line(asyncio.BufferedProtocol):
    """One connection and the answer that comes over it; a task at a time may have it."""

    def __init__(self, client: WorkerClient) -> None:
        self.status = 0
        self.reason = ""
        self.headers: CIMultiDict[str] = CIMultiDict()
        self.ended = False
        self._client = client
        self._transport: asyncio.Transport
        self._parser = httptools.HttpResponseParser(self)
        self._pieces: list[bytes] = []
        self._held = 0
        self._barren = 0
        self._head_came = False
        self._lasts = False
        self._error: ConnectionError | None = None
        self._taker: Taker | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._used_at = time.monotonic()

    # -- what whoever has the line does -------------------------------------------------------------------------------

    def is_usable(self, idle_s: float) -> bool:
        """Whether it stands and was used in the last *idle_s* seconds."""
        return self._error is None and time.monotonic() - self._used_at <= idle_s

    @property
    def is_drained(self) -> bool:
        """Whether the whole answer was read."""
        return self.ended and not self._pieces

    def send(self, request: bytes) -> None:
        self.status, self.reason, self.headers = 0, "", CIMultiDict()
        self.ended = self._head_came = False
        self._barren = 0
        self._transport.write(request)

    async def head(self) -> None:
        while not self._head_came:
            await self._wait()

    async def next(self) -> bytes:
        """Return the next piece; empty at the end. Raises ConnectionError where the answer breaks off."""
        while not self._pieces:
            if self.ended:
                return b""
            await self._wait()
        if self._held > MOST_HELD:
            self._transport.resume_reading()
        return self._take_pieces()

    def _take_pieces(self) -> bytes:
        piece = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._held = 0
        return piece

    async def pour(self, taker: Taker) -> None:
        """Return at the end of the answer, of which *taker* has got every piece. Raises ConnectionError where it breaks off, after what came before."""
        if self._pieces:
            taker.write(await self.next())
        self._taker = taker
        try:
            while not self.ended:
                if taker.is_full:
                    self._transport.pause_reading()
                    await taker.drained()
                    self._transport.resume_reading()
                else:
                    await self._wait()
        finally:
            self._taker = None

    def let_go(self) -> None:
        """Give the line back for another request where it can have one."""
        if self.is_drained and self._error is None and self._lasts:
            self._used_at = time.monotonic()
            self._client.give_back(self)
        else:
            self.hang_up()

    def hang_up(self) -> None:
        self._client.forget(self)
        self._transport.abort()

    async def _wait(self) -> None:
        if self._error is not None:
            raise self._error
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # -- what asyncio calls -------------------------------------------------------------------------------------------

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    @override
    def get_buffer(self, sizehint: int) -> memoryview:
        return self._client.buffer

    @override
    def buffer_updated(self, nbytes: int) -> None:
        self._barren += nbytes
        try:
            self._parser.feed_data(self._client.buffer[:nbytes])
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail()
        if self._barren > MOST_HEAD:
            self._fail()
        if self._pieces:
            self._hand_on()

    def _hand_on(self) -> None:
        """Give the taker what a read has brought, as one piece: a worker that sends a byte in a chunk shall cost no more than one that does not."""
        if self._taker is not None:
            self._taker.write(self._take_pieces())
            if self._taker.is_full:
                self._wake()
            return
        if self._held > MOST_HELD:
            self._transport.pause_reading()
        self._wake()

    @override
    def connection_lost(self, error: Exception | None) -> None:
        self._fail()

    def _fail(self) -> None:
        self._error = self._error or ConnectionResetError("the connection broke off")
        self.hang_up()
        self._wake()

    # -- what llhttp calls --------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self.ended:  # nobody has asked, and whoever asks next shall not be told this
            raise ValueError("an answer without a request")

    def on_status(self, reason: bytes) -> None:
        self.reason += reason.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head_came:  # what comes after the body is for nobody
            self.headers.add(name.decode("latin-1"), value.decode("utf-8", "surrogateescape"))

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        if self.status < 200:
            raise ValueError("no answer that was asked for")
        self._head_came = True
        self._wake()

    def on_body(self, piece: bytes) -> None:
        self._barren = 0
        self._pieces.append(piece)
        self._held += len(piece)

    def on_message_complete(self) -> None:
        self._lasts = self._parser.should_keep_alive()
        self.ended = True
        self._wake()


class WorkerAnswer:
    """An answer of which the head has come; satisfies `lifecycle.running.Answer` and its `Body` at once."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self.status = line.status
        self.reason = line.reason
        self.headers = line.headers
        self.content_type = line.headers.get("Content-Type", "").partition(";")[0].strip().lower()

    @property
    def content(self) -> WorkerAnswer:
        return self

    async def readany(self) -> bytes:
        return await self._line.next()

    async def pour(self, taker: Taker) -> None:
        await self._line.pour(taker)

    def at_eof(self) -> bool:
        return self._line.is_drained

    def release(self) -> None:
        self._line.let_go()

    def close(self) -> None:
        self._line.hang_up()


def _request(path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: worker", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if any(end in line for line in lines for end in "\r\n\0"):
        raise ValueError("a header must be one line")
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + body
