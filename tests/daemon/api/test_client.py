"""The client of the socket: what it asks, what it gives back, and the errors that it raises again."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jand.client import Client, Reading
from jand.errors import (
    BadRequestError,
    DaemonUnavailableError,
    JandError,
    ModelDownloadingError,
    ModelNotFoundError,
    NotReadyError,
    StartError,
    UpstreamError,
)
from jand.model.record import PublicState
from tests.fakes.upstream import DONE, Exchange, FakeUpstream, answer_bytes, answer_events, chat_chunk
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.fakes.api import ServedApi
    from tests.fakes.manager import FakeManager

QUESTION = [{"role": "user", "content": "?"}]


@pytest.fixture
async def client(api: ServedApi) -> AsyncIterator[Client]:
    async with Client(api.socket) as opened:
        yield opened


async def test_models_are_listed_shown_started_stopped_and_deleted(client: Client, manager: FakeManager) -> None:
    manager.add("TheBloke/a b?c", state=PublicState.DOWNLOADED)
    manager.add("b", state=PublicState.RUNNING)

    assert [model["id"] for model in await client.list_models()] == ["TheBloke/a b?c", "b"]
    assert [model["id"] for model in await client.list_models("running")] == ["b"]
    assert (await client.get_model("TheBloke/a b?c"))["object"] == "model"
    assert (await client.start("TheBloke/a b?c", {"ctx_len": 5}))["model_parameters"]["init"] == {"ctx_len": 5}
    assert (await client.start("b", wait=False))["state"] == "running"
    assert (await client.stop("b", force=True))["state"] == "downloaded"
    assert (await client.delete("TheBloke/a b?c", keep_files=True))["deleted"] is True
    assert [(asked.verb, asked.arguments) for asked in manager.asked if asked.verb != "list"] == [
        ("start", {"init_overrides": {"ctx_len": 5}, "wait": True}),
        ("start", {"init_overrides": None, "wait": False}),
        ("stop", {"force": True}),
        ("delete", {"keep_files": True}),
    ]


async def test_problems_rescan_health_ready_and_version(client: Client, manager: FakeManager) -> None:
    manager.complain("models/x.json")

    assert (await client.problems())[0]["path"] == "models/x.json"
    assert (await client.rescan())["scanned"] == 3
    assert (await client.health())["status"] == "ok"
    assert (await client.ready()) == {"status": "ready"}
    assert (await client.version())["python"] == "3"
    manager.ready.clear()
    with pytest.raises(NotReadyError) as raised:
        await client.ready()
    assert raised.value.retry_after_s == 1


async def test_errors_are_raised_again_as_what_they_were(client: Client, manager: FakeManager) -> None:
    manager.add("zephyr")

    with pytest.raises(ModelNotFoundError) as missing:
        await client.get_model("zephir")
    with pytest.raises(BadRequestError) as wrong:
        await client.list_models("Running")
    manager.refuse("start", StartError('cannot start "zephyr": killed', hint="free memory"))
    with pytest.raises(StartError) as failed:
        await client.start("zephyr")
    manager.refuse("use", ModelDownloadingError("cannot use", retry_after_s=7))
    with pytest.raises(ModelDownloadingError) as coming:
        await anext(aiter(client.chat("zephyr", QUESTION)))

    assert (missing.value.message, missing.value.hint) == ('cannot find model "zephir"', 'did you mean "zephyr"?')
    assert wrong.value.param == "state"
    assert (failed.value.message, failed.value.hint) == ('cannot start "zephyr": killed', "free memory")
    assert coming.value.retry_after_s == 7


async def test_a_code_from_a_newer_daemon_is_kept(upstream: FakeUpstream) -> None:
    body = b'{"error": {"message": "cannot do it; hint: update", "type": "x", "param": null, "code": "brand-new"}}'
    upstream.behave = answer_bytes(body, 418)
    async with Client(upstream.socket) as client:
        with pytest.raises(JandError) as raised:
            await client.version()

    assert type(raised.value) is JandError
    assert (raised.value.message, raised.value.hint, raised.value.facts["code"]) == (
        "cannot do it",
        "update",
        "brand-new",
    )


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"", b"{}", b'{"error": "text"}'])
async def test_somebody_else_on_the_socket_is_told_as_that(upstream: FakeUpstream, body: bytes) -> None:
    upstream.behave = answer_bytes(body, 500)
    async with Client(upstream.socket) as client:
        with pytest.raises(JandError, match="cannot understand the answer"):
            await client.version()


async def test_a_chat_is_streamed_chunk_by_chunk(client: Client, manager: FakeManager, upstream: FakeUpstream) -> None:
    manager.add("a")
    upstream.behave = answer_events([chat_chunk("é"), b": ping\n\n", chat_chunk("b", finish="stop"), DONE])

    said = [chunk["choices"][0]["delta"]["content"] async for chunk in client.chat("a", QUESTION, temperature=0)]

    assert said == ["é", "b"]
    assert upstream.requests[0].json == {"model": "a", "messages": QUESTION, "temperature": 0, "stream": True}


async def test_a_chat_that_is_left_ends_its_generation(
    client: Client, manager: FakeManager, upstream: FakeUpstream
) -> None:
    manager.add("a")

    async def go_on(exchange: Exchange) -> None:
        await exchange.wait_left()

    upstream.behave = answer_events([chat_chunk("1")], go_on)
    async for _ in client.chat("a", QUESTION):
        break

    await until(upstream.exchanges[0].left.is_set)


@pytest.mark.parametrize("ends", ["without its end", "with an error"])
async def test_a_chat_that_breaks_off_is_an_error(
    client: Client, manager: FakeManager, upstream: FakeUpstream, ends: str
) -> None:
    manager.add("a")

    async def then(exchange: Exchange) -> None:
        exchange.die()

    upstream.behave = answer_events([chat_chunk("1")], then if ends == "with an error" else None)
    chunks = client.chat("a", QUESTION)
    await anext(chunks)

    with pytest.raises(UpstreamError, match='"a"'):
        await anext(chunks)


async def test_events_come_as_they_happen_and_can_be_resumed(client: Client, manager: FakeManager) -> None:
    manager.add("a", details={"text": "line\nline"})
    events = client.events(after=99)
    first = await anext(events)
    manager.add("b")
    second = await anext(events)
    manager.events.close()
    rest = [event async for event in events]

    assert (first.id, first.type, first.data["details"]) == (100, "model.registered", {"text": "line\nline"})
    assert (second.id, second.data["id"]) == (101, "b")
    assert rest == []


async def test_an_event_of_a_megabyte_is_read(client: Client, manager: FakeManager) -> None:
    manager.add("a", details={"template": "x" * 1_000_000})

    event = await anext(client.events(after=99, model="a"))

    assert len(event.data["details"]["template"]) == 1_000_000


# No daemon.


async def test_no_socket_at_all(api: ServedApi) -> None:
    async with Client(api.directory / "none.sock") as client:
        with pytest.raises(DaemonUnavailableError, match="there is no socket") as raised:
            await client.health()
    assert raised.value.hint == "start one with: jand serve"


async def test_a_dead_socket(api: ServedApi) -> None:
    path = api.directory / "dead.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with Client(path) as client:
        with pytest.raises(DaemonUnavailableError, match="nobody listens there"):
            await client.health()


async def test_a_file_that_is_no_socket(api: ServedApi) -> None:
    path = api.directory / "file"
    path.touch()
    async with Client(path) as client:
        with pytest.raises(DaemonUnavailableError):
            await client.health()


async def test_a_path_that_no_socket_can_have(tmp_path: Path) -> None:
    async with Client(tmp_path / ("x" * 120)) as client:
        with pytest.raises(DaemonUnavailableError, match="too long"):
            await client.health()


NOT_ALLOWED = """
import asyncio, os, sys
from pathlib import Path
from jand.client import Client
from jand.errors import DaemonUnavailableError
os.setuid(65534)
async def main():
    try:
        async with Client(Path(sys.argv[1])) as client:
            await client.health()
    except DaemonUnavailableError as error:
        print(error.message, "|", error.hint)
