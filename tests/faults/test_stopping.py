"""A daemon that is told to stop at a bad moment, and one whose surroundings are odd: it ends in order, or goes on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from jand.client import Client
from tests.fakes import gguf_files
from tests.fakes.daemon import DaemonProcess
from tests.fakes.daemon_downloading import SLOW, daemon_at, drop, fetched, is_released, until_bytes
from tests.fakes.downloading import NAME, REPO, contents, digest_of, noise
from tests.fakes.hub import FakeHub
from tests.fakes.hub_files import MIB
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(90)

REMOTE = json.dumps({"origin": "http://127.0.0.1:9/v1", "import_format": "openai"})
FOLDERS = 1500
LONGEST_S = 5.0


def lay_out(models: Path, *, folders: int = 0) -> None:
    models.mkdir(parents=True)
    gguf_files.tiny_llama(models / "tiny.gguf")
    (models / "tiny.json").write_text(json.dumps({"origin": "a/b"}))
    for number in range(folders):
        (models / str(number)).mkdir()
        (models / str(number) / "model.json").write_text(REMOTE)


async def test_sigterm_in_the_first_scan(tmp_path: Path) -> None:
    lay_out(tmp_path / "models", folders=FOLDERS)
    daemon = DaemonProcess(tmp_path)
    daemon.spawn()
    try:
        await until(lambda: "listening" in [line["event"] for line in daemon.log_events()], 20, what="the socket")
        daemon.signal(signal.SIGTERM)
        began = time.monotonic()
        assert await daemon.wait() == 0
        assert time.monotonic() - began < LONGEST_S
        events = [line["event"] for line in daemon.log_events()]
        assert "stopped" in events
        assert "Traceback" not in daemon.log()
        assert not daemon.socket.exists()
        daemon.spawn()
        await daemon.ready()
        assert len(await daemon.models_by_id()) == FOLDERS + 1
    finally:
        await daemon.__aexit__(None, None, None)


async def test_sigterm_while_a_model_loads(tmp_path: Path) -> None:
    lay_out(tmp_path / "models")
    async with DaemonProcess(tmp_path) as daemon:
        await daemon.call("PUT", "/v1/models/tiny/start?wait=false", status=202)
        workers = await until(daemon.workers, what="a worker")
        daemon.signal(signal.SIGTERM)
        began = time.monotonic()

        assert await daemon.wait() == 0
        assert time.monotonic() - began < LONGEST_S
        assert not [worker for worker in workers if worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE]
        assert "Traceback" not in daemon.log()


async def test_standard_error_that_nobody_reads_any_more(tmp_path: Path) -> None:
    """`jand serve | head -1`, or a log collector that died: every line is an EPIPE."""
    lay_out(tmp_path / "models")
    read_end, write_end = os.pipe()
    socket = tmp_path / "s" / "j.sock"
    process = subprocess.Popen(
        [sys.executable, "-m", "jand", "serve", "--root", str(tmp_path), "--socket", str(socket)],
        stdin=subprocess.DEVNULL,
        stdout=write_end,
        stderr=write_end,
        env={**os.environ, "HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"},
    )
    os.close(write_end)
    try:
        assert b"listening" in await asyncio.to_thread(os.read, read_end, 65536)
        os.close(read_end)
        async with Client(socket) as client:
            for _ in range(3):
                await client.rescan()
            assert (await client.start("tiny"))["state"] == "running"
            await client.stop("tiny")
        process.terminate()
        assert await asyncio.to_thread(process.wait, LONGEST_S) == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
async def test_signals_up_to_the_last_moment_change_nothing(tmp_path: Path, number: signal.Signals) -> None:
    async with DaemonProcess(tmp_path, "--no-reuse", "--pid-file", str(tmp_path / "jand.pid")) as daemon:
        for pause_s in (0.001, 0.005):
            daemon.signal(signal.SIGTERM)
            ending = asyncio.create_task(daemon.wait())
            while not ending.done():
                with contextlib.suppress(ProcessLookupError):
                    daemon.signal(number)
                await asyncio.sleep(pause_s)
            assert await ending == 0
            assert "Traceback" not in daemon.log()
            assert (tmp_path / "jand.pid").read_bytes() == b"", "it is let go of in order"
            daemon.spawn()
            await daemon.ready()


async def test_a_full_disk_for_the_log_stops_nothing(tmp_path: Path) -> None:
    """/dev/full is such a disk."""
    lay_out(tmp_path / "models")
    async with DaemonProcess(tmp_path, "--log-file", "/dev/full") as daemon:
        await daemon.call("POST", "/v1/rescan")
        assert (await daemon.call("PUT", "/v1/models/tiny/start"))["state"] == "running"
        daemon.signal(signal.SIGTERM)
        assert await daemon.wait() == 0


async def test_warnings_of_python_that_are_errors(tmp_path: Path) -> None:
    """`python -W error`, as some run everything: nothing that we or our libraries do may depend on a warning being none."""
    lay_out(tmp_path / "models")
    async with DaemonProcess(tmp_path, environ={"PYTHONWARNINGS": "error"}) as daemon:
        (daemon.models / "late.json").write_text(REMOTE)
        await daemon.until_state("late", "downloaded")
        asked = {"model": "tiny", "messages": [{"role": "user", "content": "a"}], "max_tokens": 2}
        assert (await daemon.call("POST", "/v1/chat/completions", asked))["usage"]["completion_tokens"] == 2
        await daemon.call("PUT", "/v1/models/tiny/stop")
        await daemon.call("POST", "/v1/reload")
        daemon.signal(signal.SIGUSR1)
        await until(lambda: "dump thread" in daemon.log(), what="the dump")
        daemon.signal(signal.SIGTERM)
        assert await daemon.wait() == 0
        told = [line for line in daemon.log().splitlines() if "Warning" in line or "Traceback" in line]
        assert told == []


async def test_sigterm_while_a_binary_is_fetched(tmp_path: Path) -> None:
    """It ends at once, what came is kept under its partial name alone, and the next start goes on from there."""
    content = noise(8 * MIB)
    async with FakeHub(rate=SLOW) as hub:
        hub.add(REPO, {NAME: content})
        async with daemon_at(hub, tmp_path) as daemon:
            folder = drop(daemon)
            await until_bytes(daemon, 2 * MIB)
            (partial,) = (folder / ".jand-part").glob("*.part")
            daemon.signal(signal.SIGTERM)
            began = time.monotonic()
            assert await daemon.wait() == 0
            assert time.monotonic() - began < LONGEST_S
            assert not daemon.socket.exists()
            assert {path.name for path in folder.iterdir()} == {"noise.json", ".jand-part"}
            assert is_released(partial)
            came = partial.stat().st_size
            assert content[:came] == partial.read_bytes()
            sent = fetched(hub)
            hub.rate = None
            daemon.spawn()
            await daemon.ready()
            await daemon.until_state("noise", "downloaded")
            log = daemon.log()

    assert came >= 2 * MIB
    assert hub.seen("cdn")[-1].start == came
    assert fetched(hub) - sent == len(content) - came
    assert contents(folder) == {NAME: digest_of(content), "noise.json": digest_of((folder / "noise.json").read_bytes())}
    assert "Traceback" not in log
