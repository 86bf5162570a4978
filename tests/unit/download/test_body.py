"""The body of an answer, received into blocks: whole and in order over plain connections and TLS, prompt on a slow line, and held back while nobody takes it."""

from __future__ import annotations

import asyncio
import random
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp
import pytest

from jand.download.body import BLOCK, BLOCKS, Body, body_of
from tests.fakes.certificates import make_certificate
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    Serve = Callable[[asyncio.StreamWriter], Awaitable[None]]

CONTENT = random.Random(1).randbytes(7 * BLOCK + 12345)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    directory = tmp_path_factory.mktemp("certificate")
    return directory / "cert.pem", make_certificate(directory)


@asynccontextmanager
async def answered(
    serve: Serve, length: int | None, *, stall_s: float = 5.0, tls: tuple[Path, ssl.SSLContext] | None = None
) -> AsyncIterator[Body]:
    """Yield the body that *serve* writes behind headers that announce *length*."""

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
        writer.write(f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n".encode())
        try:
            await serve(writer)
            await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(client, "127.0.0.1", 0, ssl=tls[1] if tls else None)
    url = f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    trusted = ssl.create_default_context(cafile=tls[0]) if tls else True
    async with (
        server,
        aiohttp.ClientSession(auto_decompress=False) as session,
        session.get(url, ssl=trusted) as response,
    ):
        yield body_of(response, stall_s)
        response.close()


async def read(body: Body, into: bytearray, *, enough: int | None = None) -> None:
    """Take pieces, each given back a moment later as a disk would, until the end or until there are *enough* bytes."""
    while enough is None or len(into) < enough:
        piece = await body.take()
        if not piece:
            return
        into += piece
        asyncio.get_running_loop().call_later(0.001, body.give_back, piece)


@pytest.mark.needs("openssl")
@pytest.mark.parametrize("kind", ["plain", "tls", "chunked"])
@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, len(CONTENT)])
async def test_all_of_it_comes_in_order(certificate: tuple[Path, ssl.SSLContext], kind: str, size: int) -> None:
    """The server closes at once after the last byte."""

    async def serve(writer: asyncio.StreamWriter) -> None:
        content = CONTENT[:size]
        if kind == "chunked":
            pieces = [content[at : at + 70_000] for at in range(0, size, 70_000)]
            content = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
        writer.write(content)

    came = bytearray()
    length = None if kind == "chunked" else size
    async with answered(serve, length, tls=certificate if kind == "tls" else None) as body:
        await read(body, came)
    assert came == CONTENT[:size]


@pytest.mark.needs("openssl")
@pytest.mark.parametrize("tls", [False, True])
async def test_a_slow_line_is_told_as_it_comes(certificate: tuple[Path, ssl.SSLContext], *, tls: bool) -> None:
    """Also after a fast beginning, when the system was told to wake us for many bytes only."""
    fast = 6 * BLOCK
    seen = asyncio.Event()

    async def serve(writer: asyncio.StreamWriter) -> None:
        writer.write(CONTENT[:fast])
        for at in range(fast, fast + 500, 100):
            writer.write(CONTENT[at : at + 100])
            await writer.drain()
            await seen.wait()
            seen.clear()

    came = bytearray()
    async with answered(serve, fast + 500, tls=certificate if tls else None) as body:
        for count in range(fast + 100, fast + 600, 100):
            await read(body, came, enough=count)
            seen.set()
    assert came == CONTENT[: fast + 500]


async def test_a_sender_waits_while_too_many_pieces_are_out() -> None:
    total = 48 * BLOCK
    sent = 0

    async def serve(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        for _ in range(total // BLOCK):
            writer.write(bytes(BLOCK))
            await writer.drain()
            sent += BLOCK

    async with answered(serve, total) as body:
        held = [await body.take()]
        while sum(map(len, held)) < (BLOCKS - 1) * BLOCK:
            held.append(await body.take())
        before = -1
        while before != sent:  # what the system holds fills too
            before = sent
            await asyncio.sleep(0.3)
        assert sent < total
        came = sum(map(len, held))
        for piece in held:
            body.give_back(piece)
        while piece := await body.take():
            came += len(piece)
            body.give_back(piece)
    assert came == total


async def test_a_piece_that_is_out_does_not_change() -> None:
    async def serve(writer: asyncio.StreamWriter) -> None:
        writer.write(CONTENT)

    async with answered(serve, len(CONTENT)) as body:
        first = await body.take()
        at = 0
        held = [(at, first)]
        while sum(len(piece) for _, piece in held) < 2 * BLOCK:
            at += len(held[-1][1])
            held.append((at, await body.take()))
        at += len(held[-1][1])
        while piece := await body.take():
            assert piece == CONTENT[at : at + len(piece)]
            at += len(piece)
            body.give_back(piece)
            assert all(CONTENT[start : start + len(kept)] == kept for start, kept in held)
    assert at == len(CONTENT)


async def test_silence_ends_it_after_all_that_came() -> None:
    silent = asyncio.Event()

    async def serve(writer: asyncio.StreamWriter) -> None:
        writer.write(CONTENT[:1000])
        await writer.drain()
        await silent.wait()

    came = bytearray()
    async with answered(serve, 5000, stall_s=0.2) as body:
        with pytest.raises(aiohttp.SocketTimeoutError):
            await read(body, came)
        silent.set()
    assert came == CONTENT[:1000]


@pytest.mark.needs("openssl")
@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("count", [1000, 3 * BLOCK + 1000])
async def test_a_connection_that_breaks_is_an_error_after_all_that_came(
    certificate: tuple[Path, ssl.SSLContext], *, tls: bool, count: int
) -> None:
    async def serve(writer: asyncio.StreamWriter) -> None:
        writer.write(CONTENT[:count])

    came = bytearray()
    async with answered(serve, len(CONTENT), tls=certificate if tls else None) as body:
        with pytest.raises(aiohttp.ClientPayloadError, match=r"closed|not completed"):
            await read(body, came)
    assert came == CONTENT[:count]


async def test_whoever_leaves_in_the_middle_ends_the_connection() -> None:
    ended = asyncio.Event()

    async def serve(writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                writer.write(bytes(BLOCK))
                await writer.drain()
        finally:
            ended.set()

    async with answered(serve, 1 << 40) as body:
        await body.take()
    await until(ended.is_set, what="the server to notice")
