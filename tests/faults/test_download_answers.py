"""Answers that no server should give, byte by byte: each ends in an error that names the address and what is wrong with what came from it."""

from __future__ import annotations

import asyncio
import gzip
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from jand.errors import DownloadError, DownloadRefusedError, HubUnavailableError, NotAHubError
from tests.fakes.downloading import REPO, fetch, noise, spec_of
from tests.fakes.hub import FakeHub
from tests.fakes.hub_faults import Fault
from tests.fakes.hub_files import MIB

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

OK = b"HTTP/1.1 200 OK\r\n"
BOMB = gzip.compress(bytes(64 * MIB))

MALFORMED = {
    "a gzip bomb": (
        OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(BOMB) + BOMB,
        "it comes compressed (gzip), unasked",
    ),
    "brotli": (OK + b"Content-Encoding: br\r\nContent-Length: 3\r\n\r\nxyz", "it comes compressed (br), unasked"),
    "a bad chunk": (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nZZZ\r\n", "Invalid character in chunk size"),
    "a chunk cut short": (OK + b"Transfer-Encoding: chunked\r\n\r\nFFFF\r\nhello", "the connection broke"),
    "a length that is no number": (OK + b"Content-Length: many\r\n\r\n", "Invalid character in Content-Length"),
    "two lengths": (OK + b"Content-Length: 5\r\nContent-Length: 7\r\n\r\nxxxxxxx", "Duplicate Content-Length"),
    "an endless header": (OK + b"X: " + b"a" * 100_000 + b"\r\n\r\n", "Got more than"),
    "too many headers": (OK + b"X: a\r\n" * 1000 + b"\r\n", "Too many headers"),
    "another protocol": (b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", "not HTTP as it must be (Bad status line"),
}


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[str]:
    """Yield the address of a server that gives *answer* whatever it is asked."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/m.gguf"


@pytest.mark.parametrize("case", MALFORMED)
async def test_a_malformed_answer_is_named_with_its_address(tmp_path: Path, case: str) -> None:
    answer, said = MALFORMED[case]
    async with FakeHub() as hub, answering(answer) as url:
        with pytest.raises(HubUnavailableError) as caught:
            await fetch(hub, tmp_path, spec_of(download_url=url))
    assert said in caught.value.message
    assert url in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint
    assert caught.value.retry_after_s
    assert list(tmp_path.rglob("*.gguf")) == []


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified", b"302 Found"])
async def test_an_answer_without_a_file_is_refused_at_once(tmp_path: Path, status: bytes) -> None:
    async with FakeHub() as hub, answering(b"HTTP/1.1 " + status + b"\r\nConnection: close\r\n\r\n") as url:
        with pytest.raises(DownloadRefusedError, match="and no file"):
            await fetch(hub, tmp_path, spec_of(download_url=url))


@pytest.mark.parametrize("encoding", ["gzip", "br"])
async def test_a_listing_that_comes_compressed_is_named_as_such(tmp_path: Path, encoding: str) -> None:
    async with FakeHub() as hub:
        hub.add(REPO, {"m.gguf": noise(MIB)})
        hub.faults = [Fault(at="api", headers={"Content-Encoding": encoding}, body=BOMB, times=None)]
        with pytest.raises(NotAHubError) as caught:
            await fetch(hub, tmp_path)
    assert f"it comes compressed ({encoding}), unasked" in caught.value.message
    assert hub.endpoint in caught.value.message


async def test_a_listing_nested_without_end_is_no_json(tmp_path: Path) -> None:
    async with FakeHub() as hub:
        hub.faults = [Fault(at="api", body=b"[" * 1_000_000, times=None)]
        with pytest.raises(DownloadError, match="it is no JSON"):
            await fetch(hub, tmp_path)
