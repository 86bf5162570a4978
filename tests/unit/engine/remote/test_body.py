"""What a provider is sent in place of what came: its own name of the model, and defaults for what the request leaves out."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jand.engine.remote.body import rewrite
from tests.fakes.records import make_spec

CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "hi"}]


def sent(
    asked: dict[str, Any], runtime: dict[str, Any] | None = None, path: str = CHAT, *, strict: bool = True
) -> dict[str, Any]:
    """Return what goes out for *asked*, without the parts that are the same everywhere."""
    given = make_spec(parameters={"init": {}, "runtime": runtime or {}}).parameters.runtime.given()
    body = rewrite(path, json.dumps({"model": "mine"} | asked).encode(), name="theirs", runtime=given, strict=strict)
    content: dict[str, Any] = json.loads(body)
    assert content.pop("model") == "theirs"
    return content


def test_the_defaults_of_the_specs_example() -> None:
    runtime = {"temperature": "0.7", "max_tokens": "2048", "presence_penalty": "0", "top_p": "1", "stream": "true"}

    assert sent({}, runtime) == {"temperature": 0.7, "max_tokens": 2048, "presence_penalty": 0.0, "top_p": 1.0}


def test_what_the_request_says_stands() -> None:
    asked = {"temperature": 0, "stop": [], "max_tokens": 5, "logprobs": False}

    assert sent(asked, {"temperature": 0.7, "stop": "x", "max_tokens": 9, "logprobs": True}) == asked


def test_a_null_leaves_it_out() -> None:
    assert sent({"temperature": None, "max_tokens": None}, {"temperature": 0.5, "token_limit": 9}) == {
        "temperature": 0.5,
        "max_tokens": 9,
    }


@pytest.mark.parametrize("asked", ["max_tokens", "max_completion_tokens", "n_predict"])
def test_one_limit_is_enough(asked: str) -> None:
    """OpenAI refuses two limits side by side."""
    assert sent({asked: 5}, {"token_limit": 9, "max_completion_tokens": 9}) == {asked: 5}


@pytest.mark.parametrize(
    ("runtime", "path", "expected"),
    [
        ({"token_limit": 9}, CHAT, {"max_tokens": 9}),
        ({"token_limit": 9, "max_tokens": 7}, CHAT, {"max_tokens": 7}),
        ({"token_limit": 9, "max_completion_tokens": 7}, CHAT, {"max_completion_tokens": 7}),
        ({"max_completion_tokens": 7}, "/v1/completions", {"max_tokens": 7}),
        ({"token_limit": 9}, "/v1/responses", {"max_output_tokens": 9}),
        ({"token_limit": 9}, "/v1/embeddings", {}),
        ({"token_limit": -1}, CHAT, {}),
    ],
)
def test_token_limit_is_the_default_of_max_tokens(runtime: dict[str, Any], path: str, expected: dict[str, Any]) -> None:
    assert sent({}, runtime, path) == expected


def test_a_strict_provider_is_sent_only_what_openai_knows() -> None:
    runtime = {
        "top_k": 40,
        "min_p": 0.1,
        "repeat_penalty": 1.1,
        "grammar": "root ::= x",
        "cache_prompt": True,
        "top_p": 0.9,
    }

    assert sent({}, runtime) == {"top_p": 0.9}
    assert sent({}, runtime, strict=False) == runtime


def test_a_compatible_provider_is_sent_no_words_of_ours() -> None:
    runtime = {"token_limit": 9, "stream": True, "n": 2, "top_k": 40}

    assert sent({}, runtime, strict=False) == {"max_tokens": 9, "top_k": 40}


@pytest.mark.parametrize(
    ("runtime", "path", "asked", "expected"),
    [
        ({"logprobs": True, "top_logprobs": 2}, CHAT, {}, {"logprobs": True, "top_logprobs": 2}),
        ({"top_logprobs": 2}, CHAT, {}, {}),
        ({"top_logprobs": 2}, CHAT, {"logprobs": True}, {"logprobs": True, "top_logprobs": 2}),
        ({"logprobs": 3}, "/v1/completions", {}, {"logprobs": 3}),
        ({"logprobs": 3}, CHAT, {}, {}),
        ({"logprobs": True}, "/v1/completions", {}, {}),
        ({"parallel_tool_calls": False}, CHAT, {}, {}),
        ({"parallel_tool_calls": False}, CHAT, {"tools": [1]}, {"tools": [1], "parallel_tool_calls": False}),
        ({"seed": -1}, CHAT, {}, {}),
        ({"seed": 7}, CHAT, {}, {"seed": 7}),
        ({"temperature": 0.5}, "/v1/embeddings", {}, {}),
        ({"temperature": 0.5}, "/v1/audio/speech", {}, {}),
        ({"response_format": {"type": "json_object"}}, "/v1/responses", {}, {}),
    ],
)
def test_a_default_is_sent_only_where_openai_takes_it(
    runtime: dict[str, Any], path: str, asked: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert sent(asked, runtime, path) == expected


def test_streaming_is_never_a_default() -> None:
    assert sent({}, {"stream": True}) == {}
    assert sent({"stream": True}, {"stream": False}) == {"stream": True}


def test_what_is_meant_for_jand_does_not_go_out() -> None:
    assert sent({"keep_alive": 5, "user": "x"}) == {"user": "x"}


def test_a_body_without_need_for_a_change_stays_byte_for_byte() -> None:
    body = b'{ "model":"theirs",  "messages": [], "n": 1.0, "text": "\\u00fc" }'

    assert rewrite(CHAT, body, name="theirs", runtime={"temperature": None}, strict=True) is body


def test_any_text_survives_being_rewritten() -> None:
    asked = {"messages": [{"role": "user", "content": "\ud800 \x00 ü 🙂 </script>"}], "big": 10**30, "small": 1e-300}

    assert sent(asked, {"temperature": 0.5}) == asked | {"temperature": 0.5}
