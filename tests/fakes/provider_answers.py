"""What OpenAI and Azure answer, as their documents and their clients' bug reports have it. Everything is fixed, so that two answers to one request are equal."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.fakes.upstream import answer_json

if TYPE_CHECKING:
    from tests.fakes.upstream import Behaviour

CREATED = 1_700_000_000
WORDS = ("Grüße", ", ", "wörld", " 🙂")
TEXT = "".join(WORDS)
USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 4,
    "total_tokens": 13,
    "completion_tokens_details": {"reasoning_tokens": 0},
}
SAFE = {"hate": {"filtered": False, "severity": "safe"}, "violence": {"filtered": False, "severity": "safe"}}
PROMPT_FILTER = [{"prompt_index": 0, "content_filter_results": SAFE}]
LIMITS = {"x-ratelimit-remaining-requests": "59", "x-ratelimit-limit-tokens": "150000", "x-request-id": "req_1"}
KNOWN = frozenset(
    {
        *(
            "model",
            "messages",
            "prompt",
            "input",
            "stream",
            "stream_options",
            "temperature",
            "top_p",
            "n",
            "stop",
            "seed",
        ),
        *("max_tokens", "max_completion_tokens", "max_output_tokens", "presence_penalty", "frequency_penalty", "tools"),
        *("logit_bias", "logprobs", "top_logprobs", "response_format", "reasoning_effort", "parallel_tool_calls"),
        *("user", "metadata", "encoding_format", "dimensions", "tool_choice"),
    }
)
BLOCKED_PROMPT = "blocked prompt"
BLOCKED_ANSWER = "blocked answer"


def dump(content: Any) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode()


def openai_error(
    status: int, message: str, code: str | None, param: str | None = None, headers: dict[str, str] | None = None
) -> Behaviour:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return answer_json({"error": {"message": message, "type": kind, "param": param, "code": code}}, status, headers)


def azure_error(status: int, code: str, message: str) -> Behaviour:
    return answer_json({"error": {"code": code, "message": message}}, status, {"apim-request-id": "a-1"})


def refuse_fields(body: dict[str, Any], tail: str, *, azure: bool) -> Behaviour | None:
    """Refuse what both really refuse: what is missing, what is unknown, two limits at once, and what the filter stops."""
    needed = {"chat/completions": "messages", "completions": "prompt"}.get(tail, "input")
    if not body.get(needed):
        return openai_error(400, f"Missing required parameter: '{needed}'.", "missing_required_parameter", needed)
    for name in body:
        if name not in KNOWN:
            return openai_error(400, f"Unrecognized request argument supplied: {name}", None)
    if body.get("max_tokens") is not None and body.get("max_completion_tokens") is not None:
        return openai_error(
            400, "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.", None
        )
    if azure and BLOCKED_PROMPT in json.dumps(body[needed]):
        filtered = {"code": "ResponsibleAIPolicyViolation", "content_filter_result": SAFE}
        error = {
            "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
            "type": None,
            "param": "prompt",
            "code": "content_filter",
            "status": 400,
            "innererror": filtered,
        }
        return answer_json({"error": error}, 400)
    return None


def _completion(body: dict[str, Any], kind: str, **more: Any) -> dict[str, Any]:
    """Return what all kinds of completions have. The model is named with its date, as the real ones do."""
    return {"id": "chatcmpl-1", "object": kind, "created": CREATED, "model": f"{body.get('model')}-2024-07-18", **more}


def chat_answer(body: dict[str, Any], *, azure: bool) -> Behaviour:
    blocked = BLOCKED_ANSWER in json.dumps(body["messages"])
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "" if blocked else TEXT,
        "refusal": None,
        "annotations": [],
    }
    choice: dict[str, Any] = {"index": 0, "message": message, "logprobs": None}
    choice["finish_reason"] = "content_filter" if blocked else "stop"
    more: dict[str, Any] = {"usage": USAGE, "system_fingerprint": "fp_1"}
    if azure:
        choice["content_filter_results"] = SAFE
        more["prompt_filter_results"] = PROMPT_FILTER
    return answer_json(_completion(body, "chat.completion", choices=[choice], **more), headers=LIMITS)


def chat_events(body: dict[str, Any], *, azure: bool) -> list[bytes]:
    def chunk(choices: list[Any], **more: Any) -> bytes:
        return dump(_completion(body, "chat.completion.chunk", choices=choices, system_fingerprint="fp_1", **more))

    def choice(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}

    events = [chunk([choice({"role": "assistant", "content": ""})])]
    events += [chunk([choice({"content": word})]) for word in WORDS]
    events.append(chunk([choice({}, "stop")]))
    if azure:
        first = {
            "id": "",
            "object": "",
            "created": 0,
            "model": "",
            "prompt_filter_results": PROMPT_FILTER,
            "choices": [],
        }
        filtered = {
            "index": 0,
            "finish_reason": None,
            "content_filter_results": SAFE,
            "content_filter_offsets": {"check_offset": 44, "start_offset": 44, "end_offset": 198},
        }
        # With the asynchronous filter its findings come after the end of the text, in chunks without a delta.
        events = [
            dump(first),
            *events,
            dump({"id": "", "object": "", "created": 0, "model": "", "choices": [filtered]}),
        ]
    if (body.get("stream_options") or {}).get("include_usage"):
        events.append(chunk([], usage=USAGE))
    return [*events, b"[DONE]"]


def text_answer(body: dict[str, Any]) -> Behaviour:
    choice = {"index": 0, "text": TEXT, "logprobs": None, "finish_reason": "stop"}
    return answer_json(_completion(body, "text_completion", choices=[choice], usage=USAGE), headers=LIMITS)


def text_events(body: dict[str, Any]) -> list[bytes]:
    ends = [*((word, None) for word in WORDS), ("", "stop")]
    choices = [{"index": 0, "text": word, "logprobs": None, "finish_reason": finish} for word, finish in ends]
    return [*(dump(_completion(body, "text_completion", choices=[choice])) for choice in choices), b"[DONE]"]


def embeddings_answer(body: dict[str, Any], vector: Any) -> Behaviour:
    data = [{"object": "embedding", "index": 0, "embedding": vector}]
    usage = {"prompt_tokens": 2, "total_tokens": 2}
    return answer_json({"object": "list", "data": data, "model": body.get("model"), "usage": usage}, headers=LIMITS)


def _response(body: dict[str, Any], status: str) -> dict[str, Any]:
    content = [{"type": "output_text", "text": TEXT, "annotations": []}]
    message = {"type": "message", "id": "msg_1", "status": status, "role": "assistant", "content": content}
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": CREATED,
        "status": status,
        "model": body.get("model"),
        "output": [message] if status == "completed" else [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "temperature": body.get("temperature", 1.0),
    }


def response_answer(body: dict[str, Any]) -> Behaviour:
    return answer_json(_response(body, "completed"), headers=LIMITS)


def response_events(body: dict[str, Any]) -> list[bytes]:
    """Return the events of a streamed response, which ends without [DONE]."""
    deltas: list[dict[str, Any]] = [
        {"type": "response.output_text.delta", "item_id": "msg_1", "delta": word} for word in WORDS
    ]
    created: dict[str, Any] = {"type": "response.created", "response": _response(body, "in_progress")}
    completed: dict[str, Any] = {"type": "response.completed", "response": _response(body, "completed")}
    return [dump(event | {"sequence_number": number}) for number, event in enumerate([created, *deltas, completed])]
