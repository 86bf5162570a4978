"""The logs of a model over the API, and the names of requests."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.fakes.api import ServedApi
from tests.fakes.manager import FakeManager
from tests.fakes.shell import Shell
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.timeout(30)


@pytest.fixture
async def api() -> AsyncIterator[ServedApi]:
    manager = FakeManager()
    manager.add("m", aliases=("alias",))
    async with ServedApi(manager) as served:
        served.words.add("m", "first")
        served.words.add("m", "second", "warning")
        yield served


async def test_the_last_lines_by_id_or_alias(api: ServedApi) -> None:
    both = (await api.ask("GET", "/v1/models/alias/logs")).json
    one = (await api.ask("GET", "/v1/models/m/logs?tail=1")).json

    assert both["object"] == "list"
    assert [line["text"] for line in both["data"]] == ["first", "second"]
    assert [(line["text"], line["level"]) for line in one["data"]] == [("second", "warning")]


@pytest.mark.parametrize(("path", "status"), [("n/logs", 404), ("m/logs?tail=-1", 400), ("m/logs?tail=9999", 400)])
async def test_what_cannot_be_asked(api: ServedApi, path: str, status: int) -> None:
    assert (await api.ask("GET", f"/v1/models/{path}")).status == status


async def test_a_model_whose_id_ends_in_logs_is_still_shown(api: ServedApi) -> None:
    api.manager.add("folder/logs")

    assert (await api.ask("GET", "/v1/models/folder%2Flogs")).json["id"] == "folder/logs"


async def test_following_begins_with_the_tail_and_resumes_after_a_line(api: ServedApi) -> None:
    (_, second) = api.words.last("m", 2)
    async with api.session.get("http://jand/v1/models/m/logs?follow=true&tail=1") as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        seen = b""
        while b"second" not in seen:
            seen += await response.content.readany()
        assert b"first" not in seen
        api.words.add("m", "third")
        while b"third" not in seen:
            seen += await response.content.readany()
    headers = {"Last-Event-ID": str(second.number)}
    async with api.session.get("http://jand/v1/models/m/logs?follow=true", headers=headers) as response:
        seen = b""
        while b"third" not in seen:
            seen += await response.content.readany()
        assert b"second" not in seen


async def test_the_command_shows_and_follows(api: ServedApi) -> None:
    shell = Shell(api.socket)
    shown = (await shell("logs", "m")).stdout.splitlines()
    assert [line[10:] for line in shown] == ["first", "warning: second"]
    assert [line["text"] for line in (await shell.json("logs", "m", "-n", "1"))["data"]] == ["second"]

    seen = bytearray()
    following = asyncio.create_task(asyncio.to_thread(shell.on_terminal, "logs", "m", "-f", "-n", "0", shown=seen))

    async def told() -> bool:
        api.words.add("m", "later")
        return b"later" in seen

    await until(told, 15, what="a line on the terminal")
    await api.listeners.close(grace_s=0)
    status, text = await following
    assert status == 69
    assert "first" not in text
    assert "the daemon has ended" in text


@pytest.mark.parametrize(
    ("given", "taken"), [("my-id.1", True), ("two words", False), ("x" * 65, False), ("a\u00e9", False), ("", False)]
)
async def test_every_answer_names_its_request(api: ServedApi, given: str, taken: bool) -> None:
    named = (await api.ask("GET", "/v1/models", headers={"X-Request-Id": given})).headers["X-Request-Id"]
    refused = await api.ask("GET", "/nothing", headers={"X-Request-Id": given})

    assert (named == given) is taken
    assert named
    assert (refused.headers["X-Request-Id"] == given) is taken
