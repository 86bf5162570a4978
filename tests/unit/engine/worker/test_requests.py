"""Request bodies: taken by OpenAI's and llama-server's names, refused by name, defaults for what is left out."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jand.engine.worker.requests import (
    ChatRequest,
    CompletionRequest,
    SamplingRequest,
    bias_of,
    check_defaults,
    parse_body,
    parse_request,
    read_defaults,
)
from jand.engine.worker.sampling import RANDOM_SEED, Sampling
from jand.errors import BadRequestError

MESSAGES = [{"role": "user", "content": "hi"}]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def text(**body: Any) -> CompletionRequest:
    return parse_request(CompletionRequest, {"prompt": "x", **body}, {})[0]


@pytest.mark.parametrize(
    ("runtime", "body", "limit"),
    [
        ({}, {}, None),
        ({"token_limit": 5}, {}, 5),
        ({"token_limit": 5, "max_tokens": 6}, {}, 6),
        ({"token_limit": 5}, {"max_tokens": 7}, 7),
        ({"token_limit": 5}, {"max_completion_tokens": 8}, 8),
        ({"token_limit": 5}, {"n_predict": 9}, 9),
        ({"token_limit": 5}, {"n_predict": -1}, None),
        ({}, {"max_tokens": 0}, 0),
    ],
)
def test_limit_is_the_requests_own_else_the_models(
    runtime: dict[str, Any], body: dict[str, Any], limit: int | None
) -> None:
    request, _ = parse_request(ChatRequest, {"messages": MESSAGES, **body}, read_defaults(runtime))
    assert request.limit == limit


def test_stream_of_the_runtime_never_turns_a_request_into_a_stream() -> None:
    request, _ = parse_request(
        ChatRequest, {"messages": MESSAGES}, read_defaults({"stream": True, "temperature": 0.25})
    )
    assert (request.stream, request.temperature) == (False, 0.25)


def test_null_means_not_given() -> None:
    body = parse_body(b'{"prompt": "x", "temperature": null, "stop": null}')
    assert parse_request(CompletionRequest, body, {"temperature": 0.1})[0].temperature == 0.1


@given(st.integers())
def test_every_seed_fits_c(seed: int) -> None:
    value = text(seed=seed).sampling((), choice=3).seed
    assert 0 <= value <= RANDOM_SEED
    assert (value == RANDOM_SEED) == (seed < 0)


@given(st.sampled_from(sorted(SamplingRequest.model_fields)), JSON)
def test_any_value_of_any_field_is_taken_or_refused_by_its_name(name: str, value: object) -> None:
    try:
        request = text(**{name: value})
        sampling = request.sampling(bias_of(request, lambda _: [1], 100))
    except BadRequestError as error:
        named = error.param
    else:
        named = None
        check(sampling)
    assert named in {None, name, "body"} or name in {"max_tokens", "schema"}


def check(sampling: Sampling) -> None:
    for field in ("temperature", "top_p", "min_p", "repeat_penalty", "mirostat_tau", "dry_base"):
        assert math.isfinite(getattr(sampling, field))
    assert 0 <= sampling.top_p <= 1
    assert sampling.repeat_penalty > 0
    assert sampling.top_k >= 0


@pytest.mark.parametrize("name", ["audio", "tools", "functions", "samplers", "lora", "suffix", "web_search_options"])
def test_known_field_that_cannot_be_honoured_is_refused(name: str) -> None:
    with pytest.raises(BadRequestError, match=f'cannot honour "{name}"') as caught:
        text(**{name: [{"x": 1}]})
    assert caught.value.param == name


@pytest.mark.parametrize(
    "body", [{"tools": []}, {"tool_choice": "none"}, {"suffix": ""}, {"best_of": 1}, {"user": "me"}, {"store": False}]
)
def test_known_field_that_asks_for_nothing_is_taken(body: dict[str, Any]) -> None:
    _, unknown = parse_request(CompletionRequest, {"prompt": "x", **body}, {})
    assert unknown == []


def test_unknown_fields_are_named() -> None:
    _, unknown = parse_request(CompletionRequest, {"prompt": "x", "frobnicate": 1}, {})
    assert unknown == ["frobnicate"]


@pytest.mark.parametrize(
    ("given_bias", "pairs"),
    [
        ({"5": 1}, ((5, 1.0),)),
        ({"hello": -2.5}, ((7, -2.5), (8, -2.5))),
        ([[5, False], ["hello", 1]], ((5, -math.inf), (7, 1.0), (8, 1.0))),
        (None, ()),
    ],
)
def test_logit_bias_is_understood_in_both_forms(given_bias: Any, pairs: tuple[tuple[int, float], ...]) -> None:
    request = text() if given_bias is None else text(logit_bias=given_bias)
    assert bias_of(request, lambda _: [7, 8], 100) == pairs


@pytest.mark.parametrize(
    "bias", [{"5": 10**400}, {"5": math.nan}, {"5": 1e300}, {"5": "x"}, {"100": 1}, {"-1": 1}, [["5", True]]]
)
def test_a_bias_that_is_no_number_or_for_no_token_is_refused(bias: Any) -> None:
    with pytest.raises(BadRequestError, match="logit_bias"):
        bias_of(text(logit_bias=bias), lambda _: [7, 8], 100)


@pytest.mark.parametrize("key", ["9" * 5000, "--5", "²"])
def test_a_bias_key_that_is_no_number_of_a_token_is_text(key: str) -> None:
    assert bias_of(text(logit_bias={key: 1}), lambda _: [7], 100) == ((7, 1.0),)


def test_a_list_without_a_prompt_is_refused() -> None:
    with pytest.raises(BadRequestError) as caught:
        text(prompt=[]).prompts()
    assert caught.value.param == "prompt"


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [("a", ["a"]), (["a", "b"], ["a", "b"]), ([1, 2], [[1, 2]]), ([[1], [2, 3]], [[1], [2, 3]])],
)
def test_prompt_is_text_texts_tokens_or_tokens_of_several(prompt: Any, prompts: list[Any]) -> None:
    assert text(prompt=prompt).prompts() == prompts


@pytest.mark.parametrize("runtime", [{"temperature": -1}, {"top_p": 3}, {"stop": [1]}])
def test_bad_default_is_named(runtime: dict[str, Any]) -> None:
    with pytest.raises(BadRequestError) as caught:
        check_defaults(runtime)
    assert caught.value.param == next(iter(runtime))
