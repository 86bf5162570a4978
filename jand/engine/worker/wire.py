"""Errors in the contract's one shape, usage and events as they go over the wire. Pure, and light: it is imported before a worker is ready."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jand.engine.worker.answer import Usage
    from jand.errors import JandError

STATUS: Final = {
    "bad-request": 400,
    "bad-json": 400,
    "context-length-exceeded": 400,
    "template-failed": 400,
    "queue-full": 429,
    "shutting-down": 503,
}
"""HTTP status of the errors a worker answers by code; 500 for every other."""
_TYPES: Final = {400: "invalid_request_error", 429: "rate_limit_error", 503: "unavailable_error"}

DONE: Final = b"data: [DONE]\n\n"
_TO_JSON: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def status_of(error: JandError) -> int:
    return STATUS.get(error.code, 500)


def error_body(error: JandError) -> dict[str, Any]:
    body: dict[str, Any] = {
        "message": f"{error.message}; hint: {error.hint}" if error.hint else error.message,
        "type": _TYPES.get(status_of(error), "server_error"),
        "param": error.param,
        "code": error.code,
    }
    body.update({name: value for name, value in error.facts.items() if name in {"n_prompt_tokens", "n_ctx"}})
    return {"error": body}


def encode(value: object) -> bytes:
    return _TO_JSON(value).encode("utf-8", "replace")


def event(value: object) -> bytes:
    return b"data: " + encode(value) + b"\n\n"


def usage_of(usages: Sequence[Usage], choices: int) -> dict[str, Any]:
    """Return OpenAI's `usage` over all answers; a prompt is counted once for its *choices*, which follow one another."""
    prompt = sum(usage.prompt_tokens for usage in usages[::choices])
    completion = sum(usage.completion_tokens for usage in usages)
    cached = sum(usage.cached_tokens for usage in usages[::choices])
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
