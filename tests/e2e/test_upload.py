"""Files that are sent over HTTP: streamed to the disk, checked as downloads are, and never over what is there; with a real daemon."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import pytest_asyncio
from yarl import URL

from tests.fakes import gguf_files
from tests.fakes.daemon import DaemonProcess
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = [pytest.mark.timeout(60), pytest.mark.asyncio(loop_scope="module")]

OCTETS = {"Content-Type": "application/octet-stream"}


@asynccontextmanager
async def daemon_at(root: Path, *flags: str, **environ: str) -> AsyncIterator[DaemonProcess]:
    variables = {"JAND_DOWNLOAD__MIN_FREE": "0", **environ}
    async with DaemonProcess(root, "--settle", "0.2", "--no-reuse", *flags, environ=variables) as daemon:
        yield daemon


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def daemon(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DaemonProcess]:
    """One daemon for the tests that keep to folders of their own."""
    async with daemon_at(tmp_path_factory.mktemp("uploads")) as running:
        yield running


@pytest.fixture
def tiny(tmp_path: Path) -> bytes:
    gguf_files.tiny_llama(tmp_path / "tiny.gguf")
    return (tmp_path / "tiny.gguf").read_bytes()


async def send(daemon: DaemonProcess, path: str, content: Any, *, status: int = 201) -> dict[str, Any]:
    url = URL(f"http://jand/v1/uploads/{path}", encoded=True)
    async with daemon.session.put(url, data=content, headers=OCTETS) as response:
        answer: dict[str, Any] = await response.json()
        assert response.status == status, answer
        return answer


def below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


async def test_a_binary_and_its_json_are_a_model_at_once(daemon: DaemonProcess, tiny: bytes) -> None:
    answer = await send(daemon, "my%20models/tiny.gguf", tiny)
    await send(daemon, "my%20models/tiny.json", json.dumps({"origin": "me/tiny"}).encode())
    await daemon.until_state("tiny", "downloaded")

    digest = hashlib.sha256(tiny).hexdigest()
    assert answer == {"object": "upload", "path": "models/my models/tiny.gguf", "size": len(tiny), "sha256": digest}
    assert (daemon.models / "my models" / "tiny.gguf").read_bytes() == tiny
    assert below(daemon.models / "my models") == ["tiny.gguf", "tiny.json"]
    assert not (daemon.models / "my models" / ".jand-part").exists()


async def test_a_lone_binary_is_adopted_and_one_without_a_length_arrives_too(
    daemon: DaemonProcess, tiny: bytes
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(tiny), 1000):
            yield tiny[start : start + 1000]

    answer = await send(daemon, "lone/deep%2Flone.gguf", pieces())
    assert answer["size"] == len(tiny)
    await daemon.until_state("lone", "downloaded")
    assert (daemon.models / "lone" / "deep" / "lone.gguf").read_bytes() == tiny


async def test_what_is_there_is_never_replaced(daemon: DaemonProcess, tiny: bytes, tmp_path: Path) -> None:
    await send(daemon, "kept/tiny.gguf", tiny)
    (daemon.models / "kept" / "linked.gguf").symlink_to(tmp_path / "nowhere")
    for name in ("tiny.gguf", "linked.gguf"):
        answer = await send(daemon, f"kept/{name}", tiny + b"more", status=409)
        assert answer["error"]["code"] == "file-exists"

    assert (daemon.models / "kept" / "tiny.gguf").read_bytes() == tiny
    assert not (tmp_path / "nowhere").exists()


async def test_a_file_that_comes_by_another_way_meanwhile_wins(daemon: DaemonProcess, tiny: bytes) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield tiny[:1000]
        await until((daemon.models / "late").is_dir, what="the upload to have begun")
        (daemon.models / "late" / "late.gguf").write_bytes(b"another")
        yield tiny[1000:]

    answer = await send(daemon, "late/late.gguf", pieces(), status=409)
    assert answer["error"]["code"] == "file-exists"
    assert below(daemon.models / "late") == ["late.gguf"]
    assert (daemon.models / "late" / "late.gguf").read_bytes() == b"another"


BAD_PATHS = [
    "..%2Fout/a.gguf",
    "%2E%2E/a.gguf",
    ".hidden/a.gguf",
    "a/..%2F..%2Fout.gguf",
    "a/%2Fetc%2Fa.gguf",
    "a/.a.gguf",
    "a/b%5Ca.gguf",
    "a/a.gguf%00",
    "a/nul.gguf",
    "a/README.md",
    "a/config.json",
    "a/.jand-part%2Fa.gguf",
    "a/a.gguf.part",
    "a%2Fb/a.gguf",
]


async def test_names_that_lead_elsewhere_or_are_no_models_are_refused(daemon: DaemonProcess, tiny: bytes) -> None:
    before = {*daemon.root.iterdir(), *daemon.models.iterdir()}
    for path in BAD_PATHS:
        answer = await send(daemon, path, tiny, status=400)
        assert answer["error"]["code"] == "bad-file-name", path
    assert {*daemon.root.iterdir(), *daemon.models.iterdir()} == before
    assert not (daemon.root.parent / "out").exists()


async def test_bytes_that_are_no_model_or_not_those_announced_leave_nothing(daemon: DaemonProcess, tiny: bytes) -> None:
    for content, code, status in [
        (b"<!doctype html><title>404</title>" * 50, "bad-binary", 409),
        (tiny[:-100], "incomplete-binary", 409),
        (b"", "incomplete-binary", 409),
        (b"lmgg" + bytes(5000), "legacy-ggml", 409),
    ]:
        answer = await send(daemon, "wrong/wrong.gguf", content, status=status)
        assert answer["error"]["code"] == code, content[:20]
    answer = await send(daemon, f"wrong/wrong.gguf?sha256={'0' * 64}", tiny, status=400)
    assert hashlib.sha256(tiny).hexdigest() in answer["error"]["message"]
    answer = await send(daemon, "wrong/wrong.json", io.BytesIO(b" " * ((1 << 20) + 1)), status=400)
    assert answer["error"]["code"] == "bad-request"
    assert not (daemon.models / "wrong").exists()

    await send(daemon, f"wrong/right.gguf?sha256={hashlib.sha256(tiny).hexdigest()}", tiny)


async def test_a_sender_that_goes_away_and_one_that_stalls_leave_nothing(daemon: DaemonProcess, tiny: bytes) -> None:
    reader, writer = await asyncio.open_unix_connection(daemon.socket)
    head = f"PUT /v1/uploads/gone/gone.gguf HTTP/1.1\r\nHost: jand\r\nContent-Length: {len(tiny)}\r\n\r\n"
    writer.write(head.encode() + tiny[:5000])
    await until((daemon.models / "gone").is_dir, what="the upload to have begun")
    second = await send(daemon, "gone/gone.gguf", tiny, status=409)
    assert second["error"]["code"] == "not-possible"
    assert (daemon.models / "gone" / ".jand-part").is_dir()
    writer.close()
    await until(lambda: not (daemon.models / "gone").exists(), what="the remains to be gone")
    del reader


async def test_a_daemon_killed_in_the_middle_shows_nothing_and_takes_it_again(tmp_path: Path, tiny: bytes) -> None:
    async with daemon_at(tmp_path / "root") as daemon:
        _, writer = await asyncio.open_unix_connection(daemon.socket)
        head = f"PUT /v1/uploads/cut/cut.gguf HTTP/1.1\r\nHost: jand\r\nContent-Length: {len(tiny) + 5}\r\n\r\n"
        writer.write(head.encode() + tiny)
        part = daemon.models / "cut" / ".jand-part"
        await until(lambda: part.is_dir() and any(part.iterdir()), what="the upload to have begun")
        daemon.signal(signal.SIGKILL)
        await daemon.wait()
        writer.close()
        daemon.spawn()
        await daemon.ready()
        assert await daemon.models_by_id() == {}
        assert (await daemon.call("GET", "/v1/problems"))["data"] == []
        await send(daemon, "cut/cut.gguf", tiny)
        await daemon.until_state("cut", "downloaded")
        assert not part.exists()


async def test_a_disk_without_room_says_so_before_a_byte_is_written(tmp_path: Path, tiny: bytes) -> None:
    disk = os.statvfs(tmp_path)
    async with daemon_at(tmp_path / "root", JAND_DOWNLOAD__MIN_FREE=str(disk.f_blocks * disk.f_frsize)) as daemon:
        answer = await send(daemon, "big/big.gguf", tiny, status=507)
        assert answer["error"]["code"] == "disk-full"
        assert "send it again" in answer["error"]["message"]
        assert not (daemon.models / "big").exists()


async def test_an_upload_wins_over_a_download_of_the_same_name(daemon: DaemonProcess, tiny: bytes) -> None:
    """The JSON came first, and its binary waits to be fetched (here: from a hub that is out of reach)."""
    await send(daemon, "race/race.json", json.dumps({"origin": "me/race", "download_url": "race.gguf"}).encode())
    await daemon.until_state("race", "downloading")
    await send(daemon, "race/race.gguf", tiny)
    await daemon.until_state("race", "downloaded")


async def test_hundreds_of_megabytes_pass_without_being_held_in_memory(daemon: DaemonProcess) -> None:
    """The sender is as fast as the disk: what would be held shows in the daemon's memory."""
    process = psutil.Process(daemon.pid)
    before = process.memory_info().rss
    highest = 0
    piece = bytes(1 << 20)

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal highest
        for _ in range(200):
            highest = max(highest, process.memory_info().rss)
            yield piece

    answer = await send(daemon, "zeros/zeros.gguf", pieces(), status=409)
    assert answer["error"]["code"] in {"bad-binary", "incomplete-binary"}
    assert highest - before < 40 << 20
