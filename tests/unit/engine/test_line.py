"""What a worker's answers come over: nothing that it sends, and no moment in which it ends, hangs or misleads whoever asks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from jand.engine.line import MOST_HEAD, MOST_HELD, CannotConnectError, WorkerClient
from tests.fakes.upstream import FakeUpstream, answer_bytes, answer_events
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tests.fakes.upstream import Exchange

PATH = "/v1/chat/completions"


@pytest.fixture
async def upstream() -> AsyncIterator[FakeUpstream]:
    async with FakeUpstream() as served:
        yield served


@pytest.fixture
async def client(upstream: FakeUpstream) -> AsyncIterator[WorkerClient]:
    client = WorkerClient(str(upstream.socket))
    yield client
    client.close()


class Bucket:
    """Takes pieces; full after each until `empty`."""

    def __init__(self, *, fills: bool = False) -> None:
        self.pieces: list[bytes] = []
        self.is_full = False
        self._fills = fills
        self._emptied = asyncio.Event()

    def write(self, piece: bytes) -> None:
        self.pieces.append(piece)
        if self._fills:
            self.is_full = True
            self._emptied.clear()

    def empty(self) -> None:
        self.is_full = False
        self._emptied.set()

    async def drained(self) -> None:
        await self._emptied.wait()


async def read(client: WorkerClient) -> bytes:
    answer = await client.ask(PATH, b"{}", {})
    body = b""
    try:
        while piece := await answer.readany():
            body += piece
    except BaseException:
        answer.close()
        raise
    answer.release()
    return body


async def until_stalled(count: Callable[[], int]) -> None:
    """Return when *count* stays what it is while the loop turns."""
    before = -1
    while before != count():
        before = count()
        for _ in range(50):
            await asyncio.sleep(0)


def raw(*pieces: bytes, then: str = "die") -> object:
    async def behave(exchange: Exchange) -> None:
        for piece in pieces:
            await exchange.send(piece)
        if then == "die":
            exchange.die()
        else:
            await exchange.wait_left()

    return behave


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no HTTP at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nBad Name: 1\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_what_is_no_whole_answer_is_an_error(
    upstream: FakeUpstream, client: WorkerClient, content: bytes
) -> None:
    upstream.behave = raw(content)  # type: ignore[assignment]

    with pytest.raises(ConnectionError):
        await read(client)


async def test_headers_without_an_end_are_an_error(upstream: FakeUpstream, client: WorkerClient) -> None:
    header = b"X: " + b"y" * 1000 + b"\r\n"
    upstream.behave = raw(  # type: ignore[assignment]
        b"HTTP/1.1 200 OK\r\n", *[header] * (MOST_HEAD // len(header) + 2), then="stay"
    )

    with pytest.raises(ConnectionError):
        await read(client)


async def test_one_header_without_an_end_is_an_error(upstream: FakeUpstream, client: WorkerClient) -> None:
    upstream.behave = raw(b"HTTP/1.1 200 OK\r\nX: ", *[b"y" * 10_000] * 20, then="stay")  # type: ignore[assignment]

    with pytest.raises(ConnectionError):
        await read(client)


async def test_an_end_without_an_end_is_an_error(upstream: FakeUpstream, client: WorkerClient) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: "
    upstream.behave = raw(head, *[b"y" * 10_000] * 20, then="stay")  # type: ignore[assignment]

    with pytest.raises(ConnectionError):
        await read(client)


async def test_what_came_before_it_broke_off_is_poured_first(upstream: FakeUpstream, client: WorkerClient) -> None:
    upstream.behave = answer_events([b"data: 1\n\n", b"data: 2\n\n"], raw())  # type: ignore[arg-type]
    answer = await client.ask(PATH, b"{}", {})
    bucket = Bucket()

    with pytest.raises(ConnectionError):
        await answer.pour(bucket)

    assert b"".join(bucket.pieces) == b"data: 1\n\ndata: 2\n\n"


async def test_a_byte_in_a_chunk_costs_no_more_than_many(upstream: FakeUpstream, client: WorkerClient) -> None:
    """A hostile model sends what it likes, and the daemon serves others meanwhile."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    upstream.behave = raw(head, b"1\r\nx\r\n" * 50_000, b"0\r\n\r\n", then="stay")  # type: ignore[assignment]
    answer = await client.ask(PATH, b"{}", {})
    bucket = Bucket()

    await answer.pour(bucket)

    assert b"".join(bucket.pieces) == b"x" * 50_000
    assert len(bucket.pieces) < 100


