"""Thoughts, text and calls are told apart, however the answer is cut into pieces."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jand.engine.worker.reading import Called, Piece, Reader, Said, Thought, parse_calls
from jand.engine.worker.tools import Family

CALL = '{"name": "add", "arguments": {"a": 1}}'


def read(text: str, places: list[int], family: Family | None, **how: bool) -> tuple[str, str, list[tuple[str, str]]]:
    reader = Reader(family=family, **how)
    edges = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    pieces: list[Piece] = []
    for start, end in itertools.pairwise(edges):
        pieces += reader.feed(text[start:end])
    pieces += reader.end()
    said = "".join(piece.text for piece in pieces if isinstance(piece, Said))
    thought = "".join(piece.text for piece in pieces if isinstance(piece, Thought))
    calls = [(piece.name, piece.arguments) for piece in pieces if isinstance(piece, Called)]
    assert reader.called == bool(calls)
    return said, thought, calls


ADD = ("add", '{"a": 1}')
CASES = [
    (None, "hello <tool_call>", "hello <tool_call>", "", []),
    (None, "<think>\nhm\n</think>\n\nyes", "yes", "hm", []),
    (None, "<thin air", "<thin air", "", []),
    (None, "<think>never ends", "", "never ends", []),
    (None, "a <think>b</think>", "a <think>b</think>", "", []),
    (Family.HERMES, f"<tool_call>\n{CALL}\n</tool_call>", "", "", [ADD]),
    (
        Family.HERMES,
        f"Let me see. <tool_call>{CALL}</tool_call>\n<tool_call>{CALL}</tool_call>",
        "Let me see. ",
        "",
        [ADD, ADD],
    ),
    (Family.HERMES, f"<tool_call>\n{CALL}", "", "", [ADD]),
    (Family.HERMES, "<tool_call>no json</tool_call>", "<tool_call>no json</tool_call>", "", []),
    (Family.HERMES, "a < b <tool", "a < b <tool", "", []),
    (Family.HERMES, f"<think>x</think><tool_call>{CALL}</tool_call>", "", "x", [ADD]),
    (Family.LLAMA, '{"name": "add", "parameters": {"a": 1}}', "", "", [ADD]),
    (
        Family.LLAMA,
        '<|python_tag|>{"name": "add", "parameters": {"a": 1}}; {"name": "add", "parameters": {"a": 1}}',
        "",
        "",
        [ADD, ADD],
    ),
    (Family.LLAMA, '{"colour": "red"}', '{"colour": "red"}', "", []),
    (Family.LLAMA, "It is {red}", "It is {red}", "", []),
    (Family.MISTRAL, f"[TOOL_CALLS][{CALL}, {CALL}]", "", "", [ADD, ADD]),
    (Family.MISTRAL, '[TOOL_CALLS]add[ARGS]{"a": 1}', "", "", [ADD]),
    (Family.MISTRAL, "see [TOOL", "see [TOOL", "", []),
    (Family.GENERIC, f"<tool_call>{CALL}</tool_call>", "", "", [ADD]),
]


@pytest.mark.parametrize(("family", "text", "said", "thought", "calls"), CASES)
@given(st.lists(st.integers(0, 300), max_size=12))
def test_parts_do_not_depend_on_where_the_text_is_cut(
    family: Family | None, text: str, said: str, thought: str, calls: list[tuple[str, str]], places: list[int]
) -> None:
    assert read(text, places, family) == (said, thought, calls)


def test_thoughts_that_the_prompt_opened_or_that_nobody_wants_apart() -> None:
    assert read("hm</think>yes", [], None, thinking=True) == ("yes", "hm", [])
    assert read("<think>hm</think>yes", [3], None, separate_thoughts=False) == ("<think>hm</think>yes", "", [])


@given(
    st.text(alphabet='<>think/tool_call{}[]":, aARGS', max_size=60),
    st.lists(st.integers(0, 300), max_size=8),
    st.sampled_from([None, *Family]),
)
def test_nothing_is_lost_of_what_is_no_call(text: str, places: list[int], family: Family | None) -> None:
    said, thought, calls = read(text, places, family)
    if not calls and "<think>" not in text:
        assert said.strip() == text.strip()
        assert not thought


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "{",
        '{"name": 3, "arguments": {}}',
        '{"name": "a"}',
        '[{"name": "a", "arguments": 5}]',
        "a[ARGS]5",
        "[" * 10_000,
    ],
)
def test_what_is_no_call_is_none(text: str) -> None:
    assert parse_calls(text) == []


def test_text_is_not_held_longer_than_it_must_be() -> None:
    reader = Reader(family=Family.HERMES)
    assert reader.feed("hello <") == [Said("hello ")]
    assert reader.feed("b") == [Said("<b")]
