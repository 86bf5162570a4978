"""Over TCP: who may ask, by Host, Origin, token and media type. Over the Unix socket none of it is asked."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING

import pytest
import structlog

from jand.api.settings import ApiSettings
from jand.errors import SocketUnusableError
from tests.fakes.api import ServedApi, exchange

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.fakes.manager import FakeManager

TOKEN = "correct horse"


@pytest.fixture
async def tcp(manager: FakeManager) -> AsyncIterator[ServedApi]:
    async with ServedApi(manager, ApiSettings(hosts=frozenset({"box.local"})), "127.0.0.1:0") as served:
        yield served


@pytest.fixture
async def guarded(manager: FakeManager) -> AsyncIterator[ServedApi]:
    settings = ApiSettings(token=TOKEN, origins=frozenset({"https://app.example"}))
    async with ServedApi(manager, settings, "127.0.0.1:0") as served:
        yield served


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST", "[::1]", "box.local"])
async def test_our_own_hosts_are_answered(tcp: ServedApi, host: str) -> None:
    assert (await tcp.ask_tcp("GET", "/v1/models", host=f"{host}:{tcp.port}")).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:{port}",
        "localhost.evil.example:{port}",
        "localhost.:{port}",
        "127.0.0.1",
        "localhost",
        "127.0.0.1:1",
        "127.0.0.2:{port}",
        "0.0.0.0:{port}",
        "127.1:{port}",
        "2130706433:{port}",
        "user@localhost:{port}",
        "localhost:{port}, evil.example",
        "localhost:0{port}",
        " ",
    ],
)
@pytest.mark.parametrize("path", ["/v1/models", "/health", "/nowhere"])
async def test_a_host_that_is_not_exactly_ours_is_refused_on_every_path(tcp: ServedApi, host: str, path: str) -> None:
    answer = await tcp.ask_tcp("GET", path, host=host.format(port=tcp.port))

    assert answer.status == 403
    assert answer.error["code"] == "forbidden-host"


@pytest.mark.parametrize(
    "origin", ["null", "https://evil.example", "http://localhost", "file://", "http://127.0.0.1:1", " "]
)
@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/models"), ("POST", "/v1/rescan"), ("OPTIONS", "/v1/models")])
async def test_a_foreign_origin_is_refused_and_gets_no_cors_header(
    tcp: ServedApi, manager: FakeManager, origin: str, method: str, path: str
) -> None:
    answer = await tcp.ask_tcp(method, path, headers={"Origin": origin})

    assert answer.status == 403
    assert answer.error["code"] == "forbidden-origin"
    assert not any(name.lower().startswith("access-control") for name in answer.headers)
    assert manager.asked == []


async def test_our_own_origin_is_answered(tcp: ServedApi) -> None:
    assert (await tcp.ask_tcp("GET", "/v1/models", headers={"Origin": f"http://127.0.0.1:{tcp.port}"})).status == 200
    assert (await tcp.ask_tcp("GET", "/v1/models", headers={"Origin": f"https://127.0.0.1:{tcp.port}"})).status == 403
    other = await tcp.ask_tcp("GET", "/v1/models", headers={"Origin": f"http://localhost:{tcp.port}"})
    assert other.status == 403


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": TOKEN},
        {"Authorization": "Bearer caf\u00e9"},
        {"X-Api-Key": TOKEN},
    ],
)
async def test_without_the_token_nothing_is_told_or_done(
    guarded: ServedApi, manager: FakeManager, given: dict[str, str]
) -> None:
    manager.add("a")

    for method, path in [("GET", "/v1/models"), ("PUT", "/v1/models/a/start"), ("GET", "/version"), ("GET", "/x")]:
        answer = await guarded.ask_tcp(method, path, headers=given)
        assert answer.status == 401
        assert answer.error["code"] == "unauthorized"
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert TOKEN.encode() not in answer.body
    assert manager.asked == []


@pytest.mark.parametrize("kind", ["Bearer", "bearer", "BEARER"])
async def test_the_token_lets_in(guarded: ServedApi, kind: str) -> None:
    assert (await guarded.ask_tcp("GET", "/v1/models", headers={"Authorization": f"{kind} {TOKEN}"})).status == 200


async def test_health_is_answered_without_the_token_and_then_without_details(guarded: ServedApi) -> None:
    assert (await guarded.ask_tcp("GET", "/health")).json == {"status": "ok", "details": {}}
    assert (await guarded.ask_tcp("GET", "/ready")).status == 200
    assert (await guarded.ask_tcp("GET", "/health", headers={"Authorization": f"Bearer {TOKEN}"})).json["details"]


async def test_the_unix_socket_asks_for_no_token_host_or_origin(guarded: ServedApi) -> None:
    assert (await guarded.ask("GET", "/v1/models", headers={"Host": "evil.example", "Origin": "null"})).status == 200


@pytest.mark.parametrize(
    "media", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "text/json"]
)
async def test_a_body_over_tcp_must_call_itself_json(tcp: ServedApi, manager: FakeManager, media: str) -> None:
    manager.add("a")

    answer = await tcp.ask_tcp("PUT", "/v1/models/a/start", b"{}", headers={"Content-Type": media})

    assert answer.status == 415
    assert answer.error["code"] == "unsupported-media-type"
    assert manager.asked == []
    assert (
        await tcp.ask_tcp(
            "PUT", "/v1/models/a/start", b"{}", headers={"Content-Type": "application/json; charset=utf-8"}
        )
    ).status == 200
    assert (await tcp.ask_tcp("PUT", "/v1/models/a/start")).status == 200


async def test_a_listed_origin_gets_cors_and_is_still_asked_for_the_token(guarded: ServedApi) -> None:
    origin = {"Origin": "https://app.example"}

    preflight = await guarded.ask_tcp("OPTIONS", "/v1/chat/completions", headers=origin)
    refused = await guarded.ask_tcp("GET", "/v1/models", headers=origin)
    answered = await guarded.ask_tcp("GET", "/v1/models", headers={"Authorization": f"Bearer {TOKEN}", **origin})

    assert preflight.status == 204
    assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
    assert [refused.status, answered.status] == [401, 200]
    for answer in (preflight, refused, answered):
        assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example"
        assert "Origin" in answer.headers["Vary"]
    assert "Access-Control-Allow-Origin" not in (await guarded.ask("GET", "/v1/models")).headers


async def test_who_asks_for_a_change_is_logged(tcp: ServedApi, manager: FakeManager) -> None:
    manager.add("a")

    with structlog.testing.capture_logs() as logs:
        await tcp.ask("PUT", "/v1/models/a/stop")
        await tcp.ask("GET", "/v1/models/a")
        await tcp.ask("POST", "/v1/chat/completions", {"model": "none"})
        await tcp.ask_tcp("PUT", "/v1/models/a/stop")

    unix, over_tcp = [line for line in logs if line["event"] == "change asked for"]
    assert (unix["uid"], unix["gid"], unix["pid"]) == (os.getuid(), os.getgid(), os.getpid())
    assert unix["path"] == "/v1/models/a/stop"
    assert over_tcp["peer"] == "127.0.0.1"


async def test_ipv6_loopback_is_served_under_its_own_address(manager: FakeManager) -> None:
    """Where the machine has no IPv6 that is one clear error."""
    api = ServedApi(manager, ApiSettings(), "[::1]:0")
    if not socket.has_dualstack_ipv6():
        with pytest.raises(SocketUnusableError, match=r"cannot listen on \[::1\]:0"):
            await api.__aenter__()
        return
    async with api:
        assert api.listeners.addresses[1] == f"[::1]:{api.port}"
        for host, status in [(f"[::1]:{api.port}", 200), (f"[::2]:{api.port}", 403)]:
            reader, writer = await asyncio.open_connection("::1", api.port)
            assert (await exchange(reader, writer, "GET", "/health", host=host)).status == status
            writer.close()
