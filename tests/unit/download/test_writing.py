"""The two threads of a transfer: what came is on the disk and in the digest, in order, whichever of them lags, fails or is cancelled."""

from __future__ import annotations

import asyncio
import hashlib
import random
import resource
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jand.download.pace import Bandwidth
from jand.download.partial import Partial
from jand.download.writing import Writing
from tests.fakes.downloading import NAME, REPO, contents, digest_of, fetch, noise
from tests.fakes.hub import FakeHub
from tests.fakes.hub_files import MIB
from tests.fakes.waiting import until

if TYPE_CHECKING:
    import contextlib
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    HandOn = Callable[[memoryview], Awaitable[None]]

PIECES = [memoryview(random.Random(number).randbytes(300_000 + number)) for number in range(5)]
ALL = b"".join(PIECES)


class HeldDigest:
    """A sha256 that waits before each update until it is let go."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go = threading.Event()
        self._digest = hashlib.sha256()

    def update(self, data: memoryview) -> None:
        self.begun.set()
        assert self.go.wait(10)
        self._digest.update(data)

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


class Returned:
    """A body of which only what it is given back matters."""

    def __init__(self) -> None:
        self.pieces: list[memoryview] = []

    async def take(self) -> memoryview:
        raise AssertionError("nobody takes from it")

    def give_back(self, piece: memoryview) -> None:
        self.pieces.append(piece)


class Desk:
    """An opened partial whose digest is held, and what hands pieces to it."""

    def __init__(self, directory: Path) -> None:
        self.digest = HeldDigest()
        self.partial = Partial(directory, NAME, digest=lambda: self.digest)
        self.file = directory / ".jand-part" / f"{NAME}.part"
        self.body = Returned()
        self.handed: list[int] = []
        self.writing = Writing(self.partial)

    def pieces(self, rate: int | None = None) -> contextlib.AbstractAsyncContextManager[HandOn]:
        return self.writing.pieces_of(self.body, Bandwidth(rate), self.handed.append)

    @property
    def written(self) -> int:
        return self.file.stat().st_size


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    made = Desk(tmp_path)
    await made.writing.run(made.partial.open)
    try:
        yield made
    finally:
        made.digest.go.set()
        await made.writing.close(lambda: None)


async def test_the_disk_does_not_wait_for_the_digest_and_a_piece_is_lent_until_both_are_done(desk: Desk) -> None:
    async with desk.pieces() as hand_on:
        for piece in PIECES:
            await hand_on(piece)
        await until(lambda: desk.written == len(ALL))
        assert desk.digest.begun.is_set()
        covered = desk.partial.hashed
        assert not covered
        assert desk.body.pieces == []
        desk.digest.go.set()
    assert desk.partial.hashed
    assert desk.partial.digest == digest_of(ALL)
    await until(lambda: len(desk.body.pieces) == len(PIECES))
    assert [id(piece) for piece in desk.body.pieces] == [id(piece) for piece in PIECES]
    assert desk.file.read_bytes() == ALL
    assert sum(desk.handed) == len(ALL)


async def test_small_parts_at_a_limited_rate_come_out_the_same(desk: Desk) -> None:
    desk.digest.go.set()
    async with desk.pieces(rate=64 * MIB) as hand_on:
        for piece in PIECES:
            await hand_on(piece)
    assert desk.file.read_bytes() == ALL
    assert desk.partial.digest == digest_of(ALL)


@pytest.fixture
def most_bytes() -> Iterator[Callable[[int], None]]:
    """Let no file of this process grow beyond a size, as a full disk would: the write that meets it is short, the next one fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_write_that_fails_while_the_digest_lags_leaves_both_at_one_place(
    desk: Desk, most_bytes: Callable[[int], None]
) -> None:
    """The third piece is written in part; the two behind it, handed on already, would leave a gap."""
    limit = len(PIECES[0]) + len(PIECES[1]) + 12_345
    most_bytes(limit)

    async def run() -> None:
        async with desk.pieces() as hand_on:
            for piece in PIECES:
                await hand_on(piece)

    task = asyncio.ensure_future(run())
    await until(lambda: desk.written == limit and desk.digest.begun.is_set())
    desk.digest.go.set()
    with pytest.raises(OSError, match="File too large"):
        await task
    assert desk.partial.size == desk.written == limit
    assert desk.partial.hashed
    assert desk.partial.digest == digest_of(ALL[:limit])
    assert desk.file.read_bytes() == ALL[:limit]
    assert len(desk.body.pieces) == len(PIECES)


