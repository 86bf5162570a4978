"""Streams that the engine's thread writes itself: every event once and in order, whatever the reader does, and nothing left open after it."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import pytest_asyncio

from jand.engine.protocol import WorkerConfig
from tests.fakes import gguf_files
from tests.fakes.asking import CHAT, TEXT, Asker, streamed, user
from tests.fakes.waiting import until
from tests.fakes.workers import running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from jand.engine.process import Worker

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]

TOKENS = 400


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def worker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Worker]:
    (model,) = gguf_files.tiny_llama(tmp_path_factory.mktemp("tiny") / "tiny.gguf")
    init = {"ctx_len": 512, "n_parallel": 4, "n_threads": 1}
    config = WorkerConfig("tiny", (str(model),), str(tmp_path_factory.mktemp("run") / "w.sock"), init=init)
    async with running(config) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def ask(worker: Worker) -> AsyncIterator[Asker]:
    async with Asker(worker.socket) as asker:
        yield asker


def long(**more: Any) -> dict[str, Any]:
    wanted = {"max_tokens": TOKENS, "ignore_eos": True, "seed": 1, "stream_options": {"include_usage": True}}
    return {"messages": user("hi"), **wanted, **more}


async def begin(
    worker: Worker, body: dict[str, Any], version: str = "1.1"
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Ask for a stream, and read no more of it than its head."""
    reader, writer = await asyncio.open_unix_connection(str(worker.socket), limit=2**12)
    content = json.dumps({**body, "stream": True}).encode()
    head = f"POST {CHAT} HTTP/{version}\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n"
    writer.write(head.encode() + content)
    assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
    return reader, writer


async def is_idle(ask: Asker) -> bool:
    health = await ask.get("/health")
    return bool(health["active"] == 0)


async def test_a_reader_that_reads_nothing_until_the_end_misses_nothing(worker: Worker, ask: Asker) -> None:
    """What its socket does not take waits, in order, and holds up nobody else."""
    body = long(logprobs=True, top_logprobs=20)
    whole = await ask.stream(CHAT, **body)
    reader, writer = await begin(worker, body, "1.0")
    await until(lambda: is_idle(ask))

    content = await reader.read(-1)
    writer.close()

    *lines, done, nothing = content.decode().split("\n\n")
    assert (done, nothing) == ("data: [DONE]", "")
    events = [json.loads(line.removeprefix("data: ")) for line in lines]
    assert len(content) > 500_000, "more than a socket holds"
    assert streamed(events) == streamed(whole)
    assert events[-1]["usage"]["completion_tokens"] == TOKENS
    told = [
        entry
        for event in events
        for choice in event["choices"]
        for entry in (choice.get("logprobs") or {}).get("content", [])
    ]
    assert len(told) == TOKENS


async def test_many_readers_that_leave_leave_nothing_open(worker: Worker, ask: Asker) -> None:
    await ask.ok(CHAT, messages=user("hi"), max_tokens=1)
    process = psutil.Process(worker.pid)
    before = process.num_fds()
    for number in range(12):
        reader, writer = await begin(worker, long(seed=number))
        await reader.readuntil(b"data: ")
        if number % 2:
            writer.transport.abort()
        else:
            writer.close()

    async def is_as_before() -> bool:
        return await is_idle(ask) and process.num_fds() <= before

    await until(is_as_before)


async def test_a_connection_serves_one_stream_after_the_other(worker: Worker) -> None:
    """The end of the one is written by the event loop, and comes after what the engine's thread wrote."""
    reader, writer = await asyncio.open_unix_connection(str(worker.socket))
    answers = []
    for _ in range(5):
        content = json.dumps({**long(max_tokens=30), "stream": True}).encode()
        writer.write(f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content)
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        text = ""
        while size := int(await reader.readline(), 16):
            for event in (await reader.readexactly(size)).decode().strip().split("\n\n"):
                if event != "data: [DONE]":
                    text += streamed([json.loads(event.removeprefix("data: "))])
            assert await reader.readline() == b"\r\n"
        assert await reader.readline() == b"\r\n"
        answers.append(text)
    writer.close()

    assert answers == answers[:1] * 5
    assert answers[0]


@pytest.mark.parametrize("more", [{}, {"n": 3}, {"stop": ["a"]}, {"logprobs": True}, {"max_tokens": 1}])
async def test_a_stream_says_what_the_whole_answer_says(ask: Asker, more: dict[str, Any]) -> None:
    body = {**long(max_tokens=60), **more}
    whole = await ask.ok(CHAT, **{name: value for name, value in body.items() if name != "stream_options"})

    events = await ask.stream(CHAT, **body)

    for choice in whole["choices"]:
        assert streamed(events, choice["index"]) == choice["message"]["content"]
        finishes = [
            each["finish_reason"] for event in events for each in event["choices"] if each["index"] == choice["index"]
        ]
        assert [finish for finish in finishes if finish] == [choice["finish_reason"]]
    assert events[-1]["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]


async def test_streams_side_by_side_do_not_mix(ask: Asker) -> None:
    bodies = [
        {"prompt": f"{number} " * 3, "max_tokens": 100, "ignore_eos": True, "temperature": 0} for number in range(4)
    ]
    alone = [streamed(await ask.stream(TEXT, **body)) for body in bodies]

    together = await asyncio.gather(*(ask.stream(TEXT, **body) for body in bodies * 4))

    assert [streamed(events) for events in together] == alone * 4
