"""What passes between a client and a worker or provider: every byte, at once, and the truth where it breaks off."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from jand.errors import ModelDownloadingError, ModelNotRunningError
from tests.fakes.api import ServedApi
from tests.fakes.certificates import make_certificate
from tests.fakes.upstream import (
    DONE,
    Exchange,
    FakeUpstream,
    answer_bytes,
    answer_events,
    answer_json,
    chat_chunk,
)
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.manager import FakeManager

ROUTES = ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"]


async def die(exchange: Exchange) -> None:
    exchange.die()


async def post(api: ServedApi, body: dict[str, Any], path: str = "/v1/chat/completions") -> aiohttp.ClientResponse:
    return await api.session.post(f"http://jand{path}", json=body)


@pytest.mark.parametrize("path", ROUTES)
async def test_a_request_reaches_the_worker_as_it_was_and_its_answer_comes_back_so(
    api: ServedApi, manager: FakeManager, upstream: FakeUpstream, path: str
) -> None:
    manager.add("a")
    sent = b'{ "model":"a",\n "input": "\\u00e9\xc3\xa9", "n": 1.0, "unknown": [1e400] }'
    returned = b' {"odd":   "spacing", "n": 1.0}\n'
    upstream.behave = answer_bytes(returned, 200, {"Content-Type": "application/json"})

    answer = await api.ask("POST", path, sent)

    assert (answer.status, answer.body) == (200, returned)
    assert answer.headers["Content-Length"] == str(len(returned))
    (request,) = upstream.requests
    assert (request.method, request.path, request.body) == ("POST", path, sent)
    assert request.headers["content-type"] == "application/json"


async def test_the_worker_gets_none_of_the_clients_secrets(
    api: ServedApi, manager: FakeManager, upstream: FakeUpstream
) -> None:
    manager.add("a")

    await api.ask(
        "POST",
        "/v1/chat/completions",
        {"model": "a"},
        headers={"Authorization": "Bearer jand", "Cookie": "c=1", "X-Other": "1", "Accept": "text/event-stream"},
    )

    headers = upstream.requests[0].headers
    assert headers["accept"] == "text/event-stream"
    assert headers["accept-encoding"] == "identity"
    assert "authorization" not in headers
    assert "cookie" not in headers
    assert "x-other" not in headers


async def test_a_model_asked_for_by_an_alias_is_named_to_the_upstream_as_it_knows_it(
    api: ServedApi, manager: FakeManager, upstream: FakeUpstream
) -> None:
    manager.add("a", aliases=("other",))
    manager.upstream_name = "gpt-4"

    await api.ask("POST", "/v1/chat/completions", {"model": "other", "text": "é\ud83d", "n": 1.5})

    assert upstream.requests[0].json == {"model": "gpt-4", "text": "é\ud83d", "n": 1.5}


async def test_a_large_body_passes(api: ServedApi, manager: FakeManager, upstream: FakeUpstream) -> None:
    manager.add("a", aliases=("b",))
    picture = "x" * 8_000_000
    upstream.behave = answer_json({"data": picture})

    answer = await api.ask("POST", "/v1/chat/completions", {"model": "b", "image": picture})

    assert answer.json == {"data": picture}
    assert upstream.requests[0].json == {"model": "a", "image": picture}


@pytest.mark.parametrize("status", [200, 400, 404, 429, 500, 503])
async def test_status_and_headers_of_the_answer_are_kept_but_not_those_between_two_hops(
    api: ServedApi, manager: FakeManager, upstream: FakeUpstream, status: int
) -> None:
    manager.add("a")
    upstream.behave = answer_json(
        {"error": {"message": "m"}},
        status,
        {
            "X-Request-Id": "r1",
            "Retry-After": "7",
            "Connection": "X-Private, keep-alive",
            "X-Private": "1",
            "Keep-Alive": "timeout=5",
            "Proxy-Authenticate": "x",
            "Set-Cookie": "a=b",
            "Access-Control-Allow-Origin": "*",
            "Server": "other",
        },
    )

    answer = await api.ask("POST", "/v1/chat/completions", {"model": "a"})

    assert answer.status == status
    assert (answer.headers["X-Request-Id"], answer.headers["Retry-After"]) == ("r1", "7")
    gone = {"X-Private", "Keep-Alive", "Proxy-Authenticate", "Set-Cookie", "Access-Control-Allow-Origin"}
    assert not gone & set(answer.headers)
    assert answer.headers["Server"] != "other"


async def test_a_stream_passes_byte_for_byte(api: ServedApi, manager: FakeManager, upstream: FakeUpstream) -> None:
    """Whatever the pieces are that it comes in."""
    manager.add("a")
    whole = b": ping\n\n" + b"".join(chat_chunk(f"é{n}") for n in range(30)) + b"data: crlf\r\n\r\n" + DONE
    for size in (1, 7, 100, 10_000):
        upstream.behave = answer_events([whole[at : at + size] for at in range(0, len(whole), size)])
        async with await post(api, {"model": "a", "stream": True}) as answer:
            assert await answer.read() == whole
            assert answer.headers["Content-Type"] == "text/event-stream"
            assert answer.headers["Cache-Control"] == "no-cache"
            assert answer.headers["X-Accel-Buffering"] == "no"


async def test_each_event_is_passed_on_before_the_next_one_comes(
    api: ServedApi, manager: FakeManager, upstream: FakeUpstream
) -> None:
    manager.add("a")
    go_on = asyncio.Event()

    async def behave(exchange: Exchange) -> None:
        await exchange.begin(headers={"Content-Type": "text/event-stream"})
        for number in range(3):
            await go_on.wait()
            go_on.clear()
            await exchange.send(chat_chunk(str(number)))
        await exchange.end()

    upstream.behave = behave
    async with await post(api, {"model": "a", "stream": True}) as answer:
        assert answer.status == 200, "the head comes before the first event does"
        for number in range(3):
            go_on.set()
            assert await asyncio.wait_for(answer.content.readany(), 2) == chat_chunk(str(number))
        assert await answer.content.readany() == b""


async def test_an_event_longer_than_is_held_back_still_passes(
    api: ServedApi, manager: FakeManager, upstream: FakeUpstream
) -> None:
    manager.add("a")
    event = b"data: " + b"x" * 500_000 + b"\n\n"
    upstream.behave = answer_events([event[:100_000], event[100_000:], DONE])

    async with await post(api, {"model": "a", "stream": True}) as answer:
        assert await answer.read() == event + DONE


async def test_a_stream_that_ends_without_an_empty_line_passes_whole(
    api: ServedApi, manager: FakeManager, upstream: FakeUpstream
) -> None:
    manager.add("a")
    upstream.behave = answer_events([b"data: 1\n\n", b"data: [DONE]"])

    async with await post(api, {"model": "a", "stream": True}) as answer:
        assert await answer.read() == b"data: 1\n\ndata: [DONE]"


async def test_an_old_client_gets_a_stream_without_chunks(
    api: ServedApi, manager: FakeManager, upstream: FakeUpstream
) -> None:
    """HTTP/1.0: the end of the connection is the end of the answer."""
    manager.add("a")
    upstream.behave = answer_events([b"data: 1\n\n", DONE])
    reader, writer = await asyncio.open_unix_connection(str(api.socket))
    body = b'{"model": "a"}'
    writer.write(b"POST /v1/chat/completions HTTP/1.0\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    head, _, content = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()

    assert head.startswith(b"HTTP/1.0 200 ")
    assert b"chunked" not in head
    assert content == b"data: 1\n\n" + DONE


# Those who leave.


@pytest.mark.parametrize("moment", ["before the head", "before the first event", "in the stream", "in a whole answer"])
async def test_a_client_that_goes_away_ends_the_connection_to_the_upstream_at_once(
    api: ServedApi, manager: FakeManager, upstream: FakeUpstream, moment: str
) -> None:
    manager.add("a")

    async def behave(exchange: Exchange) -> None:
        if moment == "in a whole answer":
            await exchange.begin(length=1_000)
            await exchange.send(b"x")
        elif moment != "before the head":
            await exchange.begin(headers={"Content-Type": "text/event-stream"})
        if moment == "in the stream":
            await exchange.send(chat_chunk("1"))
        await exchange.wait_left()

    upstream.behave = behave
    _, writer = await asyncio.open_unix_connection(str(api.socket))
    body = b'{"model": "a", "stream": true}'
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    await until(lambda: upstream.exchanges)
    assert manager.in_flight == 1
    assert not upstream.exchanges[0].left.is_set()

    writer.close()

    await asyncio.wait_for(upstream.exchanges[0].left.wait(), 2)
    await until(lambda: manager.in_flight == 0)


async def test_a_client_that_goes_away_while_its_model_starts_is_not_waited_for(
    api: ServedApi, manager: FakeManager, upstream: FakeUpstream
) -> None:
    manager.add("a")
    manager.hold.clear()
    asking = asyncio.create_task(api.ask("POST", "/v1/chat/completions", {"model": "a"}))
    await until(lambda: manager.asked)
    asking.cancel()
    await asyncio.wait([asking])

    manager.hold.set()
    assert (await api.ask("GET", "/health")).status == 200

    assert upstream.requests == []
    assert manager.in_flight == 0


@pytest.mark.parametrize(("over", "most"), [("the socket", 300), ("TLS", 2_000)])  # the kernel takes megabytes for TCP
async def test_a_slow_client_holds_the_upstream_back_and_loses_nothing(
    manager: FakeManager, upstream: FakeUpstream, tmp_path: Path, over: str, most: int
) -> None:
    """What a client does not take piles up nowhere: the upstream cannot send more than the buffers on the way hold. Others are served meanwhile."""
    manager.add("a")
    piece = chat_chunk("x" * 10_000)
    sent = 0

    async def behave(exchange: Exchange) -> None:
        nonlocal sent
        await exchange.begin(headers={"Content-Type": "text/event-stream"})
        for _ in range(3_000):
            await exchange.send(piece)
            sent += 1
        await exchange.end()

    upstream.behave = behave
    async with contextlib.AsyncExitStack() as stack:
        if over == "TLS":
            await asyncio.to_thread(make_certificate, tmp_path)
            api = await stack.enter_async_context(
                ServedApi(manager, None, "127.0.0.1:0", tls=(tmp_path / "cert.pem", tmp_path / "key.pem"))
            )
            trusting = ssl.create_default_context(cafile=tmp_path / "cert.pem")
            url, connector = f"https://127.0.0.1:{api.port}", aiohttp.TCPConnector(ssl=trusting)
            session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        else:
            api = await stack.enter_async_context(ServedApi(manager))
            url, session = "http://jand", api.session
        answer = await session.post(f"{url}/v1/chat/completions", json={"model": "a", "stream": True})
        last = -1

        async def stalled() -> bool:
            nonlocal last
            before, last = last, sent
            await asyncio.sleep(0.1)
            return before == sent > 0

        await until(stalled)
        assert sent < most
        assert (await api.ask("GET", "/health")).status == 200
        content = await answer.read()

    assert content == piece * 3_000


# Upstreams that fail.


async def test_an_upstream_that_is_not_there_is_a_502(
    api: ServedApi, manager: FakeManager, upstream: FakeUpstream
) -> None:
    manager.add("a")
    upstream.stop_listening()

    answer = await api.ask("POST", "/v1/chat/completions", {"model": "a", "stream": True})

    assert answer.status == 502
    assert answer.error["code"] == "upstream-failed"
    assert '"a"' in answer.error["message"]
    assert str(upstream.socket) not in answer.error["message"]
    assert manager.in_flight == 0


async def test_an_upstream_that_dies_before_it_answers_is_a_502(
    api: ServedApi, manager: FakeManager, upstream: FakeUpstream
) -> None:
    manager.add("a")
    upstream.behave = die

    answer = await api.ask("POST", "/v1/chat/completions", {"model": "a", "stream": True})

    assert answer.status == 502
    assert answer.error["code"] == "upstream-failed"


@pytest.mark.parametrize("rest", [b"", b'data: {"choices": [{"del', b"data: x\n", b"dat", b"\r\n"])
async def test_an_upstream_that_dies_in_a_stream_is_told_as_its_last_event(
    api: ServedApi, manager: FakeManager, upstream: FakeUpstream, rest: bytes
) -> None:
    """Also in the middle of an event: what came of that one is left out, so that the error can be read."""
    manager.add("a")
    upstream.behave = answer_events([chat_chunk("1"), *([rest] if rest else [])], die)

    async with await post(api, {"model": "a", "stream": True}) as answer:
        content = await answer.read()

    first, second, nothing = content.split(b"\n\n")
    assert first + b"\n\n" == chat_chunk("1")
    assert nothing == b""
    error = json.loads(second.removeprefix(b"data: "))["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == "upstream-failed"
    assert answer.status == 200
    assert manager.in_flight == 0


@pytest.mark.parametrize("chunked", [True, False])
async def test_an_upstream_that_dies_in_a_whole_answer_breaks_the_clients_too(
    api: ServedApi, manager: FakeManager, upstream: FakeUpstream, chunked: bool
) -> None:
    """Half a JSON that looks complete would be worse than a broken connection."""
    manager.add("a")

    async def behave(exchange: Exchange) -> None:
        await exchange.begin(headers={"Content-Type": "application/json"}, length=None if chunked else 1_000)
        await exchange.send(b'{"half": ')
        exchange.die()

    upstream.behave = behave
    async with await post(api, {"model": "a"}) as answer:
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()
    assert (await api.ask("GET", "/health")).status == 200


async def test_an_upstream_that_dies_in_an_event_too_long_to_hold_back_breaks_the_clients_connection(
    api: ServedApi, manager: FakeManager, upstream: FakeUpstream
) -> None:
    manager.add("a")
    upstream.behave = answer_events([b"data: " + b"x" * 200_000], die)

    async with await post(api, {"model": "a", "stream": True}) as answer:
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()


async def test_an_upstream_that_redirects_is_not_followed(
    api: ServedApi, manager: FakeManager, upstream: FakeUpstream
) -> None:
    manager.add("a")
    upstream.behave = answer_bytes(b"", 307, {"Location": "http://elsewhere/"})

    answer = await api.ask("POST", "/v1/chat/completions", {"model": "a"})

    assert answer.status == 502
    assert len(upstream.requests) == 1
    assert "Location" not in answer.headers


async def test_a_model_that_was_stopped_just_before_its_first_byte_is_a_502(
    api: ServedApi, manager: FakeManager, upstream: FakeUpstream
) -> None:
    """The session to its worker is closed by then."""
    manager.add("a")
    await manager.close()

    answer = await api.ask("POST", "/v1/chat/completions", {"model": "a"})

    assert answer.status == 502
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ModelDownloadingError("cannot use", retry_after_s=5), 503, "model-downloading"),
        (ModelNotRunningError("cannot use"), 409, "model-not-running"),
    ],
)
async def test_why_a_model_cannot_be_used_is_answered(
    api: ServedApi, manager: FakeManager, error: Exception, status: int, code: str
) -> None:
    manager.add("a")
    manager.refuse("use", error)

    answer = await api.ask("POST", "/v1/chat/completions", {"model": "a"})

    assert (answer.status, answer.error["code"]) == (status, code)


async def test_connections_to_a_worker_are_used_again(
    api: ServedApi, manager: FakeManager, upstream: FakeUpstream
) -> None:
    manager.add("a")
    for behave in (answer_json({"n": 1}), answer_events([DONE]), answer_json({"n": 2})):
        upstream.behave = behave
        assert (await api.ask("POST", "/v1/chat/completions", {"model": "a"})).status == 200

    assert len(upstream.requests) == 3
    assert upstream.connections == 1


async def test_many_streams_at_once_do_not_mix(api: ServedApi, manager: FakeManager, upstream: FakeUpstream) -> None:
    manager.add("a")

    async def behave(exchange: Exchange) -> None:
        name = exchange.request.json["user"]
        await exchange.begin(headers={"Content-Type": "text/event-stream"})
        for number in range(20):
            await exchange.send(chat_chunk(f"{name}-{number}"))
            await asyncio.sleep(0)
        await exchange.end()

    upstream.behave = behave

    async def ask(name: str) -> None:
        async with await post(api, {"model": "a", "stream": True, "user": name}) as answer:
            assert await answer.read() == b"".join(chat_chunk(f"{name}-{number}") for number in range(20))

    await asyncio.gather(*(ask(f"user{number}") for number in range(50)))
    assert manager.in_flight == 0
