"""What the API itself asks of an upload: the token, a type that no form can send, and that it goes on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from jand.api.settings import ApiSettings
from tests.fakes.api import ServedApi

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.fakes.manager import FakeManager

TOKEN = "correct horse"
OCTETS = {"Content-Type": "application/octet-stream"}


@pytest.fixture
async def guarded(manager: FakeManager) -> AsyncIterator[ServedApi]:
    settings = ApiSettings(token=TOKEN, stalled_upload_s=0.1)
    async with ServedApi(manager, settings, "127.0.0.1:0") as served:
        yield served


async def test_the_body_goes_to_the_manager_as_it_is(guarded: ServedApi, manager: FakeManager) -> None:
    headers = {**OCTETS, "Authorization": f"Bearer {TOKEN}"}
    answer = await guarded.ask_tcp("PUT", "/v1/uploads/a%20b/c%2Fd%25.gguf", b"\x00{}\xff", headers=headers)

    assert answer.status == 201
    assert answer.json["path"] == "models/a b/c/d%.gguf"
    [asked] = manager.asked
    assert (asked.model, asked.arguments["name"]) == ("a b", "c/d%.gguf")
    assert (asked.arguments["content"], asked.arguments["size"]) == (b"\x00{}\xff", 4)


@pytest.mark.parametrize("media", ["text/plain", "multipart/form-data", "application/json", ""])
async def test_over_tcp_a_form_cannot_send_one(guarded: ServedApi, manager: FakeManager, media: str) -> None:
    headers = {"Content-Type": media, "Authorization": f"Bearer {TOKEN}"}
    answer = await guarded.ask_tcp(
        "PUT", "/v1/uploads/a/b.gguf", b"GGUF", headers={k: v for k, v in headers.items() if v}
    )

    assert answer.status == (201 if media == "" else 415)
    assert bool(manager.asked) is (media == "")


async def test_without_the_token_nothing_is_taken(guarded: ServedApi, manager: FakeManager) -> None:
    assert (await guarded.ask_tcp("PUT", "/v1/uploads/a/b.gguf", b"GGUF", headers=OCTETS)).status == 401
    assert manager.asked == []


@pytest.mark.parametrize("digest", ["abc", "A" * 64, "g" * 64])
async def test_a_digest_that_is_none_is_named(api: ServedApi, manager: FakeManager, digest: str) -> None:
    answer = await api.ask("PUT", f"/v1/uploads/a/b.gguf?sha256={digest}", b"GGUF")

    assert (answer.status, answer.error["param"]) == (400, "sha256")
    assert manager.asked == []


async def test_one_that_stalls_is_ended(guarded: ServedApi, manager: FakeManager) -> None:
    reader, writer = await asyncio.open_unix_connection(guarded.socket)
    writer.write(
        b"PUT /v1/uploads/a/b.gguf HTTP/1.1\r\nHost: jand\r\nContent-Length: 10\r\nConnection: close\r\n\r\n12345"
    )
    head = await asyncio.wait_for(reader.readuntil(b"\r\n"), 5)
    writer.close()

    assert b" 400 " in head
    assert manager.asked == []
