"""What a start finds out at a provider before it says that the model runs, at no cost to anybody."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from typing_extensions import override

from jand.engine.remote.provider import Patience
from jand.errors import StartError
from tests.fakes import provider as fake
from tests.fakes.provider import AZURE_KEY, KEY, FakeProvider
from tests.fakes.provider_answers import openai_error
from tests.fakes.remote import QUICK, azure_json, openai_json, session_for
from tests.fakes.upstream import answer_bytes, answer_json

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.fakes.upstream import Behaviour, Exchange

WRONG = "sk-wrong-0123456789-abcdef"


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    async with FakeProvider() as served:
        yield served


class Scripted(FakeProvider):
    """Answers whatever it is asked, by path, as a test says, and 404 otherwise."""

    def __init__(self, **answers: Behaviour) -> None:
        super().__init__()
        self._answers = {name.replace("_", "/"): behave for name, behave in answers.items()}

    @override
    async def _answer(self, exchange: Exchange) -> None:
        path = exchange.request.path
        behave = next((behave for name, behave in self._answers.items() if path.endswith(name)), None)
        await (behave or answer_json({"detail": "Not Found"}, 404))(exchange)


async def check(fields: dict[str, Any], variables: tuple[str, ...] = (), patience: Patience | None = None) -> None:
    async with session_for(fields, patience=patience or QUICK) as session:
        await session.check(variables)


async def refusal(
    fields: dict[str, Any], variables: tuple[str, ...] = (), patience: Patience | None = None
) -> StartError:
    with pytest.raises(StartError) as caught:
        await check(fields, variables, patience)
    error = caught.value
    assert error.message.startswith('cannot start "mine": ')
    assert error.hint
    for key in (KEY, AZURE_KEY, WRONG):
        assert key not in f"{error.message} {error.hint}"
    return error


async def test_all_is_right_at_openai_and_nothing_was_generated(provider: FakeProvider) -> None:
    await check(openai_json(provider, "org/model"))

    assert [(request.method, request.path) for request in provider.requests] == [("GET", "/v1/models/org%2Fmodel")]


@pytest.mark.parametrize("version", ["2024-10-21", ""])
async def test_all_is_right_at_azure_and_nothing_was_generated(provider: FakeProvider, version: str) -> None:
    await check(azure_json(provider, version=version))
    (request,) = provider.requests

    assert "messages" not in request.json
    assert provider.inferences == []


async def test_a_wrong_key(provider: FakeProvider) -> None:
    error = await refusal(openai_json(provider, key=WRONG))

    assert f"127.0.0.1:{provider.port} does not accept its key (status 401: Incorrect API key provided" in error.message
    assert error.hint == "correct API-KEY of its JSON"


@pytest.mark.parametrize("version", ["2024-10-21", ""])
async def test_a_wrong_key_at_azure(provider: FakeProvider, version: str) -> None:
    error = await refusal(azure_json(provider, key=WRONG, version=version))

    assert "does not accept its key (status 401: Access denied due to invalid subscription key" in error.message


async def test_no_key_where_one_is_wanted(provider: FakeProvider) -> None:
    error = await refusal(openai_json(provider, key=""), ("MY_KEY",))

    assert "wants a key, and there is none" in error.message
    assert "file:NAME" in error.hint
    assert "MY_KEY" in error.hint


async def test_no_key_for_azure_is_told_without_asking(provider: FakeProvider) -> None:
    error = await refusal(azure_json(provider, key=""))

    assert "wants a key, and there is none" in error.message
    assert provider.requests == []


async def test_no_key_where_none_is_wanted(provider: FakeProvider) -> None:
    provider.keys = {""}
    await check(openai_json(provider, key=""))


async def test_no_such_model(provider: FakeProvider) -> None:
    error = await refusal(openai_json(provider, "gpt-9"))

    assert 'has no model "gpt-9"' in error.message
    assert "DEPLOYMENT-NAME" in error.hint


@pytest.mark.parametrize("version", ["2024-10-21", ""])
async def test_no_such_deployment(provider: FakeProvider, version: str) -> None:
    error = await refusal(azure_json(provider, "gone", version=version))

    assert 'has no deployment "gone"' in error.message
    assert "DEPLOYMENT-NAME" in error.hint


async def test_a_wrong_api_version(provider: FakeProvider) -> None:
    error = await refusal(azure_json(provider, version="2019-01-01"))

    assert 'has no API of version "2019-01-01"' in error.message
    assert "api-version" in error.hint


async def test_nobody_there(provider: FakeProvider) -> None:
    await provider.vanish()
    error = await refusal(openai_json(provider))

    assert "cannot be reached: connection refused" in error.message


async def test_no_tls_where_https_is_written() -> None:
    async def refuse(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Do as HTTP servers do with the greeting of a TLS client."""
        writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        error = await refusal({"origin": f"https://127.0.0.1:{port}", "import_format": "openai"})

    assert f"127.0.0.1:{port} does not speak TLS there" in error.message


