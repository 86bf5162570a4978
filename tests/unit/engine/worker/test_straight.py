"""What one thread writes to a socket that the event loop owns."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest

from jand.engine.worker.straight import Straight
from jand.outflow import Outflow

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Ends = tuple[asyncio.Transport, asyncio.StreamReader]


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    """Yield what writes into a socket, and what reads at its other end."""
    near, far = socket.socketpair()
    reader, writer = await asyncio.open_unix_connection(sock=far)
    transport, _ = await asyncio.get_running_loop().create_unix_connection(asyncio.Protocol, sock=near)
    yield transport, reader
    transport.close()
    writer.close()


def frame(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece)


def write_all(out: Straight, pieces: list[bytes]) -> None:
    for piece in pieces:
        out.write(piece)


@pytest.mark.parametrize("chunked", [True, False])
async def test_what_the_socket_takes_in_parts_arrives_whole_and_in_order(ends: Ends, *, chunked: bool) -> None:
    transport, reader = ends
    pieces = [b"a" * 10, b"b" * 3_000_000, *(b"%d" % number for number in range(1000)), b"c" * 500_000, b"d"]
    async with Straight(Outflow(transport, None, chunked=chunked)) as out:
        await asyncio.to_thread(write_all, out, pieces)
        wanted = b"".join(frame(piece) if chunked else piece for piece in pieces)

        assert await reader.readexactly(len(wanted)) == wanted


async def test_what_waits_already_comes_first(ends: Ends) -> None:
    transport, reader = ends
    transport.write(b"x" * 2_000_000)
    async with Straight(Outflow(transport, None, chunked=False)) as out:
        out.write(b"y")

        assert await reader.readexactly(2_000_001) == b"x" * 2_000_000 + b"y"


async def test_what_follows_comes_after_what_the_socket_did_not_take(ends: Ends) -> None:
    transport, reader = ends
    async with Straight(Outflow(transport, None, chunked=False)) as out:
        out.write(b"x" * 2_000_000)
    transport.write(b"end")

    assert await reader.readexactly(2_000_003) == b"x" * 2_000_000 + b"end"


async def test_whoever_has_gone_is_written_to_in_vain() -> None:
    near, far = socket.socketpair()
    transport, _ = await asyncio.get_running_loop().create_unix_connection(asyncio.Protocol, sock=near)
    async with Straight(Outflow(transport, None, chunked=False)) as out:
        far.close()
        for _ in range(3):
            await asyncio.to_thread(out.write, b"x")
    transport.close()
