"""Workers that are killed under load: every client gets an answer or one clean error, the others do not notice, and the model serves again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import sys
from collections import Counter
from typing import TYPE_CHECKING

import aiohttp
import psutil
import pytest

from tests.fakes import gguf_files
from tests.fakes.daemon import DaemonProcess, find_worker
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(1800)

SIGNALS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP, signal.SIGTERM, signal.SIGABRT)
HANG = "--hang-timeout=4"
"""What a stopped worker gets before it is killed; shorter than the default, and longer than a busy machine keeps a living one waiting."""

FAILURES = {"worker-died", "upstream-failed", "start-failed", "shutting-down"}


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
    kills = 200 if soak else 5
    random_numbers = random.Random(7)
    orders = [random_numbers.sample(SIGNALS, len(SIGNALS)) for _ in range(kills // len(SIGNALS))]
    sent: Counter[str] = Counter()
    for name in ("victim", "bystander"):
        install(tmp_path / "models", name)
    outcomes: dict[str, list[str]] = {"victim": [], "bystander": []}
    async with DaemonProcess(tmp_path, HANG, "--log-level", "info") as daemon:
        over = asyncio.Event()

        async def client(model: str, number: int) -> None:
            while not over.is_set():
                outcomes[model].append(await ask(daemon, model, stream=bool(number % 2)))

        clients = [asyncio.create_task(client(model, number)) for model in outcomes for number in range(3)]
        for number in range(kills):
            # Two of three meet a worker that serves, the third one that loads or has just come up.
            if number % 3:
                await serves_again(outcomes["victim"])
            await asyncio.sleep(random_numbers.random() * 0.3)
            await until(lambda: find_worker(daemon, "victim") is not None, 60, what="a worker to kill")
            chosen = orders[number // len(SIGNALS)][number % len(SIGNALS)]
            if (worker := find_worker(daemon, "victim")) is not None:
                with contextlib.suppress(psutil.NoSuchProcess):
                    worker.send_signal(chosen)
                    sent[chosen.name] += 1
            # A person's start after each death: this is about deaths, not about crash loops.
            await daemon.call("PUT", "/v1/models/victim/start", status=None)
        await serves_again(outcomes["victim"])
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

    sys.stderr.write(f"sent {dict(sent)}; { ({name: dict(Counter(ends)) for name, ends in outcomes.items()}) }\n")
    assert sum(sent.values()) >= kills * 0.9
    assert set(outcomes["bystander"]) == {"answered"}
    assert set(outcomes["victim"]) <= {"answered", *FAILURES}


async def serves_again(outcomes: list[str]) -> None:
    before = outcomes.count("answered")
    await until(lambda: outcomes.count("answered") > before, 60, what="the model to serve again")
