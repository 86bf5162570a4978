"""What goes to a provider in place of the body that came: the provider's name of the model, and the defaults of `runtime` for what the request leaves out.

A body that needs no change stays byte for byte what it is; the answer is never touched. What else stands in a request is for the provider to judge.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

SAMPLING: Final = frozenset(
    {"temperature", "top_p", "presence_penalty", "frequency_penalty", "stop", "seed", "logit_bias", "logprobs"}
)
KNOWN: Final[dict[str, frozenset[str]]] = {
    "/v1/chat/completions": SAMPLING | {"top_logprobs", "response_format", "reasoning_effort", "parallel_tool_calls"},
    "/v1/completions": SAMPLING,
    "/v1/responses": frozenset({"temperature", "top_p", "top_logprobs", "parallel_tool_calls"}),
    "/v1/embeddings": frozenset(),
}
"""The fields of `runtime` that OpenAI's API knows, by path: it answers 400 for any other."""

LIMITS: Final = ("max_completion_tokens", "max_tokens", "n_predict", "token_limit")
"""What limits an answer, in a JSON: the first that is set counts."""

ASKED_LIMITS: Final = frozenset({"max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict"})
"""What limits an answer, in a request. OpenAI refuses two of them side by side."""

OUR_OWN: Final = frozenset({"keep_alive"})
"""Fields of requests that are meant for jand."""

NO_DEFAULTS: Final = frozenset({"stream", "model", "n", "stream_options", *LIMITS})
NEEDS: Final = {"parallel_tool_calls": "tools", "top_logprobs": "logprobs"}
"""Fields that are refused without another one."""


def rewrite(path: str, body: bytes, *, name: str, runtime: Mapping[str, Any], strict: bool) -> bytes:
    """Return the body that the provider is sent. *runtime* is that of the JSON; *strict*: none of it but what OpenAI knows."""
    content: dict[str, Any] = json.loads(body)
    changes = {"model": name} | {
        field: value
        for field, value in find_defaults(path, runtime, content, strict=strict).items()
        if content.get(field) is None
    }
    changed = {field: value for field, value in (content | changes).items() if field not in OUR_OWN}
    return body if changed == content else json.dumps(changed).encode()


def find_defaults(path: str, runtime: Mapping[str, Any], asked: Mapping[str, Any], *, strict: bool) -> dict[str, Any]:
    """Return what of *runtime* may stand in a request for *path* that holds *asked*; a null there is as good as nothing."""
    known = KNOWN.get(path, frozenset())
    fields = {
        field: value
        for field, value in runtime.items()
        if value is not None and field not in NO_DEFAULTS and (field in known or (not strict and bool(known)))
    }
    if strict:
        fields = {field: value for field, value in fields.items() if _is_taken(path, field, value)}
    if known and all(asked.get(field) is None for field in ASKED_LIMITS):
        fields |= _limit(path, runtime)
    return {
        field: value
        for field, value in fields.items()
        if field not in NEEDS or asked.get(NEEDS[field]) or fields.get(NEEDS[field])
    }


def _is_taken(path: str, field: str, value: object) -> bool:
    """Whether OpenAI takes *value*: log probabilities are a flag in conversations and a number in completions, and -1 is llama.cpp's word for chance."""
    if field == "logprobs":
        return isinstance(value, bool) is (path == "/v1/chat/completions")
    return field != "seed" or value != -1


def _limit(path: str, runtime: Mapping[str, Any]) -> dict[str, int]:
    field = next((field for field in LIMITS if runtime.get(field) is not None), None)
    if field is None or runtime[field] <= 0:
        return {}
    if path == "/v1/responses":
        return {"max_output_tokens": runtime[field]}
    kept = field == "max_completion_tokens" and path == "/v1/chat/completions"
    return {field if kept else "max_tokens": runtime[field]}
