"""Keys are blotted out of whatever a provider says, however it comes in pieces, and nothing else is touched."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jand.engine.remote.answer import Blotter, readable

KEY = "sk-abab-abac-0"
"""Begins like parts of itself, so that a search that skips too far would miss it."""

PIECES = st.lists(
    st.sampled_from([KEY, KEY[:5], KEY[3:], KEY[:-1], "s", "sk-", "\n\n", "data: ü", "ab", "x" * 40]), max_size=12
)


def passed(key: str | None, pieces: list[bytes]) -> list[bytes]:
    blotter = Blotter(key)
    return [*(blotter.blot(piece) for piece in pieces), blotter.rest()]


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    at = sorted({0, len(data), *(each % (len(data) + 1) for each in cuts)})
    return [data[begin:end] for begin, end in itertools.pairwise(at)]


@given(pieces=PIECES, cuts=st.lists(st.integers(0, 10_000), max_size=20))
def test_the_key_is_gone_whichever_way_it_was_cut(pieces: list[str], cuts: list[int]) -> None:
    data = "".join(pieces).encode()
    out = b"".join(passed(KEY, cut(data, cuts)))

    assert out == data.replace(KEY.encode(), b"*" * len(KEY))


@given(data=st.binary(max_size=200), cuts=st.lists(st.integers(0, 10_000), max_size=5))
def test_without_a_key_every_piece_stays_as_it_is(data: bytes, cuts: list[int]) -> None:
    pieces = cut(data, cuts)

    assert passed(None, pieces)[:-1] == pieces


def test_an_event_is_passed_on_at_once() -> None:
    event = b'data: {"delta": "s"}\n\n'

    assert passed(KEY, [event, event]) == [event, event, b""]


@pytest.mark.parametrize("key", ["EMPTY", "x", "not-needed", "lm-studio"])
def test_words_in_the_place_of_a_key_are_left_in_answers(key: str) -> None:
    """People write these where a local server wants some key; an answer may hold them."""
    text = f"the list is {key}".encode()

    assert passed(key, [text]) == [text, b""]


@pytest.mark.parametrize(
    ("page", "text"),
    [
        (b"<html><head><title>502 Bad\n Gateway</title></head><body>nginx</body></html>", "502 Bad Gateway"),
        (b"<p>No &amp; <b>no</b></p><script>x()</script>", "No & no"),
        (b"upstream timed out\r\n", "upstream timed out"),
        (b"", ""),
        (b"\xff\x00\x1b[31m", "\ufffd [31m"),
        (b"x" * 1000, "x" * 300),
    ],
)
def test_a_page_is_read_as_one_line(page: bytes, text: str) -> None:
    assert readable(page) == text