async def test_a_failed_write_is_told_at_the_next_piece(desk: Desk, most_bytes: Callable[[int], None]) -> None:
    most_bytes(1000)
    desk.digest.go.set()

    async def run() -> None:
        async with desk.pieces() as hand_on:
            await hand_on(PIECES[0])
            await until(lambda: len(desk.body.pieces) == 1)
            await hand_on(PIECES[1])
            pytest.fail("nobody told")

    with pytest.raises(OSError, match="File too large"):
        await run()
    assert desk.file.read_bytes() == ALL[:1000]


@pytest.mark.parametrize("cancels", [1, 3])
async def test_a_cancelled_transfer_ends_only_when_both_threads_have_done_what_they_were_given(
    desk: Desk, cancels: int
) -> None:
    """However often it is cancelled: a piece left out would be a gap in the middle of the file."""

    async def run() -> None:
        async with desk.pieces() as hand_on:
            for piece in PIECES:
                await hand_on(piece)
            await asyncio.Event().wait()

    task = asyncio.ensure_future(run())
    await until(desk.digest.begun.is_set)
    for _ in range(cancels):
        task.cancel()
        await asyncio.wait([task], timeout=0.02)
        assert not task.done()
    desk.digest.go.set()
    await asyncio.wait([task])
    assert task.cancelled()
    assert desk.partial.hashed
    assert desk.partial.digest == digest_of(ALL)
    assert desk.file.read_bytes() == ALL


async def test_what_fails_while_the_digest_lags_loses_nothing_that_came(desk: Desk) -> None:
    """A connection that breaks: the next attempt goes on from the bytes that are there without hashing them again."""

    async def run() -> None:
        async with desk.pieces() as hand_on:
            for piece in PIECES:
                await hand_on(piece)
            raise ConnectionResetError

    task = asyncio.ensure_future(run())
    await until(lambda: desk.written == len(ALL))
    assert not task.done()
    desk.digest.go.set()
    with pytest.raises(ConnectionResetError):
        await task
    await desk.writing.run(desk.partial.close)
    await desk.writing.run(desk.partial.open)
    assert desk.partial.hashed
    assert desk.partial.digest == digest_of(ALL)


async def test_closed_with_a_digest_that_does_not_cover_all_it_is_hashed_again(desk: Desk, tmp_path: Path) -> None:
    await desk.writing.run(lambda: desk.partial.write(PIECES[0]))
    await desk.writing.run(desk.partial.close)
    await desk.writing.run(desk.partial.open)
    assert not desk.partial.hashed
    assert desk.partial.size == len(PIECES[0])
    desk.digest.go.set()
    again = Partial(tmp_path, NAME)
    await desk.writing.run(desk.partial.close)
    again.open()
    again.rehash(threading.Event())
    assert again.hashed
    assert again.digest == digest_of(bytes(PIECES[0]))
    again.close()


LAGGING = """
import asyncio, sys, threading
from pathlib import Path
from jand.download.pace import Bandwidth
from jand.download.partial import Notes, Partial
from jand.download.writing import Writing
from tests.fakes.downloading import NAME, noise
from tests.unit.download.test_writing import HeldDigest, Returned

async def main():
    partial = Partial(Path(sys.argv[1]), NAME, digest=HeldDigest)
    writing = Writing(partial)
    await writing.run(partial.open)
    content = memoryview(noise())
    async with writing.pieces_of(Returned(), Bandwidth(None), lambda _: None) as hand_on:
        for start in range(0, int(sys.argv[2]), 1 << 20):
            await hand_on(content[start : start + (1 << 20)])
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_killed_between_disk_and_digest_it_goes_on_from_the_bytes(tmp_path: Path) -> None:
    """The digest has seen nothing of what is written when the process is killed."""
    had = 3 * MIB
    child = subprocess.Popen([sys.executable, "-c", LAGGING, str(tmp_path), str(had)], cwd=Path(__file__).parents[3])
    try:
        partial = tmp_path / ".jand-part" / f"{NAME}.part"
        await until(lambda: partial.exists() and partial.stat().st_size == had)
    finally:
        child.kill()
        child.wait()
    async with FakeHub() as hub:
        hub.add(REPO, {NAME: noise()})
        await fetch(hub, tmp_path)
        assert [request.start for request in hub.seen("cdn")] == [had]
    assert contents(tmp_path) == {NAME: digest_of(noise())}
    assert not partial.parent.exists()
