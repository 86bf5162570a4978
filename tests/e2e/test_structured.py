"""Structured output through the real worker: whatever the model would like to say, the answer follows the schema."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
import pytest_asyncio
from pydantic import BaseModel, ConfigDict, Field

from jand.engine.process import Worker
from jand.engine.protocol import WorkerConfig
from tests.fakes import gguf_files
from tests.fakes.asking import CHAT, TEXT, Asker, said, streamed, user
from tests.fakes.workers import running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]


class Person(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=12)
    age: int = Field(ge=0, le=120)
    mood: Literal["good", "bad"]
    height: float | None = Field(default=None, gt=0, lt=3)
    friends: list[Annotated[str, Field(max_length=8)]] = Field(default_factory=list, max_length=2)


class Event(BaseModel):
    model_config = ConfigDict(extra="forbid")

    code: str = Field(pattern=r"^[A-Z]{3}-[0-9]{2}$")
    people: list[Person] = Field(min_length=1, max_length=2)
    done: bool


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def ask(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Asker]:
    """Ask a model of random weights, which has no idea of JSON."""
    directory = tmp_path_factory.mktemp("structured")
    (path,) = gguf_files.tiny_llama(directory / "tiny.gguf", context_length=4096)
    init = {"ctx_len": 2048, "n_parallel": 4, "n_threads": 1}
    config = WorkerConfig("tiny", (str(path),), str(directory / "w.sock"), init=init)
    async with running(config) as started, Asker(started.socket) as asker:
        yield asker


def schema_format(kind: type[BaseModel]) -> dict[str, Any]:
    return {
        "type": "json_schema",
        "json_schema": {"name": kind.__name__, "schema": kind.model_json_schema(), "strict": True},
    }


@pytest.mark.parametrize("kind", [Person, Event])
async def test_every_answer_parses_and_validates(ask: Asker, kind: type[BaseModel], soak: bool) -> None:
    limit = asyncio.Semaphore(8)

    async def one(seed: int) -> None:
        async with limit:
            answer = await ask.ok(
                CHAT,
                messages=user(f"{seed}"),
                response_format=schema_format(kind),
                seed=seed,
                temperature=1.5,
                top_k=0,
                top_p=1,
            )
        assert answer["choices"][0]["finish_reason"] == "stop", answer
        kind.model_validate_json(said(answer))

    await asyncio.gather(*(one(seed) for seed in range(500 if soak else 30)))


async def test_stream_follows_the_schema_too(ask: Asker) -> None:
    events = await ask.stream(CHAT, messages=user("x"), response_format=schema_format(Person), seed=3)
    Person.model_validate_json(streamed(events))


async def test_json_object_is_an_object(ask: Asker) -> None:
    """A model of random weights may go on for ever, so what is cut is only looked at from its beginning."""
    answer = await ask.ok(CHAT, messages=user("x"), response_format={"type": "json_object"}, max_tokens=300, seed=5)
    assert said(answer).startswith("{")
    if answer["choices"][0]["finish_reason"] == "stop":
        assert isinstance(json.loads(said(answer)), dict)


async def test_grammar_and_schema_of_llama_server_are_understood(ask: Asker) -> None:
    answer = await ask.ok(TEXT, prompt="x", grammar='root ::= ("yes" | "no") "!"')
    assert said(answer) in {"yes!", "no!"}
    assert answer["choices"][0]["finish_reason"] == "stop"
    answer = await ask.ok(TEXT, prompt="x", json_schema={"enum": [17, 18]})
    assert said(answer) in {"17", "18"}
    error = await ask.refused(TEXT, prompt="x", grammar='root ::= "a"', json_schema={"enum": [1]})
    assert error["param"] == "grammar"


async def test_penalties_and_bias_do_not_break_the_grammar(ask: Asker) -> None:
    for seed in range(6):
        answer = await ask.ok(
            CHAT,
            messages=user("x"),
            response_format=schema_format(Event),
            seed=seed,
            repeat_penalty=1.4,
            frequency_penalty=2,
            dry_multiplier=0.8,
            temperature=1.2,
        )
        Event.model_validate_json(said(answer))


@pytest.mark.parametrize(
    "grammar",
    [
        "",
        "root",
        "root ::= (",
        "root ::= other",
        'other ::= "a"',
        'root ::= root "a"',
        "root ::= a\na ::= b\nb ::= a",
        'root ::= "a"{1000000}',
        "root ::= [a-",
        'root ::= "\\xZZ"',
        'root ::= ("a"{2000}){2000} ' * 60,
        'root ::= "\x00"',
        "\ud7ff" * 3,
    ],
)
async def test_bad_grammar_is_refused_and_the_worker_lives(ask: Asker, grammar: str) -> None:
    status, answer = await ask.post(TEXT, prompt="x", grammar=grammar, max_tokens=3)
    if grammar:
        assert status == 400, answer
        assert answer["error"]["param"] == "grammar"
    assert (await ask.get("/health"))["status"] == "ok"


@pytest.mark.parametrize(
    "grammar",
    [
        'root ::= ""',
        'root ::= ("" | "a")*',
        'root ::= ""* "b"',
        'root ::= a{0,3}\na ::= ("x"?){0,20}',
        'root ::= "é€😀"{1,3}',
    ],
)
async def test_odd_grammar_ends_an_answer_or_is_refused_but_never_the_worker(ask: Asker, grammar: str) -> None:
    status, _ = await ask.post(TEXT, prompt="x", grammar=grammar, max_tokens=8)
    assert status in {200, 400}
    assert (await ask.get("/health"))["status"] == "ok"


async def test_schema_that_cannot_be_kept_is_refused(ask: Asker) -> None:
    form = {"type": "json_schema", "json_schema": {"schema": {"not": {"type": "string"}}}}
    error = await ask.refused(CHAT, messages=user("x"), response_format=form)
    assert error["param"] == "response_format"
    assert "not" in error["message"]


# -- tools ----------------------------------------------------------------------------------------------------------------

BOOK = {
    "type": "function",
    "function": {
        "name": "book",
        "description": "Book a table",
        "parameters": {
            "type": "object",
            "properties": {
                "guests": {"type": "integer", "minimum": 1, "maximum": 20},
                "name": {"type": "string", "maxLength": 10},
            },
            "required": ["guests"],
        },
    },
}
CANCEL = {"type": "function", "function": {"name": "cancel", "parameters": {"type": "object", "properties": {}}}}


class Booking(BaseModel):
    model_config = ConfigDict(extra="forbid")

    guests: int = Field(ge=1, le=20)
    name: str | None = Field(default=None, max_length=10)


async def test_every_required_call_parses(ask: Asker, soak: bool) -> None:
    limit = asyncio.Semaphore(8)

    async def one(seed: int) -> None:
        async with limit:
            answer = await ask.ok(
                CHAT, messages=user(f"{seed}"), tools=[BOOK, CANCEL], tool_choice="required", seed=seed, temperature=1.3
            )
        (choice,) = answer["choices"]
        assert choice["finish_reason"] == "tool_calls", choice
        assert choice["message"]["content"] is None
        for call in choice["message"]["tool_calls"]:
            assert call["type"] == "function"
            check_call(call["function"])

    await asyncio.gather(*(one(seed) for seed in range(200 if soak else 20)))


FAMILIES = {
    "hermes": "{% if tools %}<tool_call>{% endif %}",
    "mistral": "{% if tools %}[AVAILABLE_TOOLS][TOOL_CALLS]{% endif %}",
    "llama": "{% if tools %}Environment: ipython<|python_tag|>{% endif %}",
}


@pytest.mark.parametrize("family", list(FAMILIES))
async def test_every_family_calls_in_its_own_form_whole_and_streamed(tmp_path: Path, family: str, soak: bool) -> None:
    """The template tells the family; what the model writes is its form, and what the client gets is OpenAI's."""
    (path,) = gguf_files.tiny_llama(
        tmp_path / "tiny.gguf", context_length=4096, chat_template=FAMILIES[family] + gguf_files.TEMPLATE
    )
    init = {"ctx_len": 4096, "n_parallel": 4, "n_threads": 1}
    started = await Worker.start(WorkerConfig("tiny", (str(path),), str(tmp_path / "w.sock"), init=init))
    limit = asyncio.Semaphore(8)
    async with Asker(started.socket) as asker:

        async def one(seed: int) -> None:
            wanted: dict[str, Any] = {
                "messages": user("x"),
                "tools": [BOOK, CANCEL],
                "tool_choice": "required",
                "seed": seed,
            }
            wanted["parallel_tool_calls"] = bool(seed % 2)
            async with limit:
                whole = (await asker.ok(CHAT, **wanted, temperature=1.3))["choices"][0]
                events = await asker.stream(CHAT, **wanted, temperature=1.3)
            calls = whole["message"]["tool_calls"]
            assert calls
            for call in calls:
                check_call(call["function"])
            deltas = [event["choices"][0]["delta"] for event in events]
            parts = [call for delta in deltas for call in delta.get("tool_calls", [])]
            assert [part["index"] for part in parts] == list(range(len(parts)))
            for part in parts:
                check_call(part["function"])
            assert not any(delta.get("content") for delta in deltas)
            reasons = [whole["finish_reason"], events[-1]["choices"][0]["finish_reason"]]
            assert reasons == ["tool_calls", "tool_calls"]

        await asyncio.gather(*(one(seed) for seed in range(70 if soak else 2)))
    await started.stop(grace_s=5)


