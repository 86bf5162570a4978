"""A session with a provider: what goes out, what comes back, when it asks again, and how it ends; against the stand-in."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from yarl import URL

from jand.engine.remote.provider import Patience, find_proxy
from jand.errors import StartError, UpstreamError
from tests.fakes import provider as fake
from tests.fakes.provider import AZURE_KEY, DEPLOYMENT, KEY, FakeProvider
from tests.fakes.provider_answers import TEXT, chat_events, openai_error
from tests.fakes.remote import CHAT, HEADERS, HELLO, ask, azure_json, openai_json, read_all, session_for
from tests.fakes.upstream import answer_bytes, answer_json
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from jand.engine.remote.answer import StreamedAnswer, WholeAnswer
    from jand.engine.remote.provider import Provider

EVENTS = chat_events({"model": "gpt-4o-mini"}, azure=False)[:3]


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    async with FakeProvider() as served:
        yield served


@pytest.fixture
async def session(provider: FakeProvider) -> AsyncIterator[Provider]:
    async with session_for(openai_json(provider)) as opened:
        yield opened


def body_of(fields: dict[str, Any]) -> bytes:
    return json.dumps(HELLO | fields).encode()


# -- what goes out and comes back -------------------------------------------------------------------------------------


async def test_openais_dialect(provider: FakeProvider, session: Provider) -> None:
    answer, body = await ask(session)
    (request,) = provider.requests

    assert json.loads(body)["choices"][0]["message"]["content"] == TEXT
    assert (request.method, request.path) == ("POST", "/v1/chat/completions")
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["user-agent"].startswith("jand/")
    assert request.json == HELLO | {"model": "gpt-4o-mini"}
    assert (answer.status, answer.content_type) == (200, "application/json")
    assert answer.headers["x-ratelimit-remaining-requests"] == "59"


@pytest.mark.parametrize(
    ("version", "path"),
    [
        ("2024-10-21", f"/openai/deployments/{DEPLOYMENT}/chat/completions?api-version=2024-10-21"),
        ("", "/openai/v1/chat/completions"),
    ],
)
async def test_azures_dialects(provider: FakeProvider, version: str, path: str) -> None:
    async with session_for(azure_json(provider, version=version)) as session:
        answer, _ = await ask(session)
    (request,) = provider.requests

    assert answer.status == 200
    assert request.path == path
    assert request.headers["api-key"] == AZURE_KEY
    assert "authorization" not in request.headers
    assert request.json["model"] == DEPLOYMENT


async def test_azures_responses_lie_beside_the_deployments(provider: FakeProvider) -> None:
    async with session_for(azure_json(provider)) as session:
        answer, _ = await ask(session, "/v1/responses", input="hi", messages=None)

    assert answer.status == 200
    assert provider.requests[0].path == "/openai/responses?api-version=2024-10-21"


async def test_without_a_key_there_is_no_header_for_one(provider: FakeProvider) -> None:
    provider.keys = {""}
    async with session_for(openai_json(provider, key="")) as session:
        answer, _ = await ask(session)

    assert answer.status == 200
    assert not {"authorization", "api-key"} & provider.requests[0].headers.keys()


@pytest.mark.parametrize(("cut", "newline"), [(0, b"\n"), (1, b"\n"), (7, b"\r\n"), (4096, b"\r\n")])
@pytest.mark.parametrize("azure", [False, True])
async def test_a_stream_comes_through_byte_for_byte(
    provider: FakeProvider, cut: int, newline: bytes, azure: bool
) -> None:
    provider.style = fake.Style(cut=cut, newline=newline)
    options: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
    async with session_for(azure_json(provider) if azure else openai_json(provider)) as session:
        answer, body = await ask(session, **options)
    sent = provider.pieces(chat_events(provider.requests[0].json, azure=azure))

    assert answer.content_type == "text/event-stream"
    assert body == b"".join(sent)


async def test_runtime_fills_what_the_request_leaves_out_and_can_be_replaced(provider: FakeProvider) -> None:
    async with session_for(openai_json(provider, runtime={"temperature": "0.7", "top_k": 4})) as session:
        await ask(session, top_p=0.5)
        session.runtime = {"token_limit": 7}
        await ask(session)

    assert provider.requests[0].json == HELLO | {"model": "gpt-4o-mini", "top_p": 0.5, "temperature": 0.7, "top_k": 4}
    assert provider.requests[1].json == HELLO | {"model": "gpt-4o-mini", "max_tokens": 7}


async def test_a_packed_answer_is_unpacked_and_says_so(provider: FakeProvider, session: Provider) -> None:
    import gzip

    packed = gzip.compress(b'{"ok": true}')
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    provider.next(answer_bytes(packed, 200, headers))
    answer, body = await ask(session)

    assert body == b'{"ok": true}'
    assert not {"Content-Encoding", "Content-Length"} & set(answer.headers)


# -- errors -----------------------------------------------------------------------------------------------------------


async def test_an_error_comes_through_with_status_body_and_headers(provider: FakeProvider, session: Provider) -> None:
    error = {"error": {"message": "slow down", "type": "requests", "param": None, "code": "rate_limit_exceeded"}}
    provider.next(answer_json(error, 429, {"Retry-After": "900", "x-ratelimit-reset-requests": "1m"}))
    answer, body = await ask(session)

    assert answer.status == 429
    assert json.loads(body) == error
    assert answer.headers["Retry-After"] == "900"
    assert answer.headers["x-ratelimit-reset-requests"] == "1m"
    assert len(provider.requests) == 1


async def test_azures_blocked_prompt_comes_through(provider: FakeProvider) -> None:
    async with session_for(azure_json(provider)) as session:
        answer, body = await ask(session, messages=[{"role": "user", "content": "a blocked prompt"}])

    assert answer.status == 400
    assert json.loads(body)["error"]["innererror"]["code"] == "ResponsibleAIPolicyViolation"


async def test_a_gateways_page_becomes_an_error_of_our_shape(provider: FakeProvider, session: Provider) -> None:
    provider.next(fake.gateway_page(502, x_should_retry="false", x_request_id="r1"))
    answer, body = await ask(session)

    assert answer.status == 502
    assert answer.content_type == "application/json"
    assert answer.headers["x-request-id"] == "r1"
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"] == f"cannot answer: 127.0.0.1:{provider.port} answers with status 502: 502 Bad Gateway"
    assert "Content-Length" not in answer.headers


async def test_an_error_that_breaks_off_or_never_ends_keeps_its_status(
    provider: FakeProvider, session: Provider
) -> None:
    async def broken(exchange: Any) -> None:
        await exchange.begin(400, {"Content-Type": "application/json"}, length=1000)
        await exchange.send(b'{"error": {"mess')
        exchange.die()

    provider.next(broken, answer_bytes(b"[" * (2 << 20), 400))
    for _ in range(2):
        answer, body = await ask(session)
        assert answer.status == 400
        assert json.loads(body)["error"]["code"] == "upstream-failed"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_refused(provider: FakeProvider, session: Provider, status: int) -> None:
    async with FakeProvider() as other:
        provider.next(fake.redirect_to(f"{other.origin}/v1/chat/completions", status))
        with pytest.raises(UpstreamError, match=f"sends us elsewhere .status {status}."):
            await ask(session)
        assert other.requests == []


async def test_our_key_is_blotted_out_of_whatever_comes_back(provider: FakeProvider, session: Provider) -> None:
    told = {"error": {"message": f"Incorrect API key provided: {KEY}.", "code": "invalid_api_key"}}
    page = f"<p>{KEY}</p>".encode()
    provider.next(
        answer_json(told, 401, {"x-echo": f"Bearer {KEY}"}),
        answer_bytes(page, 403, {"Content-Type": "text/html"}),
        answer_json({"said": KEY}),
        fake.stream_then([b'{"said": "' + KEY.encode() + b'"}'], lambda exchange: exchange.end()),
    )
    seen = []
    for _ in range(4):
        answer, body = await ask(session)
        seen.append(str(dict(answer.headers)).encode() + body)

    assert [text for text in seen if KEY.encode() in text] == []
    assert all(b"***" in text for text in seen)
    assert len(provider.requests) == 4


# -- asking again -----------------------------------------------------------------------------------------------------


async def test_it_asks_again_after_the_wait_that_was_asked_for(provider: FakeProvider, session: Provider) -> None:
    provider.next(fake.too_many_requests(retry_after_ms="300"), fake.too_many_requests(retry_after="0.2"))
    began = time.monotonic()
    answer, _ = await ask(session)

    assert answer.status == 200
    assert len(provider.requests) == 3
    assert time.monotonic() - began >= 0.5


async def test_patience_ends_after_two_repetitions_with_the_last_answer(
    provider: FakeProvider, session: Provider
) -> None:
    provider.next(*[fake.too_many_requests(retry_after_ms="10") for _ in range(5)])
    answer, body = await ask(session)

    assert answer.status == 429
    assert json.loads(body)["error"]["code"] == "rate_limit_exceeded"
    assert len(provider.requests) == 3


async def test_a_connection_that_closes_without_a_word_is_tried_again(
    provider: FakeProvider, session: Provider
) -> None:
    """So dies a kept connection that the provider had closed just when it was used."""
    provider.next(fake.drop_connection(), fake.drop_connection())
    answer, _ = await ask(session)

    assert answer.status == 200
    assert len(provider.requests) == 3


async def test_nothing_is_asked_again_once_an_answer_has_begun(provider: FakeProvider, session: Provider) -> None:
    provider.next(fake.die_mid_stream(EVENTS))
    answer = await session.ask(CHAT, body_of({"stream": True}), HEADERS)
    with pytest.raises(aiohttp.ClientError):
        await read_all(answer)

    assert len(provider.requests) == 1


async def test_silence_is_not_asked_again(provider: FakeProvider) -> None:
    """The provider may be at work on what it was sent, and charge for it."""
    provider.next(fake.say_nothing())
    async with session_for(openai_json(provider), patience=Patience(silence_s=0.2)) as session:
        with pytest.raises(UpstreamError, match="did not answer in time"):
            await ask(session)

    assert len(provider.requests) == 1


async def test_a_provider_that_is_away_is_an_error_that_says_so(provider: FakeProvider, session: Provider) -> None:
    await provider.vanish()
    with pytest.raises(UpstreamError, match="cannot be reached: connection refused") as caught:
        await ask(session)

    assert f"127.0.0.1:{provider.port}" in caught.value.message
    assert caught.value.hint
    assert KEY not in str(caught.value)


# -- its end ----------------------------------------------------------------------------------------------------------


async def begin_stream(provider: FakeProvider, session: Provider) -> StreamedAnswer | WholeAnswer:
    provider.next(fake.stream_until_left(EVENTS))
    answer = await session.ask(CHAT, body_of({"stream": True}), HEADERS)
    assert await answer.content.readany()
    return answer


async def test_a_stop_waits_for_answers(provider: FakeProvider, session: Provider) -> None:
    release = asyncio.Event()

    async def then(exchange: Any) -> None:
        await release.wait()
        await exchange.end()

    provider.next(fake.stream_then(EVENTS, then))
    answer = await session.ask(CHAT, body_of({"stream": True}), HEADERS)
    stopping = asyncio.create_task(session.stop(grace_s=5, force=False))
    reading = asyncio.create_task(read_all(answer))
    await asyncio.sleep(0)
    assert not stopping.done()
    release.set()
    await stopping

    assert (await reading).count(b"data: ") == len(EVENTS)
    await session.wait()


@pytest.mark.parametrize(("grace_s", "force"), [(0.1, False), (60.0, True)])
async def test_what_does_not_end_is_cut_so_that_its_reader_sees_it(
    provider: FakeProvider, session: Provider, grace_s: float, force: bool
) -> None:
    answer = await begin_stream(provider, session)
    reading = asyncio.create_task(read_all(answer))
    await session.stop(grace_s=grace_s, force=force)
    with pytest.raises(aiohttp.ClientError):
        await reading
    await until(provider.exchanges[-1].left.is_set, what="the provider to see that nobody listens")


async def test_a_stop_by_force_overtakes_a_patient_one(provider: FakeProvider, session: Provider) -> None:
    answer = await begin_stream(provider, session)
    patient = asyncio.create_task(session.stop(grace_s=60, force=False))
    await asyncio.sleep(0)
    await session.stop(grace_s=0, force=True)
    await patient
    with pytest.raises(aiohttp.ClientError):
        await read_all(answer)


async def test_a_stop_ends_the_wait_for_another_attempt(provider: FakeProvider, session: Provider) -> None:
    provider.next(fake.too_many_requests(retry_after="100"))
    asking = asyncio.create_task(ask(session))
    await until(lambda: provider.requests, what="the first attempt")
    await session.stop(grace_s=5, force=False)
    answer, body = await asking

    assert answer.status == 429
    assert json.loads(body)["error"]["code"] == "rate_limit_exceeded"


async def test_a_stop_by_force_ends_what_waits_for_the_first_byte(provider: FakeProvider, session: Provider) -> None:
    provider.next(fake.say_nothing())
    asking = asyncio.create_task(ask(session))
    await until(lambda: provider.requests, what="the request")
    await session.stop(grace_s=60, force=True)
    with pytest.raises(UpstreamError, match="it was stopped"):
        await asking
    with pytest.raises(UpstreamError, match="it was stopped"):
        await ask(session)


async def test_who_gives_up_ends_the_generation(provider: FakeProvider, session: Provider) -> None:
    answer = await begin_stream(provider, session)
    answer.close()
    await until(provider.exchanges[-1].left.is_set, what="the provider to see that nobody listens")
    provider.next(fake.say_nothing())
    asking = asyncio.create_task(ask(session))
    await until(lambda: len(provider.requests) == 2, what="the second request")
    asking.cancel()
    await until(provider.exchanges[-1].left.is_set, what="the provider to see that nobody waits")


# -- proxies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "proxies", "expected"),
    [
        ("https://api.openai.com/v1", {}, None),
        ("https://api.openai.com/v1", {"https": "http://proxy:3128"}, "http://proxy:3128"),
        ("https://api.openai.com/v1", {"all": "proxy:3128"}, "http://proxy:3128"),
        ("https://api.openai.com/v1", {"http": "http://proxy:3128"}, None),
        ("https://api.openai.com/v1", {"https": "http://proxy:3128", "no": "example.com, .openai.com"}, None),
        ("https://api.openai.com/v1", {"https": "http://proxy:3128", "no": "api.openai.com:443"}, None),
        ("https://api.openai.com/v1", {"https": "http://proxy:3128", "no": "*"}, None),
        ("https://xopenai.com/v1", {"https": "http://proxy:3128", "no": "openai.com"}, "http://proxy:3128"),
        ("http://127.0.0.1:8000/v1", {"http": "http://proxy:3128"}, None),
    ],
)
def test_which_proxy_is_used(url: str, proxies: dict[str, str], expected: str | None) -> None:
    assert find_proxy(URL(url), proxies) == (None if expected is None else URL(expected))


def test_a_proxy_of_another_kind_is_refused_without_its_password() -> None:
    with pytest.raises(StartError, match="socks5") as caught:
        find_proxy(URL("https://api.openai.com/v1"), {"https": "socks5://me:hunter2@proxy:1080"})

    assert "hunter2" not in str(caught.value)


async def test_a_request_goes_through_the_proxy() -> None:
    """The stand-in is the proxy here: over plain http a proxy is sent the whole address."""
    async with FakeProvider() as proxy:
        fields = {"origin": "http://provider.invalid:9/v1", "import_format": "openai"}
        async with session_for(fields, proxies={"http": proxy.origin}) as session:
            await ask(session)

    assert proxy.requests[0].path == "http://provider.invalid:9/v1/chat/completions"


async def test_an_unknown_error_shape_comes_through_as_it_is(provider: FakeProvider, session: Provider) -> None:
    provider.next(answer_json({"detail": "Not Found"}, 404), openai_error(422, "no", None))
    first, body = await ask(session)
    second, _ = await ask(session)

    assert (first.status, json.loads(body)) == (404, {"detail": "Not Found"})
    assert second.status == 422
