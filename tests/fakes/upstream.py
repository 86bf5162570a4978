"""What a worker or provider is to the relay: an HTTP server on a Unix socket whose every byte, pause and death a test decides."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    Behaviour = Callable[["Exchange"], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Exchange:
    """One request and the answer to it, in verbs. *left* is set when the other side has gone."""

    def __init__(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.request = request
        self.left = asyncio.Event()
        self._reader = reader
        self._writer = writer
        self._chunked = False

    async def begin(
        self, status: int = 200, headers: dict[str, str] | None = None, *, length: int | None = None
    ) -> None:
        """Send the head; the body is chunked unless *length* is given."""
        self._chunked = length is None
        framing = {"Transfer-Encoding": "chunked"} if length is None else {"Content-Length": str(length)}
        lines = [
            f"HTTP/1.1 {status} Whatever",
            *(f"{name}: {value}" for name, value in ({**(headers or {}), **framing}).items()),
        ]
        self._writer.write("\r\n".join([*lines, "", ""]).encode())
        await self._writer.drain()

    async def send(self, data: bytes) -> None:
        """Send *data* as one piece."""
        self._writer.write(b"%x\r\n%s\r\n" % (len(data), data) if self._chunked else data)
        await self._writer.drain()

    async def end(self) -> None:
        if self._chunked:
            self._writer.write(b"0\r\n\r\n")
        await self._writer.drain()

    def die(self) -> None:
        """Break off as a killed process does: what was sent arrives, nothing follows."""
        self._writer.transport.close()

    async def wait_left(self) -> None:
        """Wait until the other side has closed the connection."""
        while await self._reader.read(1024):
            pass
        self.left.set()


class FakeUpstream:
    """Use as an async context manager. *behave* says how the next requests are answered; *requests* lists them."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.exchanges: list[Exchange] = []
        self.connections = 0
        self.behave: Behaviour = answer_json({})
        self._scratch = tempfile.TemporaryDirectory(prefix="jand-test-")
        self.socket = Path(self._scratch.name) / "up.sock"
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._serve, path=str(self.socket))
        return self

    async def __aexit__(self, *details: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._scratch.cleanup()

    def stop_listening(self) -> None:
        assert self._server is not None
        self._server.close()
        self.socket.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while (request := await read_request(reader)) is not None:
                    self.requests.append(request)
                    exchange = Exchange(request, reader, writer)
                    self.exchanges.append(exchange)
                    await self.behave(exchange)
        finally:
            self._tasks.discard(task)
            writer.close()


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode().strip().split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method, path, headers, body)


def answer_json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Behaviour:
    """Answer with *content*, whole."""
    return answer_bytes(json.dumps(content).encode(), status, {"Content-Type": "application/json", **(headers or {})})


def answer_bytes(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Behaviour:
    async def behave(exchange: Exchange) -> None:
        await exchange.begin(status, headers, length=len(body))
        await exchange.send(body)

    return behave


def answer_events(pieces: Iterable[bytes], then: Behaviour | None = None) -> Behaviour:
    """Answer with a stream of *pieces*, each sent on its own, then do *then* (default: end it)."""

    async def behave(exchange: Exchange) -> None:
        await exchange.begin(headers={"Content-Type": "text/event-stream"})
        for piece in pieces:
            await exchange.send(piece)
        await (exchange.end() if then is None else then(exchange))

    return behave


def chat_chunk(text: str, model: str = "a", finish: str | None = None) -> bytes:
    """One event of a streamed chat completion, as OpenAI's clients read it."""
    delta: dict[str, str] = {"content": text} if text else {}
    chunk = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": model,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }
    return b"data: %s\n\n" % json.dumps(chunk).encode()


DONE = b"data: [DONE]\n\n"
