"""`/v1/responses` without a state: a request of OpenAI's responses becomes one of its chat completions, for models that keep nothing between two requests.

What asks for something kept, or for a tool that OpenAI runs itself, is refused by its name.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jand.engine.worker import requests
from jand.engine.worker.requests import ChatRequest
from jand.errors import BadRequestError

_SHOWN: Final = 64
_NEUTRAL: Final[dict[str, tuple[object, ...]]] = {
    "store": (False,),
    "background": (False,),
    "truncation": ("disabled",),
    "top_logprobs": (0,),
    "include": ([], ["reasoning.encrypted_content"]),
    "previous_response_id": (),
    "conversation": (),
    "prompt": (),
    "context_management": ([],),
}
"""Fields that ask for what is not done here, with the values that ask for nothing."""

_HINTS: Final = {
    "store": "nothing is kept here: leave it out and send the whole conversation as input",
    "previous_response_id": "nothing is kept here: send the whole conversation as input",
    "conversation": "nothing is kept here: send the whole conversation as input",
}
_OWN: Final = frozenset(
    {
        *("input", "instructions", "max_output_tokens", "text", "tools", "tool_choice", "reasoning", "stream_options"),
        *("max_tool_calls", "prompt_cache_options", "moderation", "access_programs", *_NEUTRAL),
    }
)
"""Fields of a response's request that a chat completion has not, or has in another form."""
_PLACE: Final = re.compile(r"messages\[(\d+)\]")


class Text(BaseModel):
    """The form of the answer: *format* is `text`, `json_object` or `json_schema` with name and schema beside it."""

    model_config = ConfigDict(extra="allow")

    format: dict[str, Any] | None = None


class Reasoning(BaseModel):
    model_config = ConfigDict(extra="allow")

    effort: str | None = Field(default=None, max_length=_SHOWN)


class ResponseRequest(BaseModel):
    """What of a request is looked at here; the rest is a chat completion's."""

    model_config = ConfigDict(extra="allow")

    input: str | list[dict[str, Any]]
    instructions: str | None = None
    max_output_tokens: int | None = Field(default=None, ge=1)
    text: Text | None = None
    tools: list[dict[str, Any]] = []
    tool_choice: str | dict[str, Any] | None = None
    reasoning: Reasoning | None = None


@dataclass(frozen=True, slots=True)
class Translated:
    """*chat* is the body of a chat completion, *places* the index in `input` of each of its messages (-1: the instructions), *echo* what the answer repeats."""

    chat: dict[str, Any]
    places: tuple[int, ...]
    echo: dict[str, Any]


def translate(body: dict[str, Any]) -> Translated:
    """Return the chat completion that *body* asks for; BadRequestError names what cannot be honoured."""
    for name, neutral in _NEUTRAL.items():
        if name in body and body[name] not in neutral:
            raise BadRequestError(
                f'cannot honour "{name}" for this model', hint=_HINTS.get(name, "leave it out"), param=name
            )
    if body.get("n", 1) != 1:
        raise BadRequestError('cannot take "n": a response has one answer', param="n")
    try:
        request = ResponseRequest.model_validate(body)
    except ValidationError as error:
        raise requests.translate(error) from error
    messages, places = _messages(request)
    chat = {name: value for name, value in body.items() if name not in _OWN} | {"messages": messages}
    if request.max_output_tokens is not None:
        chat["max_completion_tokens"] = request.max_output_tokens
    if request.text is not None and request.text.format is not None:
        chat["response_format"] = _format(request.text.format)
    if request.tools:
        chat["tools"] = [_tool(tool, number) for number, tool in enumerate(request.tools)]
    if request.tool_choice is not None:
        chat["tool_choice"] = _choice(request.tool_choice)
    if request.reasoning is not None and request.reasoning.effort is not None:
        chat["chat_template_kwargs"] = {**_thinking(request.reasoning.effort), **chat.get("chat_template_kwargs", {})}
    return Translated(chat, places, _echo(body, request))


def blame(error: BadRequestError, places: tuple[int, ...]) -> BadRequestError:
    """Return *error* with what it says of messages said of `input`."""

    def place(match: re.Match[str]) -> str:
        index = places[int(match[1])] if int(match[1]) < len(places) else -1
        return "instructions" if index < 0 else f"input[{index}]"

    error.message = _PLACE.sub(place, error.message).replace('"messages"', '"input"')
    error.param = "input" if error.param == "messages" else error.param
    return error


def known_fields() -> frozenset[str]:
    """Return the names that are known here and not to a chat completion."""
    return _OWN - ChatRequest.model_fields.keys()


