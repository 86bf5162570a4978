"""Long loads on a real daemon: memory that changes hands under sixteen clients, and starts and stops without end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from jand.lifecycle.admission import LINGER, TURN_S
from tests.fakes import tiny_models
from tests.fakes.daemon import DaemonProcess
from tests.fakes.metrics import read_metrics
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    import aiohttp

pytestmark = pytest.mark.timeout(7200)

TOKENS = 40
CLIENTS = 16
MOMENT_S = LINGER * TURN_S
"""The fairness rule of `lifecycle.policy`: memory changes hands at most once in so long, since a model that was just used counts as in use."""


async def learn_needs(root: Path, names: list[str]) -> int:
    """Let a daemon with plenty of memory learn what each model takes; return the most."""
    async with DaemonProcess(root, "--no-restore") as daemon:
        for name in names:
            await ask(daemon.session, name, stream=False)
            await daemon.call("PUT", f"/v1/models/{name}/stop")
    learned: dict[str, int] = json.loads((root / ".jand" / "state.json").read_bytes())["memory"]
    assert len(learned) == len(names)
    return max(learned.values())


async def ask(session: aiohttp.ClientSession, model: str, *, stream: bool) -> None:
    """Ask once; anything but a whole answer is a failure."""
    body = {"model": model, "prompt": "a b c", "max_tokens": TOKENS, "ignore_eos": True, "stream": stream}
    async with session.post("http://jand/v1/completions", json=body) as response:
        text = await response.text()
    assert response.status == 200, text
    if stream:
        events = [line.removeprefix("data:").strip() for line in text.splitlines() if line.startswith("data:")]
        assert events[-1] == "[DONE]", text
        assert json.loads(events[-2])["choices"][0]["finish_reason"] == "length"
    else:
        assert json.loads(text)["usage"]["completion_tokens"] == TOKENS


def take_memory(daemon: DaemonProcess) -> int:
    """Return the bytes of all processes that the daemon has started; what several share (as those do that were just forked) counts once."""
    taken = 0
    for worker in daemon.workers():
        with contextlib.suppress(psutil.Error):
            memory = worker.memory_full_info()
            taken += getattr(memory, "pss", memory.uss)
    return taken


async def test_two_models_that_do_not_fit_together_under_sixteen_clients(tmp_path: Path, soak: bool) -> None:
    """Every request is answered, none is cut, memory is never over its budget, and it changes hands no oftener than fairness asks."""
    seconds = 600.0 if soak else 6.0
    names = ["a", "b"]
    for name in names:
        tiny_models.install(tmp_path / "models", name)
    budget = int(1.5 * await learn_needs(tmp_path, names))
    waits: list[float] = []
    reserved: list[int] = []
    resident: list[int] = []

    async with DaemonProcess(tmp_path, "--no-restore", "--memory-budget", str(budget), "--log-level", "info") as daemon:
        ends = time.monotonic() + seconds

        async def client(number: int) -> None:
            chance = random.Random(number)
            while time.monotonic() < ends:
                began = time.monotonic()
                await ask(daemon.session, chance.choice(names), stream=chance.random() < 0.5)
                waits.append(time.monotonic() - began)

        async def watch() -> None:
            while True:
                health = await daemon.call("GET", "/health")
                assert health["details"]["memory"]["budget"] == budget
                reserved.append(health["details"]["memory"]["reserved"])
                resident.append(take_memory(daemon))
                await asyncio.sleep(0.05)

        watching = asyncio.create_task(watch())
        began = time.monotonic()
        async with asyncio.timeout(seconds + 3 * TURN_S):
            await asyncio.gather(*(client(number) for number in range(CLIENTS)))
        took = time.monotonic() - began
        assert not watching.done()
        watching.cancel()
        metrics = await read_metrics(daemon)

    switches = sum(value for (name, _), value in metrics.items() if name == "jand_evictions_total")
    answered = sum(value for (name, _), value in metrics.items() if name == "jand_requests_total")
    sys.stderr.write(
        f"{len(waits)} requests in {took:.0f} s, {switches:.0f} switches, waits up to {max(waits):.2f} s, "
        f"at most {max(reserved) / budget:.0%} of the budget promised and {max(resident) / budget:.0%} taken\n"
    )
    assert answered == len(waits)
    assert max(reserved) <= budget
    assert max(resident) <= budget
    assert 1 <= switches <= took / MOMENT_S + 1
    assert max(waits) < 2 * TURN_S


@pytest.fixture
def sockets() -> Iterator[Path]:
    """Make a directory whose path is short enough for sockets in it."""
    with tempfile.TemporaryDirectory(prefix="jand-test-", dir="/tmp") as folder:
        yield Path(folder)


async def test_starts_and_stops_leave_nothing_behind(tmp_path: Path, sockets: Path, soak: bool) -> None:
    """No process, descriptor, socket or memory is left in the daemon, however often a model starts and stops."""
    cycles = 1000 if soak else 20
    settled = cycles // 4
    tiny_models.install(tmp_path / "models", "a")
    figures: list[dict[str, Any]] = []
    async with DaemonProcess(tmp_path, "--log-level", "warning", environ={"TMPDIR": str(sockets)}) as daemon:
        daemon_process = psutil.Process(daemon.pid)
        (directory,) = sockets.glob("jand-*")
        began = time.monotonic()
        for number in range(cycles):
            await daemon.call("PUT", "/v1/models/a/start")
            if number % 5 == 0:
                await ask(daemon.session, "a", stream=True)
            await daemon.call("PUT", "/v1/models/a/stop")
            assert daemon.workers() == []
            assert list(directory.iterdir()) == []
            await until(
                lambda: not figures or daemon_process.num_fds() <= figures[0]["descriptors"], what="descriptors"
            )
            figures.append(
                {
                    "descriptors": daemon_process.num_fds(),
                    "threads": daemon_process.num_threads(),
                    "bytes": daemon_process.memory_full_info().uss,
                }
            )
        took = time.monotonic() - began

    before, after = figures[settled], figures[-1]
    sys.stderr.write(f"{cycles} cycles in {took:.0f} s: {figures[0]}, then {before}, at the end {after}\n")
    assert after["descriptors"] <= before["descriptors"]
    assert after["threads"] <= before["threads"] + 1
    assert after["bytes"] - before["bytes"] < 4 << 20
