"""A stand-in hub on loopback that answers as Hugging Face does, with faults to order.

Two ports, so two origins: the hub itself (API and `resolve`) and its storage, to which `resolve` redirects with a signed URL. Raw asyncio streams, because a web
framework cannot cut a body, lie about a range or reset a connection. `python -m tests.fakes.hub DIRECTORY` serves DIRECTORY/user/repo/... by hand.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from tests.fakes.hub_answers import HubAnswers, Reply
from tests.fakes.hub_faults import Fault, Request, Where

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK = 128 << 10
REASONS = {
    200: "OK",
    206: "Partial Content",
    302: "Found",
    307: "Temporary Redirect",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
}


class ConnectionEndedError(Exception):
    """The connection was ended on purpose."""


class FakeHub(HubAnswers):
    """An async context manager; `endpoint` is what HF_ENDPOINT would be. All of it may be changed between and during requests."""

    def __init__(self, *, page: int = 1000, rate: int | None = None) -> None:
        super().__init__(page=page)
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.rate = rate
        """Bytes per second of each body."""
        self.tight = True
        """Keep send buffers small, so that what was served is what the client all but has; off for speed."""
        self._servers: list[asyncio.Server] = []
        self._clients: set[asyncio.Task[None]] = set()

    def seen(self, at: Where, path: str = "") -> list[Request]:
        return [request for request in self.requests if request.at == at and path in request.path]

    def served(self, path: str = "") -> int:
        """Bytes of file contents that went out, for files whose address contains *path*."""
        return sum(request.served for request in self.seen("cdn", path))

    async def __aenter__(self) -> Self:
        self.endpoint = await self._listen("hub")
        self.storage = await self._listen("cdn")
        return self

    async def _listen(self, at: Where) -> str:
        async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._client(at, reader, writer)

        server = await asyncio.start_server(client, "127.0.0.1", 0, limit=1 << 20)
        self._servers.append(server)
        return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def drop_connections(self) -> None:
        """End every connection that there is."""
        for task in list(self._clients):
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    async def __aexit__(self, *_: object) -> None:
        for server in self._servers:
            server.close()
        await self.drop_connections()
        for server in self._servers:
            await server.wait_closed()

    async def _client(self, at: Where, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)
        if self.tight:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BLOCK)
            writer.transport.set_write_buffer_limits(high=BLOCK)
        with contextlib.suppress(
            ConnectionError, asyncio.IncompleteReadError, ConnectionEndedError, asyncio.CancelledError
        ):
            while (request := await self._read(at, reader)) is not None:
                self.requests.append(request)
                await self._answer(request, writer)
        writer.close()

    async def _read(self, at: Where, reader: asyncio.StreamReader) -> Request | None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except asyncio.IncompleteReadError:
            return None
        first, *lines = head.rstrip("\r\n").split("\r\n")
        method, target, _version = first.split(" ")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if target.startswith("http://"):  # as a proxy is asked
            parts = urlsplit(target)
            target = parts.path + (f"?{parts.query}" if parts.query else "")
            headers["x-asked-proxy-for"] = parts.netloc
        place: Where = "api" if at == "hub" and target.startswith("/api/") else at
        return Request(place, method, target, headers)

    def _fault_for(self, request: Request) -> Fault | None:
        return next((fault for fault in self.faults if fault.meets(request.at, request.path)), None)

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        fault = self._fault_for(request) or Fault(times=0)
        if fault.close:
            _reset(writer) if fault.reset else writer.close()
            raise ConnectionEndedError
        if fault.stall_headers:
            await asyncio.Event().wait()
        if fault.delay_s:
            await asyncio.sleep(fault.delay_s)
        reply = self.reply(request, fault)
        reply.headers.update(fault.headers)
        for name in fault.drop:
            reply.headers.pop(name, None)
        request.status = reply.status
        length = reply.count + len(fault.extra) if reply.file else len(reply.body)
        if not fault.no_length:
            reply.headers.setdefault("Content-Length", str(length))
        else:
            reply.headers["Connection"] = "close"
        lines = [f"HTTP/1.1 {reply.status} {REASONS.get(reply.status, 'Whatever')}"]
        lines += [f"{name}: {value}" for name, value in reply.headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
        if request.method != "HEAD":
            await self._send(request, reply, fault, writer)
        await writer.drain()
        if fault.no_length:
            writer.close()
            raise ConnectionEndedError

    async def _send(self, request: Request, reply: Reply, fault: Fault, writer: asyncio.StreamWriter) -> None:
        if reply.file is None:
            writer.write(reply.body)
            return
        if self.rate is None and fault.times == 0 and isinstance(reply.file.content, Path):
            await self._send_whole(request, reply, writer)
            return
        loop = asyncio.get_running_loop()
        began = loop.time()
        for block in _blocks(reply, fault):
            stop = fault.cut_after if fault.cut_after is not None else fault.stall_after
            room = len(block) if stop is None else max(0, stop - request.served)
            writer.write(block[:room])
            await writer.drain()
            request.served += min(room, len(block))
            if stop is not None and request.served >= stop:
                await _end(writer, fault)
            if self.rate is not None:
                await asyncio.sleep(began + request.served / self.rate - loop.time())

    async def _send_whole(self, request: Request, reply: Reply, writer: asyncio.StreamWriter) -> None:
        """Let the kernel send the file from its cache, out of a thread: the fastest that a server can be."""
        assert reply.file is not None
        assert isinstance(reply.file.content, Path)
        await writer.drain()
        request.served += await asyncio.to_thread(_send_file, writer, reply.file.content, reply.start, reply.count)


def _send_file(writer: asyncio.StreamWriter, path: Path, start: int, count: int) -> int:
    target = os.dup(writer.get_extra_info("socket").fileno())
    writable = select.poll()
    writable.register(target, select.POLLOUT)
    sent = 0
    try:
        with path.open("rb") as stream:
            while sent < count and not writer.is_closing():
                if writable.poll(500):
                    sent += os.sendfile(target, stream.fileno(), start + sent, count - sent)
    finally:
        os.close(target)
    return sent


def _blocks(reply: Reply, fault: Fault) -> Iterator[bytes]:
    assert reply.file is not None
    for start in range(reply.start, reply.start + reply.count, BLOCK):
        block = reply.file.read(start, min(BLOCK, reply.start + reply.count - start))
        if fault.flip_at is not None and start <= fault.flip_at < start + len(block):
            at = fault.flip_at - start
            block = block[:at] + bytes([block[at] ^ 0xFF]) + block[at + 1 :]
        yield block
    if fault.extra:
        yield fault.extra


async def _end(writer: asyncio.StreamWriter, fault: Fault) -> None:
    if fault.cut_after is None:
        await asyncio.Event().wait()  # stalled, until the client leaves
    if fault.reset:
        _reset(writer)
    writer.close()
    raise ConnectionEndedError


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with an RST: what is in flight is lost."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _serve(directory: Path) -> None:
    hub = FakeHub()
    hub.tight = False
    for repo in sorted(directory.glob("*/*")):
        files = [path for path in sorted(repo.rglob("*")) if path.is_file()]
        hub.add(str(repo.relative_to(directory)), {str(path.relative_to(repo)): path for path in files})
    async with hub:
        sys.stdout.write(hub.endpoint + "\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(Path(sys.argv[1])))