asyncio.run(main())
"""


async def test_a_socket_of_somebody_else(api: ServedApi) -> None:
    """As root another user is tried; anybody else has no way into what root alone may enter."""
    if os.geteuid() != 0:
        api.socket.chmod(0)
        async with Client(api.socket) as client:
            with pytest.raises(DaemonUnavailableError, match="no permission"):
                await client.health()
        return
    api.directory.chmod(0o755)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", NOT_ALLOWED, str(api.socket)),
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()

    assert b"no permission | it belongs to another user" in said


async def test_a_daemon_that_goes_away_in_the_middle(upstream: FakeUpstream) -> None:
    async def die(exchange: Exchange) -> None:
        exchange.die()

    upstream.behave = die
    async with Client(upstream.socket) as client:
        with pytest.raises(DaemonUnavailableError, match="it closed the connection"):
            await client.health()
    upstream.behave = answer_events([chat_chunk("1")], die)
    async with Client(upstream.socket) as client:
        chunks = client.chat("a", QUESTION)
        await anext(chunks)
        with pytest.raises(DaemonUnavailableError, match="it closed the connection"):
            await anext(chunks)


def test_messages_are_put_together_by_the_rules_of_server_sent_events() -> None:
    reading = Reading()
    lines = b":c\n\nid: 7\nevent: x\ndata: a\ndata:b\r\nretry: 5\n\n\nevent: alone\n\ndata\n\n".splitlines(
        keepends=True
    )

    messages = [message for line in lines if (message := reading.take(line)) is not None]

    assert [(message.id, message.type, message.data) for message in messages] == [
        ("7", "x", "a\nb"),
        ("", "message", ""),
    ]