def check_call(function: dict[str, str]) -> None:
    if function["name"] == "book":
        Booking.model_validate_json(function["arguments"])
    else:
        assert function["name"] == "cancel"
        assert json.loads(function["arguments"]) == {}


async def test_thoughts_come_apart_from_what_is_said(ask: Asker) -> None:
    wanted = {"messages": user("x"), "grammar": 'root ::= "<think>\\nso it is\\n</think>\\n\\nyes"'}
    message = (await ask.ok(CHAT, **wanted))["choices"][0]["message"]
    assert (message["reasoning_content"].strip(), message["content"]) == ("so it is", "yes")
    deltas = [event["choices"][0]["delta"] for event in await ask.stream(CHAT, **wanted)]
    assert "".join(delta.get("reasoning_content") or "" for delta in deltas).strip() == "so it is"
    assert "".join(delta.get("content") or "" for delta in deltas) == "yes"
    plain = (await ask.ok(CHAT, **wanted, reasoning_format="none"))["choices"][0]["message"]
    assert plain["content"] == "<think>\nso it is\n</think>\n\nyes"
    assert "reasoning_content" not in plain


async def test_named_tool_is_called_and_streamed(ask: Asker) -> None:
    choice = {"type": "function", "function": {"name": "book"}}
    events = await ask.stream(CHAT, messages=user("x"), tools=[BOOK, CANCEL], tool_choice=choice, seed=1)
    deltas = [event["choices"][0]["delta"] for event in events]
    (call,) = [call for delta in deltas for call in delta.get("tool_calls", [])]
    assert (call["index"], call["function"]["name"]) == (0, "book")
    Booking.model_validate_json(call["function"]["arguments"])
    assert events[-1]["choices"][0]["finish_reason"] == "tool_calls"


async def test_free_choice_calls_or_talks(ask: Asker) -> None:
    for seed in range(5):
        answer = await ask.ok(CHAT, messages=user("x"), tools=[CANCEL], seed=seed, max_tokens=60)
        message = answer["choices"][0]["message"]
        assert message.get("tool_calls") or isinstance(message["content"], str)


async def test_calls_and_results_of_before_are_understood(ask: Asker) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "cancel", "arguments": "{}"}}
    messages = [
        *user("x"),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "done"},
    ]
    answer = await ask.ok(CHAT, messages=messages, tools=[CANCEL], tool_choice="none", max_tokens=5)
    assert "tool_calls" not in answer["choices"][0]["message"]


async def test_tool_choice_without_tools_is_refused(ask: Asker) -> None:
    error = await ask.refused(CHAT, messages=user("x"), tool_choice="required")
    assert error["param"] == "tool_choice"
