"""What the machine may lack: descriptors, room on the disk, the right to write, a place for the socket. Each is told once and clearly, and what was refused works again when the cause is gone."""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.daemon import DaemonProcess
from tests.fakes.models_tree import ModelsTree
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

pytestmark = pytest.mark.timeout(60)

MOUNTED = 'mount {what} "$0" && exec "$@"'


def inside(root: Path, what: str, place: Path) -> DaemonProcess:
    """Return a daemon in a mount namespace of its own, in which *what* is mounted on *place*."""
    daemon = DaemonProcess(root, "--no-reuse")
    daemon._start = ["unshare", "-rm", "sh", "-c", MOUNTED.format(what=what), str(place), *daemon._start]
    return daemon


def within(daemon: DaemonProcess, *command: str) -> None:
    """Run *command* where the daemon is."""
    enter = ["nsenter", "--preserve-credentials", "-U", "-m", "-t", str(daemon.pid), "--"]
    done = subprocess.run([*enter, *command], check=False, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr


async def register(daemon: DaemonProcess, name: str) -> tuple[int, Any]:
    body = {"origin": "https://api.openai.com", "import_format": "openai", "id": name}
    async with daemon.session.post("http://jand/v1/models", json=body) as answer:
        return answer.status, await answer.json()


async def until_registered(daemon: DaemonProcess, name: str) -> None:
    async def done() -> bool:
        status, _ = await register(daemon, name)
        return status in {201, 409}

    await until(done, 10, what=f"{name} to be registered")


async def test_a_daemon_without_descriptors_answers_again_when_there_are_some(tmp_path: Path) -> None:
    """100 clients where 40 descriptors are: those that come too late wait or are let go, the log does not fill, and all is well when they leave."""
    async with DaemonProcess(tmp_path, "--no-reuse") as daemon:
        used = len(os.listdir(f"/proc/{daemon.pid}/fd"))  # noqa: PTH208 - nothing else lists it as shortly
        limits = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (used + 20, limits[1]))
        lines = len(daemon.log().splitlines())
        held = [await asyncio.open_unix_connection(str(daemon.socket)) for _ in range(100)]
        for _, writer in held:
            writer.write(b"GET /health HTTP/1.1\r\nHost: jand\r\n\r\n")
        answers = await asyncio.gather(
            *(asyncio.wait_for(reader.read(15), 2) for reader, _ in held), return_exceptions=True
        )
        assert b"HTTP/1.1 200 OK" in answers
        for _, writer in held:
            writer.close()

        async def answered() -> bool:
            return bool(await daemon.call("GET", "/v1/models"))

        await until(answered, 20, what="an answer")
        assert "Traceback" not in daemon.log()
        assert len(daemon.log().splitlines()) - lines < 500


@pytest.mark.needs("unshare", "nsenter", "mount")
async def test_a_full_disk_is_told_and_forgotten_when_there_is_room(tmp_path: Path) -> None:
    async with inside(tmp_path, "-t tmpfs -o size=256k none", tmp_path) as daemon:
        within(daemon, "sh", "-c", f"dd if=/dev/zero of={tmp_path}/filler bs=1k 2>/dev/null; true")
        status, refused = await register(daemon, "one")
        assert (status, refused["error"]["code"]) == (507, "disk-full")
        assert "cannot write models/one/one.json: no space left on device" in refused["error"]["message"]
        assert await daemon.models_by_id() == {}
        within(daemon, "rm", f"{tmp_path}/filler")
        await until_registered(daemon, "one")
        assert "Traceback" not in daemon.log()


@pytest.mark.needs("unshare", "nsenter", "mount")
async def test_a_folder_that_becomes_read_only_is_served_on_and_written_to_again(tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    async with inside(tmp_path, '--bind "$0"', models) as daemon:
        await until_registered(daemon, "before")
        within(daemon, "mount", "-o", "remount,bind,ro", str(models))
        status, refused = await register(daemon, "one")
        assert (status, refused["error"]["code"]) == (409, "not-possible")
        assert "cannot write models/one/one.json: read-only file system" in refused["error"]["message"]
        assert set(await daemon.models_by_id()) == {"before"}
        within(daemon, "mount", "-o", "remount,bind,rw", str(models))
        await until_registered(daemon, "one")
        assert "Traceback" not in daemon.log()


def refused_start(root: Path, place: Path, before: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    command = [*before, sys.executable, "-m", "jand", "serve", "--root", str(root), "--socket", str(place)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)


@pytest.mark.needs("unshare", "mount")
async def test_a_start_on_a_read_only_root_says_so(tmp_path: Path) -> None:
    ModelsTree(tmp_path / "root" / "models")
    root = str(tmp_path / "root")
    mounted = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
    before = ["unshare", "-rm", "sh", "-c", mounted, root]
    ended = await asyncio.to_thread(refused_start, tmp_path / "root", tmp_path / "s" / "s", before)

    assert ended.returncode == 78
    assert "Read-only file system" in ended.stderr
    assert "--root" in ended.stderr
    assert "Traceback" not in ended.stderr


async def test_a_socket_that_has_no_place_is_told_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = await asyncio.to_thread(refused_start, tmp_path / "root", tmp_path / "file" / "run" / "s")

    assert ended.returncode == 69
    assert str(tmp_path / "file" / "run" / "s") in ended.stderr
    assert "Traceback" not in ended.stderr
