"""OpenAI's own Python client over the Unix socket, as people's programs use it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx2
import openai
import pytest

from jand.model.record import PublicState
from tests.fakes.upstream import DONE, Exchange, FakeUpstream, answer_events, answer_json, chat_chunk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from openai.types.chat import ChatCompletionMessageParam

    from tests.fakes.api import ServedApi
    from tests.fakes.manager import FakeManager

QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture
async def client(api: ServedApi) -> AsyncIterator[openai.AsyncOpenAI]:
    transport = httpx2.AsyncHTTPTransport(uds=str(api.socket))
    async with httpx2.AsyncClient(transport=transport) as http:
        yield openai.AsyncOpenAI(base_url="http://jand/v1", api_key="none", http_client=http, max_retries=0)


async def test_it_lists_and_retrieves_models(client: openai.AsyncOpenAI, manager: FakeManager) -> None:
    manager.add("a")
    manager.add("TheBloke/zephyr", state=PublicState.DOWNLOADING)

    models = [model async for model in client.models.list()]

    assert [(model.id, model.object, model.owned_by) for model in models] == [
        ("a", "model", "tests"),
        ("TheBloke/zephyr", "model", "tests"),
    ]
    assert (await client.models.retrieve("TheBloke/zephyr")).id == "TheBloke/zephyr"
    assert (await client.models.delete("a")).deleted is True


async def test_it_gets_a_chat_completion(
    client: openai.AsyncOpenAI, manager: FakeManager, upstream: FakeUpstream
) -> None:
    manager.add("a")
    upstream.behave = answer_json(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "a",
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Paris."}}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
        }
    )

    answer = await client.chat.completions.create(model="a", messages=QUESTION, temperature=0)

    assert answer.choices[0].message.content == "Paris."
    assert upstream.requests[0].json["messages"] == QUESTION


async def test_it_streams_a_chat_completion(
    client: openai.AsyncOpenAI, manager: FakeManager, upstream: FakeUpstream
) -> None:
    manager.add("a")
    words = ["The", " capital", " is", " Paris", "."]
    upstream.behave = answer_events([*(chat_chunk(word) for word in words), chat_chunk("", finish="stop"), DONE])

    stream = await client.chat.completions.create(model="a", messages=QUESTION, stream=True)
    said = [chunk.choices[0].delta.content async for chunk in stream]

    assert said == [*words, None]


async def test_it_raises_what_breaks_off_in_a_stream(
    client: openai.AsyncOpenAI, manager: FakeManager, upstream: FakeUpstream
) -> None:
    manager.add("a")

    async def die(exchange: Exchange) -> None:
        exchange.die()

    upstream.behave = answer_events([chat_chunk("The"), b'data: {"half'], die)

    stream = await client.chat.completions.create(model="a", messages=QUESTION, stream=True)
    first = await anext(aiter(stream))
    with pytest.raises(openai.APIError, match="cannot go on with the answer") as raised:
        await anext(aiter(stream))

    assert first.choices[0].delta.content == "The"
    assert raised.value.code == "upstream-failed"


async def test_it_raises_not_found_for_a_model_that_is_not_there(
    client: openai.AsyncOpenAI, manager: FakeManager
) -> None:
    manager.add("zephyr")

    with pytest.raises(openai.NotFoundError) as raised:
        await client.chat.completions.create(model="zephir", messages=QUESTION)

    assert (raised.value.code, raised.value.param) == ("model-not-found", "model")


def test_the_synchronous_client_works_as_well(api_in_a_thread: ServedApi) -> None:
    transport = httpx2.HTTPTransport(uds=str(api_in_a_thread.socket))
    with httpx2.Client(transport=transport) as http:
        client = openai.OpenAI(base_url="http://jand/v1", api_key="none", http_client=http, max_retries=0)
        assert [model.id for model in client.models.list()] == ["a"]
        stream = client.chat.completions.create(model="a", messages=QUESTION, stream=True)
        assert [chunk.choices[0].delta.content for chunk in stream] == ["Paris"]
