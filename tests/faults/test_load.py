"""Many clients at once, and clients that never finish: nobody gets an error, nobody is held up, and memory stays where it was."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fakes.daemon import DaemonProcess
from tests.fakes.models_tree import ModelsTree
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.timeout(60)

CONNECTIONS = 200
FLAT_BYTES = 8 << 20
"""What the resident memory may grow between the fifth of the requests that warms up and the last; an answer kept for each request would be 50 MB and more."""

ASKED = (
    (b"GET /health HTTP/1.1\r\nHost: jand\r\n\r\n", b"200"),
    (b"GET /v1/models HTTP/1.1\r\nHost: jand\r\n\r\n", b"200"),
    (b"GET /v1/models/m1 HTTP/1.1\r\nHost: jand\r\n\r\n", b"200"),
    (b"GET /v1/models/none HTTP/1.1\r\nHost: jand\r\n\r\n", b"404"),
    (b"PUT /v1/models/m2/start HTTP/1.1\r\nHost: jand\r\nContent-Length: 2\r\n\r\n{}", b"503"),
    (b'POST /v1/chat/completions HTTP/1.1\r\nHost: jand\r\nContent-Length: 15\r\n\r\n{"model":"none"', b"400"),
)
"""Requests with the status that each has: the probes, the list, a model, one that is not there, one whose binary is missing, a broken body."""


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[DaemonProcess]:
    tree = ModelsTree(tmp_path / "models")
    for number in range(5):
        tree.spec(f"m{number}/m{number}.json", download_url=f"m{number}.gguf")
    async with DaemonProcess(tmp_path, "--no-reuse", "--log-level", "warning") as process:
        yield process


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> bytes:
    """Return the status of the answer, which is read to its end."""
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    assert length
    await reader.readexactly(int(length[1]))
    return head[9:12]


async def one_client(socket: Path, count: int, first: int) -> float:
    """Send *count* requests over one connection, one after the other; return the longest that an answer took."""
    reader, writer = await asyncio.open_unix_connection(str(socket))
    longest = 0.0
    for number in range(first, first + count):
        request, status = ASKED[number % len(ASKED)]
        began = time.monotonic()
        assert await asyncio.wait_for(ask(reader, writer, request), 30) == status
        longest = max(longest, time.monotonic() - began)
    writer.close()
    return longest


def resident(daemon: DaemonProcess) -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{daemon.pid}/status").read_text())
    assert found
    return int(found[1]) << 10


def descriptors(daemon: DaemonProcess) -> int:
    return len(list(Path(f"/proc/{daemon.pid}/fd").iterdir()))


@pytest.mark.timeout(1800)
async def test_many_requests_over_many_connections_get_their_answers_and_leave_nothing(
    daemon: DaemonProcess, *, soak: bool
) -> None:
    await daemon.models_by_id()
    open_before = descriptors(daemon)
    total = 100_000 if soak else 3_000
    each = total // 5 // CONNECTIONS
    sizes = []
    for part in range(5):
        await asyncio.gather(*(one_client(daemon.socket, each, part + connection) for connection in range(CONNECTIONS)))
        sizes.append(resident(daemon))

    assert max(sizes[1:]) - sizes[0] < FLAT_BYTES, sizes
    await until(lambda: descriptors(daemon) <= open_before, 10, what="the connections to be gone")
    assert not [event for event in daemon.log_events() if event["level"] == "error"]


HALF = (
    b"",
    b"GET /v1/mod",
    b"GET /v1/models HTTP/1.1\r\nHost: jand\r\nX-Slow: ",
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: jand\r\nContent-Length: 1000\r\n\r\n{",
    b"POST /v1/models HTTP/1.1\r\nHost: jand\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    b"GET /v1/events HTTP/1.1\r\nHost: jand\r\n\r\n",
)
"""What clients have sent when they stop: nothing, half a line, half a header, half a body, half a chunk; and streams that nobody reads."""


async def test_clients_that_never_finish_hold_up_nobody(daemon: DaemonProcess, *, soak: bool) -> None:
    """And drip a byte now and then, as slow-loris does; when they leave, their descriptors are free again."""
    open_before = descriptors(daemon)
    async with contextlib.AsyncExitStack() as stack:
        slow: list[asyncio.StreamWriter] = []
        for number in range(900 if soak else 300):
            _, writer = await asyncio.open_unix_connection(str(daemon.socket))
            stack.callback(writer.close)
            writer.write(HALF[number % len(HALF)])
            slow.append(writer)
        for _ in range(5):
            for writer in slow[2::6]:
                writer.write(b"x")
            longest = max(
                await asyncio.gather(*(one_client(daemon.socket, 20, connection) for connection in range(20)))
            )
            assert longest < 5
    await until(lambda: descriptors(daemon) <= open_before, 10, what="their descriptors to be free")
    assert not [event for event in daemon.log_events() if event["level"] == "error"]


async def test_clients_that_vanish_without_a_word_leave_nothing(daemon: DaemonProcess) -> None:
    """In the middle of a request, of an answer, of a stream."""
    open_before = descriptors(daemon)
    for number in range(200):
        _, writer = await asyncio.open_unix_connection(str(daemon.socket))
        writer.write(HALF[number % len(HALF)] if number % 2 else ASKED[1][0] * 20)
        writer.transport.abort()
    await until(lambda: descriptors(daemon) <= open_before, 10, what="their descriptors to be free")
    assert await one_client(daemon.socket, 6, 0) < 5
    assert not [event for event in daemon.log_events() if event["level"] == "error"]