def _messages(request: ResponseRequest) -> tuple[list[dict[str, Any]], tuple[int, ...]]:
    messages: list[dict[str, Any]] = []
    places: list[int] = []
    if request.instructions:
        messages.append({"role": "system", "content": request.instructions})
        places.append(-1)
    items = [{"role": "user", "content": request.input}] if isinstance(request.input, str) else request.input
    if not items:
        raise BadRequestError('cannot take "input": it is empty', param="input")
    for index, item in enumerate(items):
        _add(messages, item, f"input[{index}]")
        places += [index] * (len(messages) - len(places))
    return messages, tuple(places)


def _add(messages: list[dict[str, Any]], item: dict[str, Any], place: str) -> None:
    """Append what *item* says, to the message before it where both are one turn of the model."""
    kind = item.get("type", "message")
    if kind == "message":
        role = item.get("role")
        if role not in {"user", "assistant", "system", "developer"}:
            raise BadRequestError(f'cannot take "{place}": its role is {str(role)[:_SHOWN]!r}', param="input")
        message = {"role": "system" if role == "developer" else role, "content": item.get("content") or ""}
        merged = messages and messages[-1]["role"] == "system" == message["role"]
        if merged and isinstance(messages[-1]["content"], str) and isinstance(message["content"], str):
            messages[-1]["content"] += "\n\n" + message["content"]  # many templates take one system message alone
        else:
            messages.append(message)
    elif kind == "function_call":
        call = {
            "id": _text(item, "call_id", place),
            "type": "function",
            "function": {"name": _text(item, "name", place), "arguments": _text(item, "arguments", place)},
        }
        if not messages or messages[-1]["role"] != "assistant":
            messages.append({"role": "assistant", "content": ""})
        messages[-1].setdefault("tool_calls", []).append(call)
    elif kind == "function_call_output":
        output = item.get("output")
        if not isinstance(output, str | list):
            raise BadRequestError(f'cannot take "{place}": it has no output', param="input")
        messages.append({"role": "tool", "tool_call_id": _text(item, "call_id", place), "content": output})
    elif kind != "reasoning":  # what it thought in earlier turns is not told to a model again
        raise BadRequestError(
            f'cannot take "{place}": its type is {str(kind)[:_SHOWN]!r}',
            hint="message, function_call and function_call_output are understood; nothing is kept that could be referred to",
            param="input",
        )


def _text(item: dict[str, Any], name: str, place: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise BadRequestError(f'cannot take "{place}": it has no {name}', param="input")
    return value


def _format(given: dict[str, Any]) -> dict[str, Any]:
    if given.get("type") != "json_schema":
        return given
    return {"type": "json_schema", "json_schema": {name: value for name, value in given.items() if name != "type"}}


def _tool(tool: dict[str, Any], number: int) -> dict[str, Any]:
    if tool.get("type") != "function":
        raise BadRequestError(
            f'cannot take "tools[{number}]": its type is {str(tool.get("type"))[:_SHOWN]!r}',
            hint="only functions are called, which the application runs itself",
            param="tools",
        )
    kept = ("name", "description", "parameters", "strict")
    return {"type": "function", "function": {name: tool[name] for name in kept if tool.get(name) is not None}}


def _choice(given: str | dict[str, Any]) -> Any:
    if isinstance(given, str):
        return given
    if given.get("type") == "function" and isinstance(given.get("name"), str):
        return {"type": "function", "function": {"name": given["name"]}}
    raise BadRequestError(
        f'cannot take "tool_choice": its type is {json.dumps(given.get("type"))[:_SHOWN]}',
        hint='"none", "auto", "required" and a function by its name are understood',
        param="tool_choice",
    )


def _thinking(effort: str) -> dict[str, Any]:
    """Return what templates know *effort* by: gpt-oss has its name, Qwen and others a switch."""
    return {"reasoning_effort": effort, "enable_thinking": effort not in {"none", "minimal"}}


def _echo(body: dict[str, Any], request: ResponseRequest) -> dict[str, Any]:
    form = {"type": "text"} if request.text is None or request.text.format is None else request.text.format
    return {
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "metadata": body.get("metadata") or {},
        "parallel_tool_calls": body.get("parallel_tool_calls", True),
        "previous_response_id": None,
        "reasoning": {"effort": request.reasoning.effort if request.reasoning else None, "summary": None},
        "store": False,
        "temperature": body.get("temperature"),
        "text": {"format": form},
        "tool_choice": request.tool_choice or "auto",
        "tools": request.tools,
        "top_p": body.get("top_p"),
        "truncation": "disabled",
        "user": body.get("user"),
    }
