"""Workers that are killed under load: every client gets an answer or one clean error, the others do not notice, and the model serves again."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from typing import TYPE_CHECKING

import aiohttp
import psutil
import pytest

from tests.fakes import gguf_files
from tests.fakes.daemon import DaemonProcess
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(1800)

SIGNALS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGABRT)


def install(models: Path, name: str) -> None:
    (models / name).mkdir(parents=True)
    gguf_files.tiny_llama(models / name / f"{name}.gguf", context_length=2048)
    spec = {"origin": "tests/tiny", "parameters": {"init": {"ctx_len": 512, "n_parallel": 2}, "runtime": {}}}
    (models / name / f"{name}.json").write_text(json.dumps(spec))


async def ask(daemon: DaemonProcess, model: str, *, stream: bool) -> str:
    """Ask once; return how it ended: answered, or the code of its one error. Anything else is an assertion."""
    body = {"model": model, "prompt": "a b c", "max_tokens": 60, "stream": stream, "ignore_eos": True, "temperature": 0}
    # A connection of its own: a stream that ended with an error ends its connection too, and a pool may hand that out once more.
    connector = aiohttp.UnixConnector(str(daemon.socket), force_close=True)
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.post("http://jand/v1/completions", json=body) as response,
    ):
        text = await response.text()
    if response.status != 200:
        return str(json.loads(text)["error"]["code"])
    if not stream:
        assert json.loads(text)["choices"][0]["finish_reason"] == "length"
        return "answered"
    events = [line.removeprefix("data:").strip() for line in text.splitlines() if line.startswith("data:")]
    if events[-1] == "[DONE]":
        return "answered"
    assert sum('"error"' in event for event in events) == 1, text
    return str(json.loads(events[-1])["error"]["code"])


async def test_workers_killed_at_random_moments_under_load(tmp_path: Path, soak: bool) -> None:
    kills = 200 if soak else 10
    random_numbers = random.Random(7)
    for name in ("victim", "bystander"):
        install(tmp_path / "models", name)
    outcomes: dict[str, list[str]] = {"victim": [], "bystander": []}
    async with DaemonProcess(tmp_path, "--log-level", "info") as daemon:
        over = asyncio.Event()

        async def client(model: str, number: int) -> None:
            while not over.is_set():
                outcomes[model].append(await ask(daemon, model, stream=bool(number % 2)))

        clients = [asyncio.create_task(client(model, number)) for model in outcomes for number in range(3)]
        for _ in range(kills):
            await serves_again(outcomes["victim"])
            await asyncio.sleep(random_numbers.random() * 0.3)
            worker = await find_worker(daemon, "victim")
            if worker is not None:
                os.kill(worker, random_numbers.choice(SIGNALS))
            # A person's start after each death: this is about deaths, not about crash loops.
            await daemon.call("PUT", "/v1/models/victim/start", status=None)
        over.set()
        await asyncio.gather(*clients)
        # The last death may be noticed only now: the first question may still meet it, a later one must not.
        await daemon.call("PUT", "/v1/models/victim/start")

        async def answers() -> bool:
            return await ask(daemon, "victim", stream=True) == "answered"

        await until(answers, 30, what="the model to serve again")
        await daemon.call("PUT", "/v1/models/victim/stop")
        await daemon.call("PUT", "/v1/models/bystander/stop")
        assert daemon.workers() == []

    assert set(outcomes["bystander"]) == {"answered"}
    assert set(outcomes["victim"]) <= {"answered", "worker-died", "upstream-failed", "start-failed", "crash-loop"}


async def serves_again(outcomes: list[str]) -> None:
    before = outcomes.count("answered")
    await until(lambda: outcomes.count("answered") > before, 60, what="the model to serve again")


async def find_worker(daemon: DaemonProcess, model: str) -> int | None:
    found = await daemon.find(model)
    assert found is not None
    pid = found["details"].get("pid")
    return pid if pid and psutil.pid_exists(pid) else None
