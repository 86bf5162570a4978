"""The files by which others find a daemon, removed under it: the socket is made again or told, and no second daemon takes the root."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.fakes import gguf_files
from tests.fakes.daemon import DaemonProcess
from tests.fakes.shell import Shell
from tests.fakes.waiting import until

pytestmark = pytest.mark.timeout(60)

BOUND_S = 12.0
"""The manual says seconds."""


def second_daemon(root: Path, place: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jand", "serve", "--root", str(root), "--socket", str(place)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)


def answers(place: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as dialled:
        try:
            dialled.connect(str(place))
        except OSError:
            return False
    return True


async def problems(daemon: DaemonProcess) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await daemon.call("GET", "/v1/problems"))["data"]
    return [each for each in found if each["code"] == "socket-lost"]


@pytest.mark.parametrize("what", ["the socket", "its directory"])
async def test_a_socket_that_is_removed_is_made_again_with_its_mode(tmp_path: Path, what: str) -> None:
    """And whoever is connected, with a stream for one, notices nothing."""
    async with DaemonProcess(tmp_path, "--no-reuse", "--socket-mode", "0660") as daemon:
        before = daemon.socket.lstat()
        async with daemon.session.get("http://jand/v1/events") as stream:
            assert await stream.content.readline()
            if what == "the socket":
                daemon.socket.unlink()
            else:
                shutil.rmtree(daemon.socket.parent)
            await until(lambda: answers(daemon.socket), BOUND_S, what="the socket to answer again")
            (daemon.models / "late.json").write_text('{"origin": "http://127.0.0.1:9/v1", "import_format": "openai"}')
            while b"late" not in await asyncio.wait_for(stream.content.readline(), 5):
                pass
        after = daemon.socket.lstat()
        assert stat.S_IMODE(after.st_mode) == 0o660
        assert (after.st_uid, after.st_gid) == (before.st_uid, before.st_gid)
        assert [path.name for path in daemon.socket.parent.iterdir()] == [daemon.socket.name]
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(daemon.socket))) as session:
            assert (await session.get("http://jand/v1/models")).status == 200
        assert await problems(daemon) == []
        assert [line["level"] for line in await daemon.told("socket made again")] == ["warning"]

        daemon.signal(signal.SIGTERM)
        assert await daemon.wait() == 0
        assert not daemon.socket.exists()


async def test_another_thing_in_the_socket_s_place_is_told_until_it_goes(tmp_path: Path) -> None:
    async with DaemonProcess(tmp_path, "--no-reuse") as daemon:
        await daemon.call("GET", "/health")  # the connection that the session keeps
        daemon.socket.unlink()
        daemon.socket.write_text("a person's note")

        async def told() -> list[dict[str, Any]]:
            return await problems(daemon)

        (problem,) = await until(told, BOUND_S, what="the problem")
        assert problem["path"] == str(daemon.socket)
        assert "something that is no socket is there" in problem["message"]
        assert (await daemon.call("GET", "/health"))["details"]["problems"] == 1
        assert daemon.socket.read_text() == "a person's note"

        daemon.socket.unlink()

        async def gone() -> bool:
            return await problems(daemon) == []

        await until(gone, BOUND_S, what="the problem to go")
        assert answers(daemon.socket)


@pytest.mark.needs("systemd-socket-activate")
async def test_a_socket_of_the_service_manager_is_told_and_left_to_it(tmp_path: Path) -> None:
    async with DaemonProcess(tmp_path, "--no-reuse") as other:  # lends its short scratch directory
        place = other.socket.with_name("sa")
    place.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "jand", "serve", "--root", str(tmp_path), "--log-format", "json"]
    environ = {**os.environ, "HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    handed = [f"-E{name}" for name in ("HOME", "HF_HUB_OFFLINE")]
    process = subprocess.Popen(
        ["systemd-socket-activate", "-l", str(place), *handed, *command],
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        await until(place.exists, 10, what="the socket")
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(place))) as session:

            async def lost() -> list[dict[str, Any]]:
                async with session.get("http://jand/v1/problems") as answer:
                    data = (await answer.json()).get("data", [])
                return [each for each in data if each["code"] == "socket-lost"]

            assert await lost() == []
            place.unlink()
            (problem,) = await until(lost, BOUND_S, what="the problem")
            assert problem["path"] == str(place)
            assert "systemctl restart jand.socket" in problem["hint"]
            assert not place.exists()
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, 10)
        shutil.rmtree(place.parent.parent, ignore_errors=True)


async def test_no_second_daemon_takes_the_root_whose_pid_file_was_removed(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    gguf_files.tiny_llama(tmp_path / "models" / "tiny.gguf")
    async with DaemonProcess(tmp_path, "--no-reuse") as daemon:
        shutil.rmtree(tmp_path / ".jand")
        ended = await asyncio.to_thread(second_daemon, tmp_path, daemon.socket.with_name("other.sock"))

        assert ended.returncode == 69
        assert f"another daemon (pid {daemon.pid}) serves it" in ended.stderr
        assert not daemon.socket.with_name("other.sock").exists()
        pid_file = tmp_path / ".jand" / "jand.pid"
        await until(
            lambda: pid_file.exists() and pid_file.read_text() == f"{daemon.pid}\n", BOUND_S, what="the pid file"
        )
        await daemon.until_state("tiny", "downloaded", BOUND_S)
        assert (await daemon.call("PUT", "/v1/models/tiny/start"))["state"] == "running"
        ended = await asyncio.to_thread(second_daemon, tmp_path, daemon.socket.with_name("other.sock"))
        assert f"another daemon (pid {daemon.pid}) serves it" in ended.stderr


@pytest.mark.needs("mounts", "nsenter")
async def test_a_disk_of_models_can_be_unmounted_under_a_daemon(tmp_path: Path) -> None:
    """What locks the root keeps nothing open in the models folder, and a socket in the root itself is no obstacle."""
    with tempfile.TemporaryDirectory(prefix="jand-test-", dir="/tmp") as folder:
        root = Path(folder)
        (root / "models").mkdir()
        mounted = 'mount -t tmpfs none "$0/models" && exec "$@"'
        start = ["unshare", "--mount", "sh", "-c", mounted, folder, sys.executable, "-m", "jand"]
        async with DaemonProcess(root, "--no-reuse", socket=root / "jand.sock", start=start) as daemon:
            enter = ["nsenter", "-m", "-t", str(daemon.pid), "umount", f"{folder}/models"]
            done = await asyncio.to_thread(subprocess.run, enter, capture_output=True, text=True, check=False)
            assert (done.returncode, done.stderr) == (0, "")
            daemon.socket.unlink()
            await until(lambda: answers(daemon.socket), BOUND_S, what="the socket to answer again")


async def test_the_doctor_finds_a_daemon_that_has_no_socket(tmp_path: Path) -> None:
    async with DaemonProcess(tmp_path, "--no-reuse") as daemon:
        missing = daemon.socket.with_name("elsewhere")
        told = await Shell(missing)("doctor", "--root", str(tmp_path), "--json", status=1)
    (finding,) = [each for each in json.loads(told.stdout)["findings"] if each["name"] == "daemon"]

    assert finding["verdict"] == "wrong"
    assert (
        f"one runs (pid {daemon.pid}) and serves {tmp_path}, but there is no socket at {missing}" in finding["message"]
    )
