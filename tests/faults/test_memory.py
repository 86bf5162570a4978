"""Too little address space (ulimit -v, LimitAS=): said in a sentence at the start, by whatever meets it later, and never a reason not to end."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

import aiohttp
import pytest

from tests.fakes import tiny_models
from tests.fakes.daemon import DaemonProcess
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(60)

MB: Final = 1 << 20
LIMITED: Final = 'ulimit -v "$0" && exec "$@"'
OVERDUE_S: Final = 10.0
"""What the manual lets an end take that something hangs in."""


def limited_to(megabytes: int) -> tuple[str, ...]:
    return ("/bin/sh", "-c", LIMITED, str(megabytes * 1024), sys.executable, "-m", "jand")


async def test_a_limit_below_what_a_daemon_needs_is_said_at_the_start(tmp_path: Path) -> None:
    command = [*limited_to(300), "serve", "--root", str(tmp_path), "--socket", str(tmp_path / "s" / "j.sock")]
    ended = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False, timeout=30)

    assert ended.returncode == 78
    assert "limited to 300 MB, and a daemon needs 512 MB" in ended.stderr
    assert "LimitAS=" in ended.stderr
    assert len(ended.stderr.splitlines()) == 2
    assert not (tmp_path / "s").exists()


async def test_a_model_that_does_not_fit_into_the_limit_says_so_and_others_run(tmp_path: Path) -> None:
    tiny_models.install(tmp_path / "models", "large", init={"ctx_len": 4_000_000, "n_parallel": 4})
    tiny_models.install(tmp_path / "models", "small")
    async with DaemonProcess(tmp_path, "--no-reuse", "--memory-budget", str(1 << 50), start=limited_to(3000)) as daemon:
        refused = await daemon.call("PUT", "/v1/models/large/start", status=500)
        assert refused["error"]["code"] == "start-failed"
        assert "lower ctx_len or n_parallel" in refused["error"]["message"]
        assert "raise the limit of address space of 3000 MB (ulimit -v, LimitAS=)" in refused["error"]["message"]
        assert (await daemon.call("PUT", "/v1/models/small/start"))["state"] == "running"
        daemon.signal(signal.SIGTERM)
        assert await daemon.wait() == 0
        assert "Traceback" not in daemon.log()


async def test_a_daemon_to_which_memory_is_refused_ends_when_it_is_told_to(tmp_path: Path) -> None:
    """The limit is set below what it has already: whatever it asks for from then on is refused, threads that it ends with included."""
    tiny_models.install(tmp_path / "models", "small")
    async with DaemonProcess(tmp_path, "--no-reuse") as daemon:
        resource.prlimit(daemon.pid, resource.RLIMIT_AS, (64 * MB, resource.RLIM_INFINITY))
        for path in ("/v1/models", "/v1/problems", "/v1/catalog", "/health"):
            # A thread that cannot begin may hang the loop; who waits for an answer then is not the point here.
            with contextlib.suppress(TimeoutError, aiohttp.ClientError):
                async with daemon.session.get(f"http://jand{path}", timeout=aiohttp.ClientTimeout(2)) as answer:
                    assert answer.status in {200, 503}
        began = time.monotonic()
        daemon.signal(signal.SIGTERM)
        with contextlib.suppress(AssertionError):  # it may hang before it says so
            await until(lambda: '"stopping"' in daemon.log(), 1.0)
        daemon.signal(signal.SIGTERM)
        status = await daemon.wait(OVERDUE_S + 2)
        log = daemon.log()
    assert time.monotonic() - began < OVERDUE_S + 2
    assert status in {0, 70, 71}
    assert "Traceback" not in log
    assert status == 0 or "jand: cannot" in log