async def test_whoever_takes_slowly_holds_the_worker_back(upstream: FakeUpstream, client: WorkerClient) -> None:
    piece, sent = b"x" * 50_000, 0

    async def behave(exchange: Exchange) -> None:
        nonlocal sent
        await exchange.begin(headers={"Content-Type": "text/event-stream"})
        for _ in range(100):
            await exchange.send(piece)
            sent += 1
        await exchange.end()

    upstream.behave = behave
    answer = await client.ask(PATH, b"{}", {})
    bucket = Bucket(fills=True)
    pouring = asyncio.create_task(answer.pour(bucket))
    await until(lambda: bucket.is_full)
    await until_stalled(lambda: sent)
    assert sent < 50
    while not pouring.done():
        bucket.empty()
        await asyncio.sleep(0)
    await pouring

    assert b"".join(bucket.pieces) == piece * 100
    assert answer.at_eof()


async def test_an_answer_that_nobody_reads_holds_the_worker_back(upstream: FakeUpstream, client: WorkerClient) -> None:
    piece, sent = b"x" * 50_000, 0

    async def behave(exchange: Exchange) -> None:
        nonlocal sent
        await exchange.begin()
        for _ in range(200):
            await exchange.send(piece)
            sent += 1
        await exchange.end()

    upstream.behave = behave
    answer = await client.ask(PATH, b"{}", {})
    await until_stalled(lambda: sent)
    assert sent * len(piece) < 10 * MOST_HELD

    body = b""
    while more := await answer.readany():
        body += more
    assert body == piece * 200


async def test_a_line_serves_one_request_after_the_other(upstream: FakeUpstream, client: WorkerClient) -> None:
    for number in range(3):
        upstream.behave = answer_bytes(b"%d" % number)
        assert await read(client) == b"%d" % number

    assert upstream.connections == 1


@pytest.mark.parametrize("how", ["idle too long", "left before the end", "the worker wants to close"])
async def test_a_line_that_may_not_last_is_not_used_again(upstream: FakeUpstream, how: str) -> None:
    client = WorkerClient(str(upstream.socket), idle_s=-1 if how == "idle too long" else 30)
    upstream.behave = answer_bytes(
        b"1", headers={"Connection": "close"} if how == "the worker wants to close" else None
    )
    if how == "left before the end":
        (await client.ask(PATH, b"{}", {})).close()
    else:
        assert await read(client) == b"1"
    upstream.behave = answer_bytes(b"2")

    assert await read(client) == b"2"
    assert upstream.connections == 2
    client.close()


async def test_what_nobody_asked_for_is_told_to_nobody(upstream: FakeUpstream, client: WorkerClient) -> None:
    """A hostile model must not answer a request before it is put."""
    forged = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"

    async def behave(exchange: Exchange) -> None:
        await exchange.begin(length=1)
        await exchange.send(b"1")
        await exchange.send(forged)
        await exchange.wait_left()

    upstream.behave = behave
    first = await client.ask(PATH, b"{}", {})
    assert await first.readany() == b"1"
    first.release()
    await upstream.exchanges[0].left.wait()
    upstream.behave = answer_bytes(b"2")

    assert await read(client) == b"2"


async def test_closing_the_client_ends_what_is_read_and_lets_nothing_begin(
    upstream: FakeUpstream, client: WorkerClient
) -> None:
    upstream.behave = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", then="stay")  # type: ignore[assignment]
    answer = await client.ask(PATH, b"{}", {})
    reading = asyncio.ensure_future(answer.readany())
    await asyncio.sleep(0)
    client.close()

    with pytest.raises(ConnectionError):
        await reading
    with pytest.raises(CannotConnectError):
        await client.ask(PATH, b"{}", {})


async def test_a_socket_that_is_not_there_says_so_without_its_path(tmp_path: Path) -> None:
    with pytest.raises(CannotConnectError) as caught:
        await WorkerClient(str(tmp_path / "none.sock")).ask(PATH, b"{}", {})

    assert str(caught.value) == "No such file or directory"


async def test_a_header_of_two_lines_is_not_sent(upstream: FakeUpstream, client: WorkerClient) -> None:
    with pytest.raises(ValueError, match="one line"):
        await client.ask(PATH, b"{}", {"Accept": "a\r\nX-Other: b"})

    assert upstream.requests == []
