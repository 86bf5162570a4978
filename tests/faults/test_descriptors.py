"""A daemon that has no descriptor left for another connection: it says so once, serves whom it has, and goes on by itself."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.fakes.daemon import DaemonProcess
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(60)

CONNECTIONS = 100
REMOTE = '{"origin": "http://127.0.0.1:9/v1", "import_format": "openai"}'


async def test_more_connections_than_descriptors_are_one_line_in_the_log(tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    (models / "remote.json").write_text(REMOTE)
    async with DaemonProcess(tmp_path, "--no-reuse") as daemon:
        process = psutil.Process(daemon.pid)
        before = process.num_fds()
        process.rlimit(psutil.RLIMIT_NOFILE, (64, process.rlimit(psutil.RLIMIT_NOFILE)[1]))
        opened = [await asyncio.open_unix_connection(str(daemon.socket)) for _ in range(CONNECTIONS)]

        def told(event: str) -> int:
            return sum(line["event"] == event for line in daemon.log_events())

        try:
            await until(lambda: told("connections must wait") > 0, what="the daemon to say it")
            # The connection that is there is served, while asyncio tries and fails some times more: that shall not keep a processor busy.
            (problem,) = (await daemon.call("GET", "/v1/problems"))["data"]
            assert (problem["code"], problem["path"]) == ("connections-wait", str(daemon.socket))
            assert "too many open files (a process may have 64)" in problem["message"]
            assert "LimitNOFILE=" in problem["hint"]
            assert (await daemon.call("GET", "/health"))["details"]["problems"] == 1
            # Nothing that is here goes because it cannot be looked at now.
            (models / "late.json").write_text(REMOTE)
            (models / "remote.json").write_text(REMOTE.replace("{", '{"created": 7, '))
            await daemon.call("POST", "/v1/rescan")
            assert "remote" in await daemon.models_by_id()
            process.cpu_percent()
            assert await asyncio.to_thread(process.cpu_percent, 2.5) < 50
            assert told("connections must wait") == 1
            assert told("connections are taken again") == 0
        finally:
            for _, writer in opened:
                writer.close()
            with contextlib.suppress(ConnectionError):
                await asyncio.gather(*(writer.wait_closed() for _, writer in opened))
        async with daemon.session.get("http://jand/health", headers={"Connection": "close"}) as response:
            assert response.status == 200
        await until(lambda: told("connections are taken again") == 1, 15, what="the daemon to say that it is over")
        await until(lambda: process.num_fds() <= before + 2, what="the connections to be gone")
        assert (await daemon.call("GET", "/v1/problems"))["data"] == []
        models_by_id = await daemon.models_by_id()
        assert set(models_by_id) == {"remote", "late"}
        assert models_by_id["remote"]["created"] == 7
        log = daemon.log()

    assert "Traceback" not in log
    assert "accept() out of system resource" not in log
    assert [line for line in daemon.log_events() if line["level"] == "error"][1:] == []