async def test_something_else_than_http() -> None:
    async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        error = await refusal({"origin": f"http://127.0.0.1:{port}", "import_format": "openai"})

    assert f"127.0.0.1:{port} does not speak HTTP there" in error.message


async def test_somebody_who_takes_the_connection_and_says_nothing() -> None:
    async with Scripted(**{"models_gpt-4o-mini": fake.say_nothing()}) as provider:
        error = await refusal(openai_json(provider), patience=Patience(check_s=0.2))

    assert "did not answer in time" in error.message


async def test_a_redirect_is_refused(provider: FakeProvider) -> None:
    async with Scripted(**{"models_gpt-4o-mini": fake.redirect_to(provider.origin)}) as leading:
        error = await refusal(openai_json(leading))

    assert "sends us elsewhere (status 307)" in error.message
    assert provider.requests == []


async def test_a_page_that_answers_everything_is_no_provider() -> None:
    page = answer_bytes(b"<html><title>Sign in</title></html>", 200, {"Content-Type": "text/html"})
    async with Scripted(**{"models_gpt-4o-mini": page}) as provider:
        error = await refusal(openai_json(provider))

    assert "is no API of OpenAI's kind" in error.message
    assert "/v1" in error.hint


async def test_an_origin_with_the_wrong_path() -> None:
    async with Scripted() as provider:
        error = await refusal(openai_json(provider))

    assert "is no API of OpenAI's kind" in error.message


async def test_a_server_that_has_a_list_but_no_pages_may_name_its_model_as_it_likes() -> None:
    """So does llama-server, which takes any name."""
    listed = answer_json({"object": "list", "data": [{"id": "/models/llama.gguf"}]})
    async with Scripted(models=listed) as provider:
        await check(openai_json(provider))


@pytest.mark.parametrize("path", ["chat_completions", "embeddings"])
async def test_a_server_that_lists_no_models_is_asked_for_what_it_must_refuse(path: str) -> None:
    async with Scripted(**{path: answer_json({"detail": "Field required"}, 422)}) as provider:
        await check(openai_json(provider))

        assert provider.inferences == []


@pytest.mark.parametrize("status", [401, 403])
async def test_a_key_that_may_not_list_models_is_still_good(status: int) -> None:
    """OpenAI's restricted keys may have the right to ask and not the one to look."""
    said = "You have insufficient permissions for this operation. Missing scopes: api.model.read."
    async with Scripted(**{"models_gpt-4o-mini": openai_error(status, said, None)}) as provider:
        await check(openai_json(provider))


async def test_a_provider_that_refuses_for_another_reason() -> None:
    said = "Country, region, or territory not supported"
    async with Scripted(**{"models_gpt-4o-mini": openai_error(403, said, "unsupported_country")}) as provider:
        error = await refusal(openai_json(provider))

    assert f"refuses (status 403: {said})" in error.message


async def test_a_provider_that_is_too_busy_to_say_is_taken() -> None:
    async with Scripted(**{"models_gpt-4o-mini": fake.too_many_requests(retry_after="60")}) as provider:
        await check(openai_json(provider))

        assert len(provider.requests) == 1


async def test_a_provider_that_is_ill_for_a_moment_is_asked_again() -> None:
    orders = [fake.gateway_page(503, retry_after_ms="10"), fake.drop_connection(), answer_json({"id": "gpt-4o-mini"})]

    async def behave(exchange: Exchange) -> None:
        await orders.pop(0)(exchange)

    async with Scripted(**{"models_gpt-4o-mini": behave}) as provider:
        await check(openai_json(provider))

    assert orders == []


async def test_a_provider_that_is_ill_says_so() -> None:
    async with Scripted(**{"models_gpt-4o-mini": fake.gateway_page(503, x_should_retry="false")}) as provider:
        error = await refusal(openai_json(provider))

    assert "cannot answer now (status 503: 503 Service Unavailable)" in error.message
