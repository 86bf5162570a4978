"""`/v1/responses` for local models, by OpenAI's own client through a real daemon with the real model, and what it refuses."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx2
import openai
import pytest
import pytest_asyncio
from pydantic import BaseModel

from tests.fakes import gguf_files
from tests.fakes.daemon import DaemonProcess
from tests.fakes.drawing import data_uri, draw

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

PATH = "/v1/responses"
QUESTION = "What is the capital of France? Answer in one short sentence."
WEATHER: dict[str, Any] = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"]},
    "strict": True,
}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def daemon(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DaemonProcess]:
    """Run the real model, one of random weights, and one of those that sees."""
    models = tmp_path_factory.mktemp("janroot") / "models"
    for name in ("smollm2", "tiny", "seeing"):
        (models / name).mkdir(parents=True)
        spec = {"origin": f"tests/{name}", "parameters": {"init": {"ctx_len": 1024, "n_parallel": 2}}}
        (models / name / f"{name}.json").write_text(json.dumps(spec))
    (models / "smollm2" / "weights.gguf").symlink_to(gguf_files.smollm2())
    gguf_files.tiny_llama(models / "tiny" / "weights.gguf", context_length=2048)
    gguf_files.tiny_llama(models / "seeing" / "weights.gguf")
    gguf_files.projector(models / "seeing" / "mmproj.gguf")
    async with DaemonProcess(models.parent) as running:
        for name in ("smollm2", "tiny", "seeing"):
            await running.until_state(name, "downloaded", 20)
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def client(daemon: DaemonProcess) -> AsyncIterator[openai.AsyncOpenAI]:
    async with httpx2.AsyncClient(transport=httpx2.AsyncHTTPTransport(uds=str(daemon.socket)), timeout=60) as http:
        yield openai.AsyncOpenAI(base_url="http://jand/v1", api_key="unused", http_client=http, max_retries=0)


async def test_text_whole_and_streamed(client: openai.AsyncOpenAI) -> None:
    asked: dict[str, Any] = {"model": "smollm2", "input": QUESTION, "temperature": 0, "max_output_tokens": 24}
    whole = await client.responses.create(**asked, instructions="You are brief.", metadata={"for": "a test"})
    assert "Paris" in whole.output_text
    assert whole.status == "completed"
    assert whole.instructions == "You are brief."
    assert whole.metadata == {"for": "a test"}
    assert whole.usage is not None
    assert whole.usage.total_tokens == whole.usage.input_tokens + whole.usage.output_tokens
    (message,) = whole.output
    assert (message.type, message.status) == ("message", "completed")

    async with client.responses.stream(**asked, instructions="You are brief.") as stream:
        kinds = [event.type async for event in stream]
        final = await stream.get_final_response()
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert set(kinds[4:-4]) == {"response.output_text.delta"}
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert final.output_text == whole.output_text
    assert final.usage is not None
    assert final.usage.input_tokens_details.cached_tokens == final.usage.input_tokens - 1


async def test_raw_stream_counts_its_events_and_names_each(daemon: DaemonProcess) -> None:
    body = {"model": "tiny", "input": "hello", "stream": True, "max_output_tokens": 5, "ignore_eos": True}
    async with daemon.session.post(f"http://jand{PATH}", json=body) as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        text = await response.text()
    frames = [frame.split("\n") for frame in text.strip().split("\n\n")]
    events = [json.loads(data.removeprefix("data: ")) for _, data in frames]
    assert [name.removeprefix("event: ") for name, _ in frames] == [event["type"] for event in events]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[0]["response"]["status"] == "in_progress"
    assert events[0]["response"]["output"] == []
    assert events[2]["item"]["content"] == []
    assert events[-1]["type"] == "response.incomplete"
    assert events[-1]["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
    assert events[-1]["response"]["usage"]["output_tokens"] == 5
    assert "[DONE]" not in text


async def test_conversation_is_what_a_chat_with_the_same_turns_is(daemon: DaemonProcess) -> None:
    turns = [
        {"role": "user", "content": "My name is Ada."},
        {"role": "assistant", "content": "Hello Ada!"},
        {"role": "user", "content": "What is my name?"},
    ]
    more = {"temperature": 0}
    chat = await daemon.call(
        "POST",
        "/v1/chat/completions",
        {
            "model": "smollm2",
            "messages": [{"role": "system", "content": "Be brief."}, *turns],
            "max_tokens": 16,
            **more,
        },
    )
    items = [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "My name is Ada."}]},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {
            "id": "msg_1",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Hello Ada!", "annotations": []}],
        },
        turns[2],
    ]
    body = {"model": "smollm2", "instructions": "Be brief.", "input": items, "max_output_tokens": 16, **more}
    response = await daemon.call("POST", PATH, body)
    assert response["output"][0]["content"][0]["text"] == chat["choices"][0]["message"]["content"]
    assert response["usage"]["input_tokens"] == chat["usage"]["prompt_tokens"]


async def test_structured_output_is_parsed_by_the_client(client: openai.AsyncOpenAI) -> None:
    class Town(BaseModel):
        name: str
        in_france: bool

    parsed = await client.responses.parse(model="smollm2", input="Tell me of Paris.", text_format=Town, temperature=0)
    assert isinstance(parsed.output_parsed, Town)
    loose = await client.responses.create(
        model="tiny", input="hello", text={"format": {"type": "json_object"}}, max_output_tokens=200, temperature=0
    )
    assert loose.status == "incomplete" or isinstance(json.loads(loose.output_text), dict)


@pytest.mark.parametrize("stream", [False, True])
async def test_function_is_called_and_its_output_answered(client: openai.AsyncOpenAI, stream: bool) -> None:
    tools: Any = [WEATHER]
    choice: Any = {"type": "function", "name": "get_weather"}
    asked: Any = {"model": "smollm2", "input": "How is the weather in Rome?", "temperature": 0}
    if stream:
        events = [
            event
            async for event in await client.responses.create(**asked, tools=tools, tool_choice=choice, stream=True)
        ]
        kinds = [event.type for event in events]
        assert kinds[2:6] == [
            "response.output_item.added",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.done",
            "response.output_item.done",
        ]
        call = events[-1].response.output[0]
    else:
        call = (await client.responses.create(**asked, tools=tools, tool_choice=choice)).output[0]
    assert call.type == "function_call"
    assert call.name == "get_weather"
    assert json.loads(call.arguments)["city"] in {"Paris", "Rome"}
    items: Any = [
        {"role": "user", "content": asked["input"]},
        call.model_dump(),
        {"type": "function_call_output", "call_id": call.call_id, "output": '{"weather": "sunny"}'},
    ]
    answer = await client.responses.create(
        model="smollm2", input=items, tools=tools, tool_choice="none", temperature=0, max_output_tokens=40
    )
    assert answer.output_text


async def test_images_are_seen(client: openai.AsyncOpenAI) -> None:
    parts: Any = [
        {"type": "input_text", "text": "hello"},
        {"type": "input_image", "image_url": data_uri(draw(40, 40)), "detail": "auto"},
    ]
    used = []
    for shown in (parts, [*parts, parts[1]]):
        answer = await client.responses.create(
            model="seeing", input=[{"role": "user", "content": shown}], max_output_tokens=4
        )
        assert answer.usage is not None
        used.append(answer.usage.input_tokens)
    assert used[1] == used[0] + 4


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"store": True}, "store"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"truncation": "auto"}, "truncation"),
        ({"include": ["message.output_text.logprobs"]}, "include"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"tool_choice": {"type": "mcp"}}, "tool_choice"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"n": 2}, "n"),
        ({"text": {"format": {"type": "yaml"}}}, "response_format"),
        ({"input": []}, "input"),
        ({"input": None}, "input"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input"),
        ({"input": [{"role": "wizard", "content": "x"}]}, "input"),
        ({"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]}, "input"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]}, "input"),
    ],
)
async def test_what_cannot_be_honoured_is_named(daemon: DaemonProcess, body: dict[str, Any], param: str) -> None:
    answer = await daemon.call("POST", PATH, {"model": "tiny", "input": "hello", **body}, status=400)
    assert answer["error"]["param"] == param
    assert answer["error"]["type"] == "invalid_request_error"


async def test_place_in_the_input_is_told(daemon: DaemonProcess) -> None:
    items = [
        {"role": "user", "content": "hello"},
        {"role": "user", "content": [{"type": "input_image", "image_url": "x"}]},
    ]
    body = {"model": "seeing", "instructions": "Look.", "input": items}
    answer = await daemon.call("POST", PATH, body, status=400)
    assert '"input[1].content[0]"' in answer["error"]["message"]


async def test_what_asks_for_nothing_is_taken(daemon: DaemonProcess) -> None:
    body = {
        "model": "tiny",
        "input": "hello",
        "store": False,
        "previous_response_id": None,
        "include": ["reasoning.encrypted_content"],
        "reasoning": {"effort": "low", "summary": "auto"},
        "service_tier": "auto",
        "max_output_tokens": 3,
        "top_k": 5,
    }
    answer = await daemon.call("POST", PATH, body)
    assert answer["object"] == "response"
    assert answer["store"] is False
