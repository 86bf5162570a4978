"""Every way in which a real worker ends or fails: what the model says of it, what its clients get, and that it serves again."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.fakes import gguf_files, tiny_models
from tests.fakes.completing import LONG, complete, long_answer
from tests.fakes.daemon import DaemonProcess, find_worker
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

    import aiohttp

pytestmark = pytest.mark.timeout(300)

FEW = ("SIGKILL", "SIGTERM")
MANY = (
    *FEW,
    "SIGSEGV",
    "SIGABRT",
    "SIGBUS",
    "SIGFPE",
    "SIGILL",
    "SIGTRAP",
    "SIGHUP",
    "SIGQUIT",
    "SIGSYS",
    "SIGUSR1",
    "SIGALRM",
)
HUNG = "the worker gave no sign of life and was killed"
BEAT = "--hang-timeout=4"


async def worker_of(daemon: DaemonProcess, model: str) -> psutil.Process:
    await until(lambda: find_worker(daemon, model) is not None, what=f"a worker of {model}")
    found = find_worker(daemon, model)
    assert found is not None
    return found


async def error_of(daemon: DaemonProcess, model: str) -> dict[str, Any]:
    """Wait until *model* is down and return its error."""
    await daemon.until_state(model, "downloaded")
    found = await daemon.find(model)
    assert found is not None
    error = found["error"]
    assert isinstance(error, dict), found
    return error


async def read_error_event(response: aiohttp.ClientResponse) -> str:
    """Read the rest of a stream, which must end with one error event; return its code."""
    text = (await response.content.read()).decode()
    events = [json.loads(line[5:]) for line in text.splitlines() if line.startswith("data:") and "[DONE]" not in line]
    assert "[DONE]" not in text
    assert [index for index, event in enumerate(events) if "error" in event] == [len(events) - 1], text[-300:]
    assert set(events[-1]["error"]) == {"message", "type", "param", "code"}
    return str(events[-1]["error"]["code"])


async def test_a_worker_ended_by_any_signal_when_idle_is_told_with_its_last_words(tmp_path: Path, soak: bool) -> None:
    tiny_models.install(tmp_path / "models", "a")
    async with DaemonProcess(tmp_path) as daemon:
        for name in MANY if soak else FEW:
            await daemon.call("PUT", "/v1/models/a/start")
            await complete(daemon, "a")
            (await worker_of(daemon, "a")).send_signal(signal.Signals[name])
            error = await error_of(daemon, "a")
            assert error["code"] == "worker-died", error
            assert re.match(rf'cannot go on with "a": the worker was (killed|ended) by {name}\b', error["message"])
            assert error["hint"]
            assert error["log"], "llama.cpp says a lot when it loads"
            assert all(isinstance(line, str) for line in error["log"])
            # The next request starts it.
            await complete(daemon, "a")
            found = await daemon.find("a")
            assert found is not None
            assert found["error"] is None


async def test_a_worker_ended_by_any_signal_while_it_answers_ends_each_answer_with_one_error(
    tmp_path: Path, soak: bool
) -> None:
    tiny_models.install(tmp_path / "models", "a", init=LONG)
    tiny_models.install(tmp_path / "models", "other")
    body = {"model": "a", "prompt": "a b c", "ignore_eos": True, "max_tokens": 3000}
    async with DaemonProcess(tmp_path) as daemon:
        await complete(daemon, "other")
        for name in MANY if soak else FEW:
            await daemon.call("PUT", "/v1/models/a/start")
            async with long_answer(daemon, "a") as response:
                whole = asyncio.create_task(daemon.call("POST", "/v1/completions", body, status=None))

                async def both_run() -> bool:
                    return bool((await daemon.call("GET", "/health"))["details"]["in_flight"] == 2)

                await until(both_run, what="both answers to run")
                (await worker_of(daemon, "a")).send_signal(signal.Signals[name])
                assert await read_error_event(response) == ("shutting-down" if name == "SIGTERM" else "upstream-failed")
            answer = await whole
            assert answer["error"]["code"] in {"upstream-failed", "shutting-down"}, name
            assert name in (await error_of(daemon, "a"))["message"]
            await complete(daemon, "other")
            await complete(daemon, "a")


async def test_a_worker_killed_while_it_loads_is_the_answer_to_who_waits_for_it(tmp_path: Path, soak: bool) -> None:
    tiny_models.install(tmp_path / "models", "a")
    async with DaemonProcess(tmp_path) as daemon:
        for name in MANY if soak else FEW:
            start = asyncio.create_task(daemon.call("PUT", "/v1/models/a/start", status=None))
            while not start.done():
                # What crashes in a load is tried once more without llama.cpp's extra buffers; that attempt shall die too.
                if (worker := find_worker(daemon, "a")) is not None:
                    worker.send_signal(signal.Signals[name])
                await asyncio.sleep(0.002)
            answer = await start
            assert answer["error"]["code"] == "worker-died", answer
            assert f'cannot start "a": the worker was killed by {name}' in answer["error"]["message"]
            error = await error_of(daemon, "a")
            assert error["message"] in answer["error"]["message"]
            await daemon.call("PUT", "/v1/models/a/start")
            await complete(daemon, "a")
            await daemon.call("PUT", "/v1/models/a/stop")
            assert daemon.workers() == []


async def test_a_worker_that_hangs_is_killed_whether_it_idles_or_answers(tmp_path: Path) -> None:
    """Its sockets still accept: only its heartbeats tell."""
    for name in ("idle", "answers"):
        tiny_models.install(tmp_path / "models", name, init=LONG)
    async with DaemonProcess(tmp_path, BEAT) as daemon:
        await complete(daemon, "idle")
        async with long_answer(daemon, "answers") as response:
            for name in ("idle", "answers"):
                os.kill((await worker_of(daemon, name)).pid, signal.SIGSTOP)
            assert await read_error_event(response) == "upstream-failed"
        for name in ("idle", "answers"):
            await daemon.until_state(name, "downloaded", 30)
            assert (await error_of(daemon, name))["message"] == f'cannot go on with "{name}": {HUNG}'
        for name in ("idle", "answers"):
            await complete(daemon, name)


async def test_memory_that_cannot_be_had_is_told_with_what_llama_cpp_says_and_others_go_on(tmp_path: Path) -> None:
    """The limit is a real one: workers inherit it, and the allocation of the KV cache (1 GiB) fails."""
    tiny_models.install(tmp_path / "models", "large", init={"ctx_len": 16_384, "n_parallel": 256})
    tiny_models.install(tmp_path / "models", "small")
    async with DaemonProcess(tmp_path, "--memory-budget", str(10**12)) as daemon:
        process = psutil.Process(daemon.pid)
        limit = process.memory_info().vms + (400 << 20)
        process.rlimit(psutil.RLIMIT_AS, (limit, limit))
        await complete(daemon, "small")
        answer = await daemon.call("PUT", "/v1/models/large/start", status=500)
        found = await daemon.find("large")
        await complete(daemon, "small")

    assert found is not None
    error = found["error"]
    assert error["code"] == answer["error"]["code"] == "start-failed"
    assert 'cannot start "large": llama.cpp cannot make a context of' in error["message"]
    assert "failed to allocate" in error["message"]
    assert "lower ctx_len or n_parallel" in error["hint"]
    assert any("insufficient memory" in line for line in error["log"])


async def test_a_file_that_llama_cpp_cannot_use_is_told_with_its_reason(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "wrong"
    folder.mkdir(parents=True)
    gguf_files.bare_header(folder / "wrong.gguf", size=200_000)
    (folder / "wrong.json").write_text('{"origin": "tests/wrong"}')
    async with DaemonProcess(tmp_path) as daemon:
        body = {"model": "wrong", "prompt": "a"}
        answer = await daemon.call("POST", "/v1/completions", body, status=500)
        error = await error_of(daemon, "wrong")
        # Mended by the right file, it starts.
        gguf_files.tiny_llama(folder / "new", context_length=2048)
        (folder / "new").rename(folder / "wrong.gguf")
        await daemon.call("POST", "/v1/rescan")
        await complete(daemon, "wrong")

    assert error["code"] == answer["error"]["code"] == "start-failed"
    assert "error loading model" in error["message"]
    assert "key not found" in error["message"]
    assert any("failed to load model" in line for line in error["log"])
